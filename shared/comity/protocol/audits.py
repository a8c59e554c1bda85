"""What an audit looks at: a session that this node had, as its store has it, and what it sent where that was kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comity.contract import Contract, Json
from comity.errors import InvalidValue
from comity.ledger.ledger import Units
from comity.store.store import Store, StoredSession

if TYPE_CHECKING:
    from comity.data import Splits
    from comity.tensors import Blob


@dataclass(frozen=True)
class Sent:
    """A blob that left.

    Attributes:
        kind: Its egress kind.
        units: What it belongs to.
        blob: The blob.
    """

    kind: str
    units: Units
    blob: Blob


@dataclass(frozen=True)
class AuditedParty:
    """The node whose session it is, with its data.

    Attributes:
        data: Its samples, or games.
        task: Builds its task of the session; given other samples, with those and without a guard.
        sent: What it sent and kept, in the order in which it first left, each once.
        not_kept: How many blobs left of which nothing was kept.
        copy: What was kept under a digest, also of what the peers had already and a message named, or what came and is
            still here.
    """

    data: Any
    task: Callable[[Splits | None], Any]
    sent: Sequence[Sent]
    not_kept: int
    copy: Callable[[bytes], Blob | None] = lambda _: None


@dataclass(frozen=True)
class AuditContext:
    """What an audit looks at.

    Attributes:
        contract: What was agreed.
        session: The session as it was kept.
        store: What the node keeps; it may not be written.
        state_dir: Where the node keeps it.
        party: The node itself; None where its configuration was not named.
    """

    contract: Contract
    session: StoredSession
    store: Store
    state_dir: Path
    party: AuditedParty | None = None

    def require_party(self) -> AuditedParty:
        """The node itself.

        Raises:
            InvalidValue: Its configuration was not named, or nothing of what it sent was kept.
        """
        if self.party is None:
            raise InvalidValue(
                "this audit compares what was sent with the node's own samples",
                expected="the node's configuration",
                received="none",
                action="name it with --config node.toml",
            )
        if not self.party.sent:
            raise InvalidValue(
                "nothing that this session sent is here",
                expected="what was sent, kept",
                received=f"{self.party.not_kept} blobs that were not",
                action="set [audit] keep = true in node.toml before a session",
            )
        return self.party

    def losses_sent(self) -> int:
        """How many exact losses left: each is a question to the node's samples, answered."""
        facts = (entry.fact for entry in self.store.entries(self.session.session))
        return sum(each.matter == "intended" and each.direction == "sent" and each.kind == "loss" for each in facts)


AuditRun = Callable[[AuditContext], Mapping[str, Json]]
"""What an extension names; says what a peer could have learned, by name."""
