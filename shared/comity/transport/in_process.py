"""What crosses between two parties of one process takes the wire's form on the way, so that a simulation is the session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from google.protobuf.message import Message

from comity.blobs.incoming import Incoming
from comity.contract import EgressKind
from comity.session.contexts import PeerContext
from comity.tensors import Blob
from comity.tensors.delta import shortest
from comity.transport.blobs import chunks, decode_chunk, encode_chunk

Sent = TypeVar("Sent", bound=Message)


def encoded(message: Sent) -> Sent:
    """A message as the other side decodes it."""
    return type(message).FromString(message.SerializeToString())


@contextmanager
def pass_message(
    message: Sent, kind: EgressKind, subject: str, round: int, sender: PeerContext, receiver: PeerContext
) -> Iterator[Sent]:
    """Lets a message through the sender's gate; what the receiver does with it is recorded together with its coming."""
    size = message.ByteSize()
    sender.gate.intend(kind, subject, size, round=round)
    with receiver.journal.transaction():
        yield encoded(message)
        receiver.gate.admit(kind, subject, size, round=round)


def upload(
    digest: bytes, kind: EgressKind, round: int, sender: PeerContext, receiver: PeerContext, base: bytes | None = None
) -> None:
    """Brings a blob to a party that expects it, unless it is there already; against a base where one is given."""
    if not receiver.blobs.held(digest).complete:
        blob = sender.blobs.get(digest)
        sent, encoding = shortest(blob, None if base is None else sender.blobs.get(base))
        sender.gate.intend(kind, blob.hex, sent.size, round=round)
        incoming = receiver.blobs.receive(kind, round, digest, sent.size, 0, encoding)
        _pass_bytes(sent, incoming)
        receiver.blobs.complete(incoming, lambda whole: receiver.gate.admit(kind, whole.hex, sent.size, round=round))
    sender.gate.deliver(kind, digest.hex(), round=round)


def download(digest: bytes, sender: PeerContext, receiver: PeerContext, base: bytes | None = None) -> None:
    """Brings a blob that its maker has published, unless it is there already; against a base where one is given."""
    if digest not in receiver.blobs:
        blob, kind, round = sender.blobs.published(digest)
        against = None if base is None else sender.blobs.published(base)[0]
        sent, encoding = shortest(blob, against)
        sender.gate.intend(kind, blob.hex, sent.size, round=round)
        incoming = Incoming(
            digest, sent.size, encoding, None if encoding is None else receiver.blobs.get(encoding.base)
        )
        _pass_bytes(sent, incoming)
        copy = incoming.finish()
        receiver.task.layout.verify(copy)
        receiver.gate.admit(kind, copy.hex, sent.size, round=round)
        receiver.blobs.add(copy)


def _pass_bytes(sent: Blob, incoming: Incoming) -> None:
    for piece in chunks(sent, 0):
        incoming.write(decode_chunk(encode_chunk(piece)))
