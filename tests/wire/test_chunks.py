"""The hand-written codec of chunks speaks protobuf, byte for byte."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from comity.tensors import Blob
from comity.transport.blobs import CHUNK, LastPiece, chunks, decode_chunk, decode_piece, encode_chunk
from comity.wire.v1.blobs_pb2 import BlobChunk

# The lengths at which the length prefix grows by a byte.
boundaries = st.sampled_from([0, 1, 127, 128, 2**14 - 1, 2**14, CHUNK, 2**21 - 1, 2**21]).map(bytes)
data = st.binary(max_size=300) | boundaries


def varint(value: int) -> bytes:
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80]) + varint(value >> 7)


def field(number: int, data: bytes) -> bytes:
    """A field of bytes, as protobuf writes it."""
    return varint(number << 3 | 2) + varint(len(data)) + data


@given(data)
def test_chunks_encode_as_protobuf_encodes_them(data: bytes) -> None:
    expected = BlobChunk(data=data).SerializeToString()
    # proto3 leaves out an empty field; a reader takes both for the same message.
    assert encode_chunk(memoryview(data)) == (expected or field(1, b""))
    assert BlobChunk.FromString(encode_chunk(memoryview(data))).data == data


@given(data)
def test_chunks_decode_whatever_protobuf_encodes(data: bytes) -> None:
    assert decode_chunk(BlobChunk(data=data).SerializeToString()) == data


@given(st.lists(st.binary(max_size=5), max_size=3), st.integers(2, 20), st.binary(max_size=5))
def test_chunks_decode_as_protobuf_does_with_fields_repeated_or_unknown(
    pieces: list[bytes], number: int, other: bytes
) -> None:
    message = b"".join(encode_chunk(memoryview(piece)) for piece in pieces)
    message += field(number, other) + message
    assert decode_chunk(message) == BlobChunk.FromString(message).data


@given(st.binary(max_size=20))
@example(b"\x0a")
@example(b"\x0a\x05ab")
@example(b"\x0a\x82\x00ab")
@example(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
@example(b"\x0a\x80\x80\x80\x80\x10")
def test_any_bytes_decode_as_protobuf_decodes_them(message: bytes) -> None:
    try:
        expected = BlobChunk.FromString(message).data
    except DecodeError:
        with pytest.raises(DecodeError):
            decode_chunk(message)
    else:
        assert decode_chunk(message) == expected


@given(st.integers(0, 3 * CHUNK), st.data())
def test_a_blob_is_its_chunks_from_any_offset(size: int, data: st.DataObject) -> None:
    blob = Blob.of(bytes(range(256)) * (size // 256 + 1))
    offset = data.draw(st.integers(0, blob.size))
    pieces = list(chunks(blob, offset))
    assert b"".join(pieces) == bytes(blob.data[offset:])
    assert all(0 < len(piece) <= CHUNK for piece in pieces)


@given(data, st.binary(min_size=32, max_size=32))
def test_a_last_piece_has_the_digest(data: bytes, digest: bytes) -> None:
    assert decode_piece(BlobChunk(data=data, digest=digest).SerializeToString()) == LastPiece(data, digest)
    assert decode_piece(BlobChunk(data=data).SerializeToString()) == data
    # What only looks like a digest is data.
    looks = data + b"\x12\x20" + digest
    assert decode_piece(BlobChunk(data=looks).SerializeToString()) == looks
