"""What a node keeps of its sessions, besides blobs: the ledger, the sessions themselves, and a journal of each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Literal, Protocol

from comity.contract import Json
from comity.ledger.ledger import Ledger

SessionState = Literal["active", "waiting", "finished", "failed", "cancelled", "refused"]
ON: Final = ("active", "waiting")
"""States of a session that is not over."""
"""How a session stands: worked on, waiting for something that is not in this node's hands, or over in one of four ways."""

FINISHED = "finished"
"""Kind of the record with which a round ends."""


@dataclass(frozen=True, slots=True)
class Record:
    """A step of a session that is done and need not be done again: a role's state follows from its records in order.

    Attributes:
        kind: What was done, for example `offered`; belongs to the role.
        round: Round it belongs to; 0 for the session as a whole.
        fields: What is needed to have it done again without doing it.
        time: When, UTC, ISO 8601; for people who look back, and no part of what is done again.
    """

    kind: str
    round: int = 0
    fields: Mapping[str, Json] = field(default_factory=dict)
    time: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Waiting:
    """One thing that a session waits for.

    Attributes:
        reason: Name of the reason, for example `approval`.
        subject: What tells several of one reason apart, for example a party; empty where there is only one.
        waits_for: What it waits for, as people read it.
        ends_with: What ends the wait, likewise.
        counts: Whether the session counts against `policy.max_sessions` meanwhile.
        expires: Whether `policy.max_wait_s` bounds the wait.
        since: When it began, UTC, ISO 8601.
    """

    reason: str
    subject: str = ""
    waits_for: str = ""
    ends_with: str = ""
    counts: bool = True
    expires: bool = True
    since: str = ""


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A session that this node takes part in.

    Attributes:
        session: Identifier.
        contract: The contract, as its canonical JSON object.
        own: This party's membership, as a JSON object.
        peers: The other parties' memberships, as JSON objects, as far as they are known.
        state: How it stands.
        result: What it ended with: a result, or a failure.
        begun: When this node entered it, UTC, ISO 8601.
        waits: What it waits for, oldest first, while its state is `waiting`.
        promised: What it may take on disk, in bytes.
    """

    session: str
    contract: Mapping[str, Json]
    own: Mapping[str, Json]
    peers: tuple[Mapping[str, Json], ...] = ()
    state: SessionState = "active"
    result: Mapping[str, Json] = field(default_factory=dict)
    begun: str = ""
    waits: tuple[Waiting, ...] = ()
    promised: int = 0

    @property
    def is_helped(self) -> bool:
        """Whether this party helps in it, rather than asks; its protocol need not be there to say so."""
        acceptors = self.contract["acceptors"]
        return isinstance(acceptors, Sequence) and self.own["party"] in acceptors

    @property
    def initiator(self) -> str:
        """Who asked for it; empty where nobody did, since many may join it."""
        return str(self.contract.get("initiator") or "")

    @property
    def is_on(self) -> bool:
        """Whether it is not over."""
        return self.state in ON

    @property
    def counts(self) -> bool:
        """Whether it counts against what a party may have at a time."""
        return self.is_on and all(each.counts for each in self.waits)


@dataclass(frozen=True, slots=True)
class Lease:
    """Who works on a session.

    Attributes:
        session: The session.
        owner: The process, or what goes on in its place when it is started again.
        until: When it ends unless it is renewed, UTC, ISO 8601.
    """

    session: str
    owner: str
    until: str


class SmallBlobs(Protocol):
    """Blobs that are kept with what is written of their sessions, and become durable with it."""

    def add(self, session: str, part: str, digest: bytes, content: memoryview) -> None:
        """Keeps a blob; nothing happens where it is kept.

        Args:
            session: The session.
            part: What is kept apart within it; empty for the rest.
            digest: Its digest.
            content: Its bytes.
        """

    def find(self, session: str, part: str, digest: bytes) -> bytes | None:
        """A blob's bytes; None where it is not kept."""

    def digests(self, session: str, part: str) -> set[bytes]:
        """What is kept of a part of a session."""

    def remove(self, session: str, part: str, digests: Collection[bytes]) -> None:
        """Drops blobs."""

    def sessions(self) -> set[str]:
        """The sessions of which blobs are kept."""

    def used(self, session: str) -> int:
        """What those of a session take, in bytes."""

    def drop(self, session: str) -> None:
        """Drops all blobs of a session."""


class Store(Ledger, Protocol):
    """Ledger, sessions and journals, which change together. Several processes may use one.

    Attributes:
        small_blobs: Where blobs are kept for which a file each would be too much; None where there is no such place.
    """

    small_blobs: SmallBlobs | None

    def transaction(self) -> AbstractContextManager[None]:
        """What is written inside is there as a whole or not at all, and durable after the next `sync`. Transactions nest."""

    def save(self, session: StoredSession) -> None:
        """Adds a session, or replaces what is kept of it; durable at once, or at the end of the transaction."""

    def sessions(self) -> Sequence[StoredSession]:
        """All sessions, in the order in which they were added."""

    def ongoing(self) -> Sequence[StoredSession]:
        """The sessions that are not over, in the same order: found without reading those that are, which only grow in number."""

    def begun(self, initiator: str, since: str) -> int:
        """How many sessions an initiator has begun since a moment, over or not.

        Args:
            initiator: Who asked for them, by their contracts.
            since: From when on, UTC, ISO 8601.
        """

    def find(self, session: str) -> StoredSession | None:
        """The session of an identifier, None where there is none."""

    def append(self, session: str, record: Record) -> None:
        """Adds a record to a session's journal."""

    def records(self, session: str) -> Sequence[Record]:
        """A session's journal, in order."""

    def forget(self, session: str) -> None:
        """Drops a session's journal, when no role needs it any more; session and ledger stay.

        What says how the rounds went, the records of kind `finished`, stays for those who look back.
        """

    def take_lease(self, session: str, owner: str, duration: timedelta) -> Lease:
        """Takes a session's lease, or renews it, unless it is another's that has not run out.

        Args:
            session: The session; the store need not have it.
            owner: Who wants to work on it.
            duration: How long, from now.

        Returns:
            The lease that holds now: the owner's, or the other's.
        """

    def drop_lease(self, session: str, owner: str) -> None:
        """Lets go of a session's lease; nothing where it is not this owner's."""

    def size(self) -> int:
        """What all of it takes on disk, in bytes; 0 where it takes none."""

    def close(self) -> None:
        """Lets go of files and connections."""
