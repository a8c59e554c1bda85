"""What can go wrong, as one tree.

Every error carries what was expected, what came and what to do, as values, and prints as one line. The class says who
has to act, and so which code a command exits with; `comity.transport.status` gives each class its gRPC status.

    ComityError
    ├── UsageError                wrong usage or configuration: exit code 2
    │   ├── UnknownKey
    │   ├── InvalidValue
    │   ├── MissingFile
    │   ├── AddressInUse
    │   └── StateInUse
    ├── RefusedError              a peer or a policy said no: exit code 3
    │   ├── PolicyRefusal
    │   ├── UnknownParty
    │   ├── UnsupportedProtocol
    │   ├── UnknownModel
    │   ├── UnknownWeights
    │   ├── UnknownTask
    │   ├── ModelSignatureMismatch
    │   ├── TaskMismatch
    │   └── ContractMismatch
    ├── PeerMessageError          a peer's message does not fit: exit code 1
    │   ├── MalformedMessage
    │   ├── UnknownSession
    │   ├── RoundOutOfOrder
    │   ├── ConflictingOffer
    │   ├── NonFiniteValue
    │   ├── ReceiptInvalid
    │   ├── TooManyCalls
    │   └── BlobError
    │       ├── UnexpectedBlob
    │       ├── UnknownBlob
    │       ├── BlobSizeMismatch
    │       ├── BlobTruncated
    │       ├── BlobCorrupted
    │       └── TensorMismatch
    ├── TransportError            no answer, or none that can be understood: exit code 1
    │   ├── PeerUnreachable
    │   ├── CertificateRejected
    │   ├── DeadlineExceeded
    │   └── RemoteFailure
    └── SessionFailed             the session's own work could not be done: exit code 1
        ├── TrainingDiverged
        ├── ReleaseRefused
        ├── LedgerBroken
        ├── StorageError
        │   ├── StorageFailed
        │   ├── StorageCorrupted
        │   ├── SchemaMismatch
        │   └── ClockSteppedBack
        ├── DataChanged
        ├── SessionCancelled
        ├── NodeDraining
        └── NodeProcessFailed
"""

from __future__ import annotations

import re
from typing import ClassVar


class ComityError(Exception):
    """The root of the tree.

    Args:
        what: What is wrong, as the beginning of a sentence, without a full stop.
        expected: What would have been right.
        received: What came instead.
        action: What to do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, expected: object = None, received: object = None, action: str = "") -> None:
        self.what = what
        self.expected = None if expected is None else str(expected)
        self.received = None if received is None else str(received)
        self.action = action
        super().__init__(what)

    def __str__(self) -> str:
        """The error as one line: what is wrong, what was expected, what came, what to do."""
        line = self.what
        if self.expected is not None:
            line += f": expected {self.expected}"
        if self.received is not None:
            line += f"{':' if self.expected is None else ','} received {self.received}"
        if self.action:
            line += f"; {self.action}"
        # Parts of it may come from a peer: none of them breaks a line or drives a terminal.
        return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in " ".join(line.split()))

    @classmethod
    def reason(cls) -> str:
        """The class's name in the form that crosses the wire, for example `ROUND_OUT_OF_ORDER`."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).upper()


class UsageError(ComityError):
    """Something was typed or configured that cannot be used."""

    exit_code = 2


class UnknownKey(UsageError):
    """A configuration or script holds a key that nothing reads."""


class InvalidValue(UsageError):
    """A configured value is out of range or of the wrong kind."""


class MissingFile(UsageError):
    """A named file or folder is not there, or is of the wrong kind."""


class AddressInUse(UsageError):
    """A node cannot listen where its configuration says."""


class StateInUse(UsageError):
    """Another node process works in the same `state_dir`."""


class RefusedError(ComityError):
    """A peer, or this node's own policy, said no; asking again in the same way will not help."""

    exit_code = 3


class PolicyRefusal(RefusedError):
    """The contract is outside the policy of the node that refuses it."""


class UnknownParty(RefusedError):
    """The certificate of a caller names no party that this node or this session knows."""


class UnsupportedProtocol(RefusedError):
    """The contract names a protocol, or a version of one, that this node does not offer."""


class UnknownModel(RefusedError):
    """The contract names a model that this node cannot build."""


class UnknownWeights(RefusedError):
    """The contract names weights to begin with that this node does not have."""


class UnknownTask(RefusedError):
    """The contract names a kind of task that this node does not have."""


class ModelSignatureMismatch(RefusedError):
    """Both sides know the model's name but build different tensors for it."""


class TaskMismatch(RefusedError):
    """The data of the two sides do not fit the same task."""


class ContractMismatch(RefusedError):
    """A call quotes a contract that is not the session's."""


class PeerMessageError(ComityError):
    """What a peer sent does not fit; it costs the peer that call and leaves the session as it was."""


class MalformedMessage(PeerMessageError):
    """A message lacks a field, or holds one that is out of its range."""


class UnknownSession(PeerMessageError):
    """A call names a session that its caller has no part in."""


class RoundOutOfOrder(PeerMessageError):
    """A message belongs to a round or an index that is not on."""


class ConflictingOffer(PeerMessageError):
    """An offer that was made already came again with other content."""


class NonFiniteValue(PeerMessageError):
    """A weight, a loss or a gradient is NaN or infinite."""


class ReceiptInvalid(PeerMessageError):
    """A signed statement is not that of the party that it names, or states something else."""


class TooManyCalls(PeerMessageError):
    """One party has more calls open at a time than it may."""


class BlobError(PeerMessageError):
    """A blob cannot be taken or given."""


class UnexpectedBlob(BlobError):
    """No blob of this kind is expected in this round."""


class UnknownBlob(BlobError):
    """A blob is not here, or not visible to this session."""


class BlobSizeMismatch(BlobError):
    """A blob is announced with, or runs past, a size that the contract's model cannot have."""


class BlobTruncated(BlobError):
    """A blob ended before its announced length; what came is kept, so that it can be continued."""


class BlobCorrupted(BlobError):
    """The bytes of a blob do not have the digest that it was announced under."""


class TensorMismatch(BlobError):
    """The tensors in a blob are not those of the contract's model: a name, a shape or a dtype differs."""


class TransportError(ComityError):
    """A peer could not be reached or understood."""


class PeerUnreachable(TransportError):
    """Nothing answers at the peer's address."""


class CertificateRejected(TransportError):
    """One side does not accept the other's certificate; trying again will not help."""


class DeadlineExceeded(TransportError):
    """The peer took the call but did not answer in time."""


class RemoteFailure(TransportError):
    """The peer failed in a way that it did not explain."""


class SessionFailed(ComityError):
    """A session's own work could not be done."""


class TrainingDiverged(SessionFailed):
    """Local training arrived at a loss that is NaN or infinite."""


class ReleaseRefused(SessionFailed):
    """What a party was to send would give samples of its own away."""


class LedgerBroken(SessionFailed):
    """The chain of a ledger does not hold."""


class StorageError(SessionFailed):
    """What the node keeps cannot be read or written; nothing is half written."""


class StorageFailed(StorageError):
    """A file or the database cannot be written or read: the disk is full, the folder is read-only."""


class StorageCorrupted(StorageError):
    """What was kept is not what was written."""


class SchemaMismatch(StorageError):
    """The store was written by another version of comity, later or earlier."""


class ClockSteppedBack(StorageError):
    """The clock shows a time before the last entry's."""


class DataChanged(SessionFailed):
    """A party's data are others than those that a session was agreed on; it goes on when they are back."""


class SessionCancelled(SessionFailed):
    """An operator of either party ended the session before its time."""


class NodeDraining(SessionFailed):
    """The node is stopping and takes nothing new."""


class NodeProcessFailed(SessionFailed):
    """A node process that this command started did not come up, or went down."""


def of_system(error: OSError) -> InvalidValue | None:
    """What a person can fix of what the system says of a file: its name, its kind, who may use it; None for the rest."""
    if error.filename is None or isinstance(error.filename, int):
        return None
    name = str(error.filename)
    return InvalidValue(
        f"{name[:100]}{'…' if len(name) > 100 else ''} cannot be used",
        expected="a file or folder that this user may use",
        received=error.strerror or error,
        action="correct the path, or who may use it",
    )


def tree() -> list[type[ComityError]]:
    """Every class of the tree, parents before children."""
    found: list[type[ComityError]] = [ComityError]
    for error in found:
        found.extend(error.__subclasses__())
    return found
