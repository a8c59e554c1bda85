"""Decoders of what models travel in."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from google.protobuf.message import DecodeError

from comity.blobs.incoming import Incoming
from comity.tensors import Blob, Layout, delta, sparse
from comity.transport import blobs
from comity.transport.blobs import LastPiece, decode_piece, encode_chunk
from comity.wire.v1 import blobs_pb2
from tests.fuzz.decoder import Decoder

STATE = {"weight": torch.arange(64, dtype=torch.float32).reshape(8, 8), "steps": torch.tensor(3)}
ENTRIES = 5000
METADATA = (
    "comity-kind\ncheckpoint\ncomity-digest\n" + "ab" * 32 + "\ncomity-size\n1000\ncomity-offset\n0\n"
    "comity-unit\nround\ncomity-first\n1\ncomity-count\n1\ncomity-index\n0\n"
    "comity-encoding\n" + "cd" * 32 + "\ncomity-base\n" + "ef" * 32
)


def decoders() -> Iterator[Decoder]:
    """A state dict, what is left of one when little of it is sent, and the pieces in which blobs come."""
    layout = Layout.of(STATE)
    packed = bytes(layout.pack(STATE).data)
    yield Decoder("safetensors", lambda data: layout.verify(Blob.of(bytearray(data))), (packed,))
    yield Decoder("sparse", lambda data: sparse.decode(data, ENTRIES), tuple(_sparse()))
    base = np.arange(3000, dtype=np.float32)
    changed = base.copy()
    changed[::7] += 1e-3
    before, after = memoryview(base.tobytes() + b"end"), memoryview(changed.tobytes() + b"End")
    encoded = delta.encode(after, before)
    yield Decoder("delta", lambda data: delta.decode(memoryview(data), before), (encoded,))
    last = blobs_pb2.BlobChunk(data=b"end", digest=bytes(32)).SerializeToString()
    yield Decoder("chunk", _piece, (encode_chunk(memoryview(bytes(300))), last))
    yield Decoder("upload metadata", _upload, (METADATA.encode(),))


def _sparse() -> Iterator[bytes]:
    for kept in (3, 2500, 4900, ENTRIES):
        places = torch.linspace(0, ENTRIES - 1, kept).long().unique()
        yield sparse.encode(places, torch.linspace(-1, 1, len(places)), ENTRIES)


def _piece(data: bytes) -> object:
    """A piece as a blob of 300 bytes takes it; what is none, gRPC itself refuses."""
    try:
        piece = decode_piece(data)
    except DecodeError:
        return None
    incoming = Incoming(bytes(32), 300)
    incoming.write(piece.data if isinstance(piece, LastPiece) else piece)
    return incoming.held


def _upload(data: bytes) -> object:
    """What stands beside an upload: keys and values as lines."""
    lines = data.decode("latin-1").split("\n")
    fields = dict(zip(lines[::2], lines[1::2], strict=False))
    units = blobs._units(fields)
    numbers = [blobs._number(fields, key) for key in (blobs._SIZE, blobs._OFFSET, blobs._INDEX)]
    return blobs._kind(fields), units, blobs._digest(fields, blobs._DIGEST), numbers, blobs._encoding(fields)
