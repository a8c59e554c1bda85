"""What crosses between two parties of one process takes the wire's form on the way, so that a simulation is the session."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import Message

from comity.contract import EgressKind
from comity.tensors import Blob
from comity.transport.blobs import chunks, decode_chunk, encode_chunk
from comity.transport.protocol import Seat

Sent = TypeVar("Sent", bound=Message)


def pass_message(message: Sent, kind: EgressKind, subject: str, round: int, sender: Seat, receiver: Seat) -> Sent:
    """Encodes a message, lets it through the sender's gate, and decodes it for the receiver."""
    data = message.SerializeToString()
    sender.gate.release(kind, subject, len(data), round=round)
    receiver.gate.admit(kind, subject, len(data), round=round)
    return type(message).FromString(data)


def upload(blob: Blob, kind: EgressKind, round: int, sender: Seat, receiver: Seat) -> Blob:
    """Brings a blob to a party that expects it, unless it is there already; returns the receiver's copy."""
    if blob.digest not in receiver.blobs:
        sender.gate.release(kind, blob.hex, blob.size, round=round)
        incoming = receiver.blobs.receive(kind, round, blob.digest, blob.size, 0)
        for piece in chunks(blob, 0):
            incoming.write(decode_chunk(encode_chunk(piece)))
        receiver.blobs.complete(incoming)
        receiver.gate.admit(kind, blob.hex, blob.size, round=round)
    return receiver.blobs.get(blob.digest)


def download(digest: bytes, sender: Seat, receiver: Seat) -> Blob:
    """Brings a blob that its maker has published, unless it is there already; returns the receiver's copy."""
    if digest not in receiver.blobs:
        blob, kind, round = sender.blobs.published(digest)
        sender.gate.release(kind, blob.hex, blob.size, round=round)
        data = b"".join(decode_chunk(encode_chunk(piece)) for piece in chunks(blob, 0))
        copy = Blob.of(bytearray(data))
        receiver.task.layout.verify(copy)
        receiver.blobs.add(copy)
        receiver.gate.admit(kind, blob.hex, blob.size, round=round)
    return receiver.blobs.get(digest)
