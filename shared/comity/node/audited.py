"""A node as audits of its sessions see it: its samples, its task, and what it sent and kept."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from comity.contract import Contract
from comity.node.config import PartyConfig
from comity.node.party import LocalParty
from comity.node.sent_copies import SentCopies
from comity.protocol.audits import AuditedParty
from comity.store.memory_store import MemoryStore
from comity.store.secrets import GivenSecrets
from comity.store.store import Store


def audited(config: PartyConfig, name: str, contract: Contract, store: Store, state_dir: Path) -> AuditedParty:
    """The node whose session it is; nothing is written, and nothing of its own randomness is read.

    Args:
        config: Its configuration.
        name: The party.
        contract: What was agreed.
        store: What it keeps.
        state_dir: Where.
    """
    party = LocalParty(name, config, GivenSecrets(b"audit"), MemoryStore())
    copies = SentCopies(state_dir)
    sent, missing = copies.find(store, contract.session)
    return AuditedParty(
        party.holdings.data,
        lambda splits: party.task(contract, splits),
        sent,
        missing,
        partial(copies.copy, contract.session),
    )
