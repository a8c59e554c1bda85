"""A node as audits of its sessions see it: its samples, its task, and what it sent and kept."""

from __future__ import annotations

from pathlib import Path

from comity.blobs.blob_store import of_node
from comity.contract import Contract
from comity.node.config import PartyConfig
from comity.node.party import LocalParty
from comity.node.sent_copies import SentCopies
from comity.protocol.audits import AuditedParty
from comity.store.memory_store import MemoryStore
from comity.store.secrets import GivenSecrets
from comity.store.store import Store
from comity.tensors import Blob


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
    copies, blobs = SentCopies(state_dir), of_node(state_dir, store.small_blobs)
    sent, missing = copies.find(store, contract.session)

    def copy(digest: bytes) -> Blob | None:
        found = copies.copy(contract.session, digest)
        return found if found is not None else blobs.find(contract.session, digest)

    return AuditedParty(
        party.holdings.data,
        lambda splits: party.task(contract, splits),
        sent,
        missing,
        copy,
    )
