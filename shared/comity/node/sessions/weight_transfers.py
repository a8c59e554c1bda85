"""Weights that models begin with, on their way to a party that lacks them, before it agrees to the session."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import structlog

from comity.blobs.session_blobs import Expectation, SessionBlobs
from comity.contract import INITIAL, Contract
from comity.errors import ContractMismatch
from comity.ledger.ledger import WHOLE
from comity.models.weights import weights_in
from comity.node.party import LocalParty
from comity.node.sessions.room import require_disk, require_memory
from comity.session.gate import EgressGate
from comity.session.policy import NOTHING_RESERVED, Reserved
from comity.tensors import Blob
from comity.transport.peer_connection import PeerConnection
from comity.transport.retry import SLOWEST_BYTES_PER_S

log = structlog.get_logger()


@dataclass
class WeightTransfer:
    """Weights that one party sends another for a session that is not agreed on with it yet.

    Attributes:
        contract: What is proposed, or open to be joined.
        blobs: The weights.
        gate: What may leave, and what came.
        size: What is to come, in bytes.
        began: When it was first asked for, on the monotonic clock.
        heard: When the peer called last for it, on the monotonic clock.
    """

    contract: Contract
    blobs: SessionBlobs
    gate: EgressGate
    size: int = 0
    began: float = field(default_factory=time.monotonic)
    heard: float = field(default_factory=time.monotonic)

    def told_of_its_end(self) -> AbstractContextManager[None]:
        """There is nothing yet that could end."""
        return nullcontext()


class WeightTransfers:
    """The weights that an acceptor takes with proposals, or gives to those who may join.

    Args:
        party: The acceptor.
    """

    def __init__(self, party: LocalParty) -> None:
        self._party = party
        self._lock = threading.Lock()
        self._offering = threading.Lock()
        self._of: dict[tuple[str, str], WeightTransfer] = {}

    def clear(self) -> None:
        """Drops what came for proposals that were never agreed to, before the node was started."""
        for session in self._party.blobs.sessions():
            if self._party.store.find(session) is None:
                self._party.blobs.drop(session)

    def require_unclaimed(self, session: str, peer: str) -> None:
        """Checks that no other party sends weights for a session of this identifier: they would be this one's as well.

        Raises:
            ContractMismatch: One does.
        """
        with self._lock:
            others = [party for party, each in self._of if each == session and party != peer]
        if others:
            raise ContractMismatch(
                "the session exists already, with another contract",
                expected="a new id",
                received=session,
                action="give the new session another id",
            )

    def expect(self, contract: Contract, peer: str, *, reserved: Reserved) -> None:
        """Takes, from now on, what is missing of the weights of a proposal; nothing where they may not be sent.

        Args:
            contract: What is proposed.
            peer: The party that proposes it.
            reserved: Memory that the sessions that are on may take.

        Raises:
            PolicyRefusal: There is no room for them.
        """
        missing = self._party.missing_weights(contract)
        if not missing or self.find(peer, contract.session, contract.hash) is not None:
            return
        self.forget(contract, peer)
        self._make_way(peer)
        with self._lock:
            theirs = sum(each.size for (party, _), each in self._of.items() if party == peer)
            others = Reserved(sum(each.size for each in self._of.values()), theirs)
        require_room(self._party, contract, missing, reserved=reserved, others=others)
        blobs = self._party.starting_blobs(contract.session)
        for digest in contract.weights_sent.keys() - missing.keys():
            blobs.settle(bytes.fromhex(digest))
        blobs.expect(
            *(
                Expectation(INITIAL, WHOLE, size, 1, _require_usable, digest=bytes.fromhex(digest))
                for digest, size in missing.items()
            )
        )
        size, gate = sum(missing.values()), self._party.gate(contract, peer)
        with self._lock:
            self._of[peer, contract.session] = WeightTransfer(contract, blobs, gate, size)
        log.info("weights-awaited", session=contract.session, peer=peer, bytes=size)

    def offer(self, contract: Contract, peer: str) -> WeightTransfer | None:
        """The weights of a session that a party may join; None where there are none to be given."""
        if not contract.weights_sent:
            return None
        with self._offering:
            found = self.find(peer, contract.session, contract.hash)
            if found is not None:
                return found
            found = WeightTransfer(contract, self._offered(contract), self._party.gate(contract, peer))
            with self._lock:
                self._of[peer, contract.session] = found
            return found

    def _offered(self, contract: Contract) -> SessionBlobs:
        """The weights of a session that is open, once for all who may join it."""
        with self._lock:
            known = [each.blobs for each in self._of.values() if each.contract.hash == contract.hash]
        if known:
            return known[0]
        blobs = self._party.starting_blobs(contract.session)
        for digest in contract.weights_sent:
            name = bytes.fromhex(digest)
            if name not in blobs:
                blobs.add(self._party.weights_blob(contract, digest))
            blobs.publish(name, INITIAL, WHOLE)
        return blobs

    def find(self, peer: str, session: str, contract_hash: str) -> WeightTransfer | None:
        """What a party that quotes a session and its contract may send for it now; None for nothing."""
        with self._lock:
            found = self._of.get((peer, session))
        if found is None or found.contract.hash != contract_hash:
            return None
        found.heard = time.monotonic()
        return found

    def forget(self, contract: Contract, peer: str) -> None:
        """Takes no more for what a party proposed; what came goes, unless the session was entered."""
        with self._lock:
            found = self._of.pop((peer, contract.session), None)
        if found is not None and self._party.store.find(contract.session) is None:
            self._party.blobs.drop(contract.session)

    def _make_way(self, peer: str) -> None:
        """Drops the oldest of a party's proposals that wait for weights, where there are as many as may be."""
        with self._lock:
            theirs = [each.contract for (party, _), each in self._of.items() if party == peer]
        for oldest in theirs[: max(0, len(theirs) + 1 - self._party.config.policy.max_sessions_a_party)]:
            self.forget(oldest, peer)

    def drop_late(self, after_s: float) -> None:
        """Takes no more of what was cut, of what nobody goes on with for so many seconds, and of what comes for too long.

        What is promised and does not come keeps no room from the weights of others.
        """
        with self._lock:
            transfers = list(self._of.items())
        for (peer, _), each in transfers:
            each.blobs.drop_half_uploads(after_s)
            now = time.monotonic()
            is_idle = each.heard + after_s < now and not each.blobs.is_receiving
            if is_idle or (each.size and each.began + after_s + each.size / SLOWEST_BYTES_PER_S < now):
                self.forget(each.contract, peer)


def require_room(
    party: LocalParty,
    contract: Contract,
    missing: Mapping[str, int],
    *,
    reserved: Reserved = NOTHING_RESERVED,
    others: Reserved = NOTHING_RESERVED,
) -> None:
    """Checks, before any of them crosses, that a party has memory and disk for weights that it lacks.

    Args:
        party: The party.
        contract: What names them.
        missing: Their lengths, by digest.
        reserved: Memory that the sessions that are on may take.
        others: What is to come of other weights.

    Raises:
        PolicyRefusal: It has not.
    """
    require_memory(party, contract, reserved + others)
    require_disk(party, contract, sum(missing.values()), others)


def send_missing(party: LocalParty, contract: Contract, connection: PeerConnection, gate: EgressGate) -> None:
    """Sends an acceptor the weights of a proposal that it lacks.

    Raises:
        PolicyRefusal: They may not leave.
        ComityError: They do not arrive.
    """
    connection.enter(contract.session, contract.hash)
    for digest in contract.weights_sent:
        blob = party.weights_blob(contract, digest)

        def leave(size: int, blob: Blob = blob) -> None:
            gate.send_blob(blob, INITIAL, WHOLE, size=size)

        connection.put(blob, INITIAL, WHOLE, before=leave)
        gate.deliver_blob(blob.digest, INITIAL, WHOLE)


def fetch_missing(party: LocalParty, contract: Contract, connection: PeerConnection, gate: EgressGate) -> None:
    """Has an acceptor give the weights of a session that it has opened, where this party lacks them.

    Raises:
        PolicyRefusal: There is no room for them here, or they may not leave there.
        ComityError: They do not arrive, or are others.
    """
    missing = party.missing_weights(contract)
    if not missing:
        return
    require_room(party, contract, missing)
    connection.enter(contract.session, contract.hash)
    blobs = party.starting_blobs(contract.session)
    for digest, size in missing.items():
        blob = connection.get(bytes.fromhex(digest), size, _require_usable)
        gate.admit_blob(blob.digest, INITIAL, WHOLE, blob.size)
        blobs.add(blob)


def pass_missing(
    contract: Contract, sender: tuple[LocalParty, EgressGate], receiver: tuple[LocalParty, EgressGate]
) -> None:
    """Passes weights that the one party lacks from the other, where both are in this process.

    Raises:
        ComityError: See `send_missing`.
    """
    (giving, out), (taking, came) = sender, receiver
    missing = taking.missing_weights(contract)
    if not missing:
        return
    require_room(taking, contract, missing)
    for digest in missing:
        blob = giving.weights_blob(contract, digest)
        out.send_blob(blob, INITIAL, WHOLE)
        _require_usable(blob)
        came.admit_blob(blob.digest, INITIAL, WHOLE, blob.size)
        taking.starting_blobs(contract.session).add(blob)
        out.deliver_blob(blob.digest, INITIAL, WHOLE)


def _require_usable(blob: Blob) -> None:
    weights_in(blob)
