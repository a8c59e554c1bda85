"""Blobs on the move: the service that takes and gives them, and the chunks that they travel in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
from blake3 import blake3

from comity.blobs.incoming import Incoming
from comity.blobs.session_blobs import SessionBlobs
from comity.contract import KIND
from comity.errors import BlobCorrupted, BlobSizeMismatch, MalformedMessage, UnknownBlob
from comity.ledger.ledger import WHOLE, Units
from comity.session.gate import EgressGate
from comity.tensors import Blob
from comity.tensors.delta import Encoding, shortest
from comity.transport.identity import metadata
from comity.wire.v1 import blobs_pb2 as pb

CHUNK = 2**19
"""Bytes in a chunk: in the plateau between 256 KiB and 4 MiB, and below 1 MiB, where downloads under TLS become slower."""

SERVICE = pb.DESCRIPTOR.services_by_name["Blobs"].full_name
ATTACHED = 2**16
"""Most bytes of a blob that travels with the message that names it; such a call takes less than two more calls would."""

_DIGEST_BYTES = 32
_FIELD_TAG = b"\x0a"
"""Field 1, length-delimited: `BlobChunk.data`."""
_DIGEST_FIELD = b"\x12\x20"
"""Field 2, 32 bytes: `BlobChunk.digest`, with which a message ends."""

_KIND, _DIGEST, _SIZE, _OFFSET = "comity-kind", "comity-digest", "comity-size", "comity-offset"
_UNIT, _FIRST, _COUNT = "comity-unit", "comity-first", "comity-count"
_INDEX = "comity-index"
_ENCODING, _BASE = "comity-encoding", "comity-base"
_ASK = "ask the peer's operator what happened"


def take_attached(session: HasBlobs, reference: pb.BlobRef, kind: str, units: Units) -> None:
    """Keeps what came attached to a request, as an upload; the request is then as if it had come without.

    Raises:
        PeerMessageError: It is not expected, or does not fit.
    """
    content = reference.content
    reference.ClearField("content")
    digest = digest_in(reference)
    if not content:
        return
    if session.blobs.held(digest).complete:
        if blake3(content).digest() != digest:
            raise BlobCorrupted(
                "the blob's bytes are not those announced",
                expected=digest.hex(),
                received=f"{len(content)} other bytes",
                action="send it again",
            )
        # Of what is expected no more it is recorded that it came; else its sender could have anything recorded.
        if session.blobs.expects(kind, units, digest):
            session.gate.admit_blob(digest, kind, units, len(content))
        return
    incoming = session.blobs.receive(kind, units, digest, len(content), 0)
    try:
        incoming.write(content)
    except BlobSizeMismatch:
        session.blobs.forget(incoming)
        raise
    keep(session, incoming, kind, units)


def got_attached(reference: pb.BlobRef, size: int) -> Blob | None:
    """What came attached to an answer, which is then as if it had come without; None for nothing.

    Args:
        reference: What names it.
        size: Length that it has to have, in bytes.

    Raises:
        BlobSizeMismatch: It has another length.
        BlobCorrupted: It has another digest.
    """
    content = reference.content
    reference.ClearField("content")
    if not content:
        return None
    if len(content) != size:
        raise BlobSizeMismatch(
            "the blob has another length", expected=f"{size} bytes", received=f"{len(content)} bytes", action=_ASK
        )
    incoming = Incoming(digest_in(reference), size)
    incoming.write(content)
    return incoming.finish()


def keep(session: HasBlobs, incoming: Incoming, kind: str, units: Units) -> Blob:
    """Checks and keeps an upload that came whole, once the ledger says that it came; see `SessionBlobs.complete`."""

    def record(whole: Blob) -> None:
        session.gate.admit_blob(whole.digest, kind, units, incoming.size)

    with session.told_of_its_end():
        return session.blobs.complete(incoming, record)


def _let_out(session: HasBlobs, stat: pb.BlobStat) -> pb.BlobStat:
    """Lets out what is said to be here, once it would be here after a loss of power too."""
    session.gate.send(stat)
    return stat


def digest_in(reference: pb.BlobRef) -> bytes:
    """The digest that a message names.

    Raises:
        MalformedMessage: It is no BLAKE3 digest.
    """
    if len(reference.digest) != _DIGEST_BYTES:
        raise MalformedMessage(
            "a blob is named by no digest",
            expected=f"{_DIGEST_BYTES} bytes",
            received=f"{len(reference.digest)} bytes",
            action="name it by the BLAKE3 digest of its bytes",
        )
    return bytes(reference.digest)


def encode_chunk(data: memoryview) -> bytes:
    """The bytes of `BlobChunk(data=data)`, with one copy less than protobuf's own encoder makes."""
    length = len(data)
    prefix = bytearray(_FIELD_TAG)
    while length >= 0x80:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return b"".join((prefix, data))


def decode_chunk(message: bytes) -> memoryview:
    """The data of an encoded `BlobChunk`, as a view of the message.

    Raises:
        DecodeError: It is no `BlobChunk`.
    """
    view = memoryview(message)
    length = shift = 0
    if message[:1] == _FIELD_TAG:
        for position, byte in enumerate(view[1:6], start=1):
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                if position + 1 + length == len(view):
                    return view[position + 1 :]
                break
    return memoryview(pb.BlobChunk.FromString(message).data)


@dataclass(frozen=True, slots=True)
class LastPiece:
    """The end of an upload that named no digest.

    Attributes:
        data: The last bytes.
        digest: Digest of the whole blob.
    """

    data: bytes
    digest: bytes


def decode_piece(message: bytes) -> memoryview | LastPiece:
    """A piece of an upload; see `decode_chunk`.

    Raises:
        DecodeError: It is no `BlobChunk`.
    """
    if _DIGEST_FIELD in message[-_DIGEST_BYTES - 2 :]:
        chunk = pb.BlobChunk.FromString(message)
        if chunk.digest:
            return LastPiece(chunk.data, chunk.digest)
    return decode_chunk(message)


def chunks(blob: Blob, offset: int) -> Iterator[memoryview]:
    """A blob's bytes from an offset on, cut into chunks."""
    for begin in range(offset, blob.size, CHUNK):
        yield blob.data[begin : begin + CHUNK]


Beside = tuple[tuple[str, str], ...]
"""Call metadata."""


def put_metadata(
    blob: Blob, kind: str, units: Units, offset: int, sent: Blob | None = None, encoding: Encoding | None = None
) -> Beside:
    """What travels beside an upload; where something else is sent for the blob, size and offset count that."""
    size = (sent or blob).size
    fields = ((_KIND, kind), (_DIGEST, blob.hex), (_SIZE, str(size)), (_OFFSET, str(offset)))
    return (*fields, *_units_metadata(units), *_encoding_metadata(encoding))


def coming(fields: Iterable[tuple[str, str | bytes]], before: Incoming, size: int, base: Blob) -> Incoming:
    """Where a download goes on, or begins, by what the peer says ahead of it.

    Args:
        fields: What it says, as metadata.
        before: What came in an earlier attempt.
        size: Length of the blob, in bytes.
        base: The blob against which it may come encoded.

    Raises:
        MalformedMessage: It cannot be read.
        BlobSizeMismatch: The encoding is longer than the blob.
        UnknownBlob: It is against another base.
    """
    said = {key: value for key, value in fields if isinstance(value, str)}
    encoding = _encoding(said)
    length = size if encoding is None else _number(said, _SIZE)
    if length > size:
        raise BlobSizeMismatch(
            "the blob's encoding is longer than the blob",
            expected=f"at most {size} bytes",
            received=f"{length} bytes",
            action=_ASK,
        )
    if encoding is not None and encoding.base != base.digest:
        raise UnknownBlob(
            "the blob comes against another base", expected=base.hex, received=encoding.base.hex(), action=_ASK
        )
    if (before.encoding, before.size) == (encoding, length):
        return before
    return Incoming(before.digest, length, encoding, base if encoding else None)


class HasBlobs(Protocol):
    """A session, or a proposal of one, as far as blobs are concerned."""

    @property
    def blobs(self) -> SessionBlobs:
        """Its blobs."""

    @property
    def gate(self) -> EgressGate:
        """What may leave in it, and what came."""

    def told_of_its_end(self) -> AbstractContextManager[None]:
        """See `AcceptedSession.told_of_its_end`."""


class BlobServicer:
    """Takes and gives the blobs of sessions.

    Args:
        find: What a call belongs to, or an error.
    """

    def __init__(self, find: Callable[[grpc.ServicerContext], HasBlobs]) -> None:
        self._find = find

    def add_to(self, server: grpc.Server) -> None:
        """Registers the service, with chunks that skip protobuf's copies."""
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Stat": grpc.unary_unary_rpc_method_handler(
                self.Stat, pb.BlobRef.FromString, pb.BlobStat.SerializeToString
            ),
            "Put": grpc.stream_unary_rpc_method_handler(self.Put, decode_piece, pb.BlobStat.SerializeToString),
            "Get": grpc.unary_stream_rpc_method_handler(self.Get, pb.BlobRequest.FromString, encode_chunk),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    def Stat(self, request: pb.BlobRef, context: grpc.ServicerContext) -> pb.BlobStat:  # noqa: N802
        """How much of a blob is here."""
        session = self._find(context)
        held = session.blobs.held(digest_in(request))
        return _let_out(session, pb.BlobStat(held=held.size, complete=held.complete, encoding=held.encoding))

    def Put(self, request: Iterator[memoryview | LastPiece], context: grpc.ServicerContext) -> pb.BlobStat:  # noqa: N802
        """Takes the rest of a blob."""
        session = self._find(context)
        fields = metadata(context)
        kind, units = _kind(fields), _units(fields)
        is_named = _INDEX not in fields
        digest = _digest(fields, _DIGEST) if is_named else _stand_in(kind, units, _number(fields, _INDEX))
        size, offset = _number(fields, _SIZE), _number(fields, _OFFSET)
        incoming = session.blobs.receive(kind, units, digest, size, offset, _encoding(fields) if is_named else None)
        try:
            for piece in request:
                if isinstance(piece, LastPiece):
                    incoming.write(piece.data)
                    session.blobs.name(incoming, piece.digest)
                else:
                    incoming.write(piece)
            _require_named(incoming, digest, is_named=is_named)
        except (BlobSizeMismatch, MalformedMessage):
            session.blobs.forget(incoming)
            raise
        except BaseException:
            if is_named:
                session.blobs.put_back(incoming)
            else:
                session.blobs.forget(incoming)
            raise
        return _let_out(session, pb.BlobStat(held=keep(session, incoming, kind, units).size, complete=True))

    def Get(self, request: pb.BlobRequest, context: grpc.ServicerContext) -> Iterator[memoryview]:  # noqa: N802
        """Gives a blob from an offset on."""
        session = self._find(context)
        blob, kind, units = session.blobs.published(digest_in(request.blob))
        sent = blob
        if request.HasField("base"):
            # What changed since a blob tells that blob to whoever has this one: it must be the peer's to have, too.
            base, _, _ = session.blobs.published(digest_in(request.base))
            sent, encoding = shortest(blob, base)
            context.send_initial_metadata(((_SIZE, str(sent.size)), *_encoding_metadata(encoding)))
        with session.told_of_its_end():
            session.gate.send_blob(blob, kind, units, size=sent.size)
        yield from chunks(sent, request.offset)


def _units_metadata(units: Units) -> Beside:
    if units == WHOLE:
        return ()
    return (_UNIT, units.unit), (_FIRST, str(units.first)), (_COUNT, str(units.count))


def _units(fields: Mapping[str, str]) -> Units:
    """What an upload belongs to; the session as a whole where it says nothing."""
    if _UNIT not in fields:
        return WHOLE
    units = Units(fields[_UNIT], _number(fields, _FIRST), _number(fields, _COUNT))
    if not re.fullmatch(KIND, units.unit) or not units.first or not units.count:
        raise MalformedMessage(
            "the upload belongs to nothing",
            expected="a unit, the first and how many",
            received=f"{units.count} of {units.unit[:40] or 'nothing'} from {units.first}",
            action="name the round, or what the protocol counts; nothing for the session as a whole",
        )
    return units


def _encoding_metadata(encoding: Encoding | None) -> Beside:
    return () if encoding is None else ((_ENCODING, encoding.digest.hex()), (_BASE, encoding.base.hex()))


def _encoding(fields: Mapping[str, str]) -> Encoding | None:
    return Encoding(_digest(fields, _ENCODING), _digest(fields, _BASE)) if _ENCODING in fields else None


def _digest(fields: Mapping[str, str], key: str) -> bytes:
    try:
        digest = bytes.fromhex(fields.get(key, ""))
    except ValueError:
        digest = b""
    return digest_in(pb.BlobRef(digest=digest))


def _stand_in(kind: str, units: Units, index: int) -> bytes:
    """What stands for the digest of a blob until it comes; no blob has it."""
    return blake3(f"{kind}/{units}/{index}".encode(), derive_key_context="comity upload").digest()


def _require_named(incoming: Incoming, announced: bytes, *, is_named: bool) -> None:
    """Checks that an upload has ended under its digest: the one announced, or, where none was, one of its own."""
    if (incoming.digest == announced) is not is_named:
        raise MalformedMessage(
            "the upload's digest does not belong there" if is_named else "the upload ended without its digest",
            expected="the digest in its metadata alone" if is_named else "the digest in its last piece",
            received=incoming.digest.hex() if is_named else "none",
            action="name a blob once",
        )


def _kind(fields: dict[str, str]) -> str:
    kind = fields.get(_KIND, "")
    if not re.fullmatch(KIND, kind):
        raise MalformedMessage(
            "the upload names no egress kind",
            expected="a kind that the contract names",
            received=kind[:40] or "nothing",
            action="name one of these",
        )
    return kind


def _number(fields: Mapping[str, str], key: str) -> int:
    text = fields.get(key, "")
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise MalformedMessage(
            f"the upload's {key} cannot be read",
            expected="a number",
            received=text[:40] or "nothing",
            action="send a whole number from 0 in decimal digits",
        )
    return int(text)
