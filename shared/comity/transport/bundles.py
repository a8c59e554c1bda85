"""Bundles: files that travel from one party to the other, where no network joins them.

A bundle holds the messages that a round's calls would carry, and the blobs that they name, signed as a whole with the
sender's receipt key: there is no connection, and so no certificate, that would say whose it is. The file is a line of
magic, the length of a head, the head (`Bundle` of `bundles.proto`), and the blobs, one after another, each as long as the
head says. It names no paths, and nothing in it is read before the signature and the length of the file are right.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TypeVar

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError, Message

from comity import faults
from comity.blobs.incoming import Incoming
from comity.errors import (
    BlobSizeMismatch,
    BlobTruncated,
    InvalidValue,
    MalformedMessage,
    MissingFile,
    StorageFailed,
    UnknownBlob,
)
from comity.ledger.receipts import Signer, require_bundle
from comity.tensors import Blob
from comity.transport.blobs import CHUNK, digest_in
from comity.wire.v1 import blobs_pb2, sessions_pb2
from comity.wire.v1 import bundles_pb2 as pb

Kind = TypeVar("Kind", bound=Message)

_MAGIC = b"comity bundle 1\n"
_LENGTH = struct.Struct(">I")
_LARGEST = 4 * 2**20
"""Bytes of a head that is read; one of 400 blobs has 80 thousand."""
_ACTION = "ask for it again, or copy it again from where it was made"


@dataclass(frozen=True, slots=True)
class Label:
    """Whose a bundle is, and what it belongs to.

    Attributes:
        receiver: Party that it is for.
        session: Session that it belongs to.
        contract_hash: Hash of the session's contract, hexadecimal.
    """

    receiver: str
    session: str
    contract_hash: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """What is to cross in one journey.

    Attributes:
        round: Round that it belongs to; 0 for what comes before the first.
        calls: The calls in the order in which they would be made, or those with their answers.
        blobs: The blobs that they name and the receiver does not hold, all of one length.
        held: Digests of those that the sender holds, which need not be sent back.
        ending: Number of the wire's `Ending` that the session has come to; 0 while it goes on.
    """

    round: int
    calls: Sequence[pb.BundledCall] = ()
    blobs: Sequence[Blob] = ()
    held: Collection[bytes] = ()
    ending: int = 0


def bundled(path: str, request: Message, *answers: Message) -> pb.BundledCall:
    """A call that waits to be brought, or one with its answers."""
    return pb.BundledCall(method=path, request=_packed(request), answers=[_packed(each) for each in answers])


def unpacked(message: AnyMessage, kind: type[Kind]) -> Kind:
    """A message of a bundle.

    Raises:
        MalformedMessage: It is of another kind, or cannot be read.
    """
    expected, name = kind.DESCRIPTOR.full_name, message.TypeName()
    if name != expected:
        raise _malformed(expected, name or "a message of no kind")
    try:
        return kind.FromString(message.value)
    except DecodeError as error:
        raise _malformed(name, "other bytes") from error


class AnswerDue(Exception):
    """A session waits for the answer to what it ships. No error: it goes on when the answer has been offline here.

    Args:
        bundle: What the other party is to have first.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        super().__init__(f"round {bundle.round} waits for its answer")


def write_bundle(path: Path, label: Label, bundle: Bundle, signer: Signer, sender: str) -> int:
    """Writes a bundle, whole or not at all; returns its length in bytes.

    Raises:
        InvalidValue: It has more messages than a bundle can hold.
        StorageFailed: The file cannot be written; nothing of it is left.
    """
    contents = pb.BundleContents(
        receiver=label.receiver,
        session=label.session,
        contract_hash=label.contract_hash,
        round=bundle.round,
        calls=bundle.calls,
        blob_size=max((each.size for each in bundle.blobs), default=0),
        blobs=[blobs_pb2.BlobRef(digest=each.digest) for each in bundle.blobs],
        ending=sessions_pb2.Ending.ValueType(bundle.ending),
        held=[
            blobs_pb2.BlobRef(digest=each) for each in sorted({*bundle.held} - {each.digest for each in bundle.blobs})
        ],
    ).SerializeToString()
    head = pb.Bundle(sender=sender, contents=contents, signature=signer.sign_bundle(contents)).SerializeToString()
    if len(head) > _LARGEST:
        raise InvalidValue(
            "the round has too many blobs for a bundle",
            expected=f"a head of at most {_LARGEST} bytes",
            received=len(head),
            action="use a longer sampling_period",
        )
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(_MAGIC + _LENGTH.pack(len(head)) + head)
            for blob in bundle.blobs:
                file.write(blob.data)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        faults.point("transfer")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StorageFailed(
            f"{path} cannot be written",
            expected="a writable disk with space",
            received=error.strerror or error,
            action="free space there, or name another folder with --out, and export again",
        ) from error
    return size


@dataclass(frozen=True)
class ReceivedBundle:
    """A bundle that is its sender's and has the right length; its blobs are read one at a time, when they are wanted.

    Attributes:
        sender: Party that made it.
        label: What it belongs to.
        round: Round that it belongs to.
        ending: Number of the wire's `Ending`; 0 while the session goes on.
        blob_size: Length of each of its blobs, in bytes.
        calls: The calls, or those with their answers.
        held: Digests of blobs that the sender holds.
    """

    sender: str
    label: Label
    round: int
    ending: int
    blob_size: int
    calls: Sequence[pb.BundledCall] = field(repr=False)
    held: frozenset[bytes] = field(repr=False)
    _places: dict[bytes, int] = field(repr=False)
    _file: BinaryIO = field(repr=False)

    @property
    def blobs(self) -> int:
        """Number of blobs in it."""
        return len(self._places)

    def __contains__(self, digest: bytes) -> bool:
        """Whether a blob is in it."""
        return digest in self._places

    def fill(self, incoming: Incoming) -> None:
        """Reads a blob.

        Args:
            incoming: Its digest and length, and where it goes.

        Raises:
            UnknownBlob: It is not in the bundle.
            BlobSizeMismatch: The bundle's blobs have another length.
            StorageFailed: The file cannot be read.
        """
        if incoming.digest not in self._places:
            raise UnknownBlob("the bundle lacks a blob", expected=incoming.digest.hex(), action=_ACTION)
        if incoming.size != self.blob_size:
            raise BlobSizeMismatch(
                "the bundle's blobs have another length",
                expected=f"{incoming.size} bytes",
                received=f"{self.blob_size} bytes",
                action="send state dicts of the contract's model",
            )
        try:
            self._file.seek(self._places[incoming.digest])
            while incoming.held < incoming.size and (
                piece := self._file.read(min(CHUNK, incoming.size - incoming.held))
            ):
                incoming.write(piece)
        except OSError as error:
            raise StorageFailed(
                "the bundle cannot be read", received=error.strerror or error, action=_ACTION
            ) from error


@contextmanager
def opened_bundle(path: Path, key_of: Callable[[str], str]) -> Iterator[ReceivedBundle]:
    """Opens a bundle.

    Args:
        path: The file.
        key_of: The receipt key, hexadecimal, that a party is known by; raises where there is none.

    Raises:
        MissingFile: There is no such file.
        InvalidValue: It cannot be read, or is something else.
        BlobTruncated: Its end is missing.
        ReceiptInvalid: It is not signed by the party that it names, or was changed.
        MalformedMessage: It does not fit together.
        ComityError: Its sender is not known.
    """
    if not path.is_file():
        received = "a folder" if path.is_dir() else "nothing"
        raise MissingFile(f"{path} cannot be read", expected="a bundle", received=received, action="check the path")
    try:
        file = path.open("rb")
    except OSError as error:
        raise InvalidValue(
            f"{path} cannot be read", expected="a readable file", received=error.strerror or error
        ) from error
    with file:
        yield _read(file, path, key_of)


def _read(file: BinaryIO, path: Path, key_of: Callable[[str], str]) -> ReceivedBundle:
    if file.read(len(_MAGIC)) != _MAGIC:
        raise InvalidValue(
            f"{path} is no bundle", expected="a file that comity offline export wrote", received="something else"
        )
    there = os.fstat(file.fileno()).st_size
    prefix = file.read(_LENGTH.size)
    begin = len(_MAGIC) + _LENGTH.size
    length = _LENGTH.unpack(prefix)[0] if len(prefix) == _LENGTH.size else there
    if length > _LARGEST:
        raise _malformed(f"a head of at most {_LARGEST} bytes", f"one of {length}")
    _require_length(path, begin + length, there, least=True)
    try:
        bundle = pb.Bundle.FromString(file.read(length))
        # Before anything of the contents is looked at.
        require_bundle(bundle.contents, bundle.signature, bundle.sender, key_of(bundle.sender))
        contents = pb.BundleContents.FromString(bundle.contents)
    except DecodeError as error:
        raise _malformed("a signed head", "other bytes") from error
    begin += length
    digests = [digest_in(each) for each in contents.blobs]
    _require_length(path, begin + contents.blob_size * len(digests), there)
    return ReceivedBundle(
        bundle.sender,
        Label(contents.receiver, contents.session, contents.contract_hash),
        contents.round,
        contents.ending,
        contents.blob_size,
        contents.calls,
        frozenset(digests) | {digest_in(each) for each in contents.held},
        {digest: begin + contents.blob_size * number for number, digest in enumerate(digests)},
        file,
    )


def _require_length(path: Path, expected: int, there: int, *, least: bool = False) -> None:
    if there < expected:
        raise BlobTruncated(
            f"{path} is not whole", expected=f"{expected} bytes", received=f"{there} bytes", action=_ACTION
        )
    if there > expected and not least:
        raise _malformed(f"{expected} bytes", f"{there} bytes")


def _packed(message: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed


def _malformed(expected: str, received: object) -> MalformedMessage:
    return MalformedMessage("the bundle does not fit together", expected=expected, received=received, action=_ACTION)
