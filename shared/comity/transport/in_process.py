"""What crosses between two parties of one process takes the wire's form on the way, so that a simulation is the session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from google.protobuf.message import Message

from comity.contract import EgressKind
from comity.session.seat import Seat
from comity.tensors import Blob
from comity.transport.blobs import chunks, decode_chunk, encode_chunk

Sent = TypeVar("Sent", bound=Message)


def encoded(message: Sent) -> Sent:
    """A message as the other side decodes it."""
    return type(message).FromString(message.SerializeToString())


@contextmanager
def pass_message(
    message: Sent, kind: EgressKind, subject: str, round: int, sender: Seat, receiver: Seat
) -> Iterator[Sent]:
    """Lets a message through the sender's gate; what the receiver does with it is recorded together with its coming."""
    size = message.ByteSize()
    sender.gate.intend(kind, subject, size, round=round)
    with receiver.journal.transaction():
        yield encoded(message)
        receiver.gate.admit(kind, subject, size, round=round)


def upload(digest: bytes, kind: EgressKind, round: int, sender: Seat, receiver: Seat) -> None:
    """Brings a blob to a party that expects it, unless it is there already."""
    if not receiver.blobs.held(digest)[1]:
        blob = sender.blobs.get(digest)
        sender.gate.intend(kind, blob.hex, blob.size, round=round)
        incoming = receiver.blobs.receive(kind, round, digest, blob.size, 0)
        for piece in chunks(blob, 0):
            incoming.write(decode_chunk(encode_chunk(piece)))
        receiver.blobs.complete(incoming, lambda whole: receiver.gate.admit(kind, whole.hex, whole.size, round=round))
    sender.gate.deliver(kind, digest.hex(), round=round)


def download(digest: bytes, sender: Seat, receiver: Seat) -> None:
    """Brings a blob that its maker has published, unless it is there already."""
    if digest not in receiver.blobs:
        blob, kind, round = sender.blobs.published(digest)
        sender.gate.intend(kind, blob.hex, blob.size, round=round)
        copy = Blob.of(bytearray(b"".join(decode_chunk(encode_chunk(piece)) for piece in chunks(blob, 0))))
        receiver.task.layout.verify(copy)
        receiver.gate.admit(kind, copy.hex, copy.size, round=round)
        receiver.blobs.add(copy)
