"""What an audit looks at: a session that this node had, as its store has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from comity.contract import Contract, Json
from comity.store.store import Store, StoredSession


@dataclass(frozen=True)
class AuditContext:
    """What an audit looks at.

    Attributes:
        contract: What was agreed.
        session: The session as it was kept.
        store: What the node keeps; it may not be written.
        state_dir: Where the node keeps it.
    """

    contract: Contract
    session: StoredSession
    store: Store
    state_dir: Path


AuditRun = Callable[[AuditContext], Mapping[str, Json]]
"""What an extension names; says what somebody could have learned, by name."""
