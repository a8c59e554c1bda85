"""Room for sessions: what they may take on disk is promised before they begin, and kept with them; memory likewise."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from comity.blobs.blob_store import BlobStore
from comity.contract import Contract, Membership
from comity.errors import PolicyRefusal
from comity.protocol.definition import ProtocolDefinition
from comity.session.policy import NOTHING_RESERVED, Policy, Reserved
from comity.store.store import Store

if TYPE_CHECKING:
    from comity.node.party import LocalParty


def disk_space(
    party: LocalParty, contract: Contract, own: Membership, peer: Membership, definition: ProtocolDefinition
) -> int:
    """Most bytes that a party will keep for a session at a time, beside its records; see `promise`."""
    task, space = party.tried_task(contract), definition.load().disk_space
    return 0 if space is None else space(contract, own, peer, task)


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
    sent = party.starting_bytes(contract)
    needed = disk_space(party, contract, own, peer, definition)
    # What was sent of weights to begin with takes its room already.
    require_disk(party, contract, needed)
    return needed + sent


def require_disk(party: LocalParty, contract: Contract, needed: int, others: Reserved = NOTHING_RESERVED) -> None:
    """Checks that there is room on disk beside what other sessions may still take, and in the share of who asks.

    Args:
        party: This party.
        contract: The contract of the session that needs it.
        needed: How much, in bytes.
        others: What is to come beside that, and what sessions were promised.

    Raises:
        PolicyRefusal: There is less.
    """
    quota = party.config.policy.max_state_bytes
    free = bytes_free(party.blobs, party.store, quota)
    free -= outstanding(party.store, party.blobs, but=contract.session) + others.all
    if needed > free or free < 0:
        raise PolicyRefusal(
            f"{party.name} has no room for the session",
            expected=f"{needed / 1e6:.0f} MB for what it keeps",
            # How much others leave is confidential.
            received="less" if party.name in contract.acceptors else f"{max(free, 0) / 1e6:.0f} MB",
            action="raise policy.max_state_bytes, or free space with comity gc",
        )
    if quota is None:
        quota = party.blobs.free() + party.blobs.used() + party.store.size()
    theirs = others.theirs + sum(
        each.promised
        for each in party.store.ongoing()
        if each.initiator == contract.initiator and each.session != contract.session
    )
    _require_share(party, contract, needed, quota, theirs, "what it keeps")


def require_memory(party: LocalParty, contract: Contract, reserved: Reserved) -> int:
    """Checks, before a session's models are built, that there is memory for them beside other sessions', and in the share of who asks.

    Args:
        party: This party.
        contract: The contract.
        reserved: What the sessions that are on may take.

    Returns:
        What the session may take, in bytes.

    Raises:
        PolicyRefusal: There is no memory for it.
        RefusedError: This party's data or models do not fit.
    """
    needed, quota = party.memory_space(contract), memory_quota(party.config.policy)
    if needed > quota - reserved.all:
        raise PolicyRefusal(
            f"{party.name} has no memory for the session",
            expected=f"{needed / 1e6:.0f} MB for its models",
            received="less",
            action="choose a smaller model, wait until sessions have ended, or have policy.max_memory_bytes raised",
        )
    _require_share(party, contract, needed, quota, reserved.theirs, "its models")
    return needed


def _require_share(party: LocalParty, contract: Contract, needed: int, quota: int, theirs: int, what: str) -> None:
    """Checks that what one party asks for leaves others their part; what this party asks for itself is its own to say."""
    if contract.is_open or party.name not in contract.acceptors:
        return
    share = party.config.policy.max_party_share
    if theirs + needed > share * quota:
        raise PolicyRefusal(
            f"{party.name}'s policy.max_party_share refuses the session",
            expected=f"at most {share:g} of its room for the sessions of one party",
            received=f"{needed / 1e6:.0f} MB for {what}, beside {theirs / 1e6:.0f} MB for others of {contract.initiator}",
            action="choose a smaller model or fewer rounds, or wait until a session has ended",
        )


def memory_quota(policy: Policy) -> int:
    """Most that the models of all sessions may take in memory, in bytes."""
    if policy.max_memory_bytes is not None:
        return policy.max_memory_bytes
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4


def promised(store: Store) -> int:
    """What the sessions that are not over may take in all, in bytes."""
    return sum(kept.promised for kept in store.ongoing())


def outstanding(store: Store, blobs: BlobStore, *, but: str = "") -> int:
    """What the sessions that are not over may take beside what they have, in bytes.

    Args:
        store: Where they are kept.
        blobs: Where their blobs are.
        but: A session that is left out.
    """
    sessions = [kept for kept in store.ongoing() if kept.promised and kept.session != but]
    return sum(max(0, kept.promised - blobs.used(kept.session)) for kept in sessions)


def bytes_free(blobs: BlobStore, store: Store, quota: int | None) -> int:
    """What sessions may still take, in bytes; less than 0 where their quota is passed.

    Args:
        blobs: Where their tensors are.
        store: Where they are recorded, which takes room as well.
        quota: Most that both may take, in bytes; None for what there is room for.
    """
    return blobs.free() if quota is None else min(blobs.free(), quota - blobs.used() - store.size())
