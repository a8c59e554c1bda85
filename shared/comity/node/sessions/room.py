"""Room on disk: what sessions may take of it is promised before they begin, and kept with them."""

from __future__ import annotations

import shutil
from pathlib import Path

from comity.contract import Contract, Membership
from comity.errors import PolicyRefusal
from comity.node.party import LocalParty
from comity.protocol.definition import ProtocolDefinition
from comity.store.store import Store


def promise(
    party: LocalParty, contract: Contract, own: Membership, peer: Membership, definition: ProtocolDefinition
) -> int:
    """Checks, before a session is accepted, that there is room for it beside what other sessions may still take.

    Args:
        party: This party.
        contract: The contract.
        own: Its part in the session.
        peer: The other party's part.
        definition: The protocol.

    Returns:
        What the session may take, in bytes; to be kept with it.

    Raises:
        PolicyRefusal: There is no room.
    """
    if party.folder is None:
        return 0
    needed: int = definition.load().blobs_held(contract, own, peer) * party.task(contract).layout.size
    free = bytes_free(party.folder, party.config.policy.max_state_bytes)
    free -= outstanding(party.store, party.folder, but=contract.session)
    if needed > free:
        raise PolicyRefusal(
            f"{party.name} has no room for the session",
            expected=f"{needed / 1e6:.0f} MB for what it keeps",
            received=f"{max(free, 0) / 1e6:.0f} MB",
            action="raise policy.max_state_bytes, or free space with comity gc",
        )
    return needed


def promised(store: Store) -> int:
    """What the sessions that are not over may take in all, in bytes."""
    return sum(kept.promised for kept in store.sessions() if kept.is_on)


def outstanding(store: Store, folder: Path, *, but: str = "") -> int:
    """What the sessions that are not over may take beside what they have, in bytes.

    Args:
        store: Where they are kept.
        folder: Where their blobs are.
        but: A session that is left out.
    """
    sessions = [kept for kept in store.sessions() if kept.is_on and kept.promised and kept.session != but]
    return sum(max(0, kept.promised - bytes_used(folder / kept.session)) for kept in sessions)


def bytes_used(folder: Path) -> int:
    """What the files in a folder take, in bytes; 0 where it is not there yet."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def bytes_free(folder: Path, quota: int | None) -> int:
    """What may still be kept in a folder, in bytes; less than 0 where its quota is passed.

    Args:
        folder: The folder; it need not be there yet.
        quota: Most that it may hold, in bytes; None for what the disk holds.
    """
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    free = shutil.disk_usage(there).free
    return free if quota is None else min(free, quota - bytes_used(folder))
