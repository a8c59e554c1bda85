"""Nothing leaves that contract and policy do not both allow, and every limit of a policy has its reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from federated_count.v1.federated_count_pb2 import AddRequest
from teacher_votes.terms import VotePoolTerms
from teacher_votes.v1 import teacher_votes_pb2 as pb

from comity.contract import Contract, EgressKind, Membership
from comity.errors import PolicyRefusal
from comity.ledger.ledger import WHOLE, Units, bytes_by_kind, in_round
from comity.session.gate import EgressGate
from comity.session.policy import Asked, Policy
from comity.store.memory_store import MemoryStore
from comity.tensors import Blob

KINDS: tuple[EgressKind, ...] = (
    "contract",
    "checkpoint",
    "loss",
    "update",
    "reward",
    "features",
    "answer",
    "sample",
    "initial",
    "a-packages-own",
)
IT = Blob.of(bytearray(b"it is"))


OF_PACKAGES = ("contract", "count", "vote")
OPEN = Policy(egress=OF_PACKAGES)


def count(round: int) -> AddRequest:
    return AddRequest(round=round, count=3)


def labels(round: int) -> pb.PooledLabels:
    return pb.PooledLabels(round=round, labels=[1])


OWN = Membership(party="hospital", role="teacher", samples=10, receipt_key="0" * 64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by_contract", [True, False])
@pytest.mark.parametrize("by_policy", [True, False])
def test_what_leaves_needs_contract_and_policy(
    make_contract: Callable[..., Contract], kind: EgressKind, by_contract: bool, by_policy: bool
) -> None:
    others = tuple(each for each in KINDS if each != kind)
    ledger = MemoryStore()
    gate = EgressGate(
        make_contract(egress=KINDS if by_contract else others),
        Policy(egress=KINDS if by_policy else others),
        ledger,
        "clinic",
    )
    if by_contract and by_policy:
        gate.send_blob(IT, kind, in_round(2))
        (entry,) = ledger.entries()
        assert (entry.fact.kind, entry.fact.subject, entry.fact.size) == (kind, IT.hex, 5)
        assert (entry.fact.direction, entry.fact.units.first, entry.fact.peer) == ("sent", 2, "clinic")
    else:
        by = "policy.egress" if by_contract else "the contract"
        with pytest.raises(PolicyRefusal, match=f"{by} keeps {kind} from leaving"):
            gate.send_blob(IT, kind, WHOLE)
        assert not list(ledger.entries())


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_leaves_by_default(make_contract: Callable[..., Contract], kind: EgressKind) -> None:
    gate = EgressGate(make_contract(egress=()), Policy(), MemoryStore(), "clinic")
    with pytest.raises(PolicyRefusal):
        gate.send_blob(IT, kind, WHOLE)


def test_samples_and_features_leave_only_where_the_policy_says_so(make_contract: Callable[..., Contract]) -> None:
    assert [kind for kind in KINDS if not Policy().may_leave(kind)] == [
        "features",
        "sample",
        "initial",
        "a-packages-own",
    ]
    gate = EgressGate(make_contract(egress=("sample",)), Policy(), MemoryStore(), "clinic")
    with pytest.raises(PolicyRefusal, match=r"policy\.egress keeps sample"):
        gate.send_blob(IT, "sample", WHOLE)


def test_what_comes_is_recorded(make_contract: Callable[..., Contract]) -> None:
    ledger = MemoryStore()
    EgressGate(make_contract(), Policy(), ledger, "clinic").admit(count(1))
    (entry,) = ledger.entries()
    fact = entry.fact
    assert (fact.session, fact.direction, fact.peer, fact.size) == ("s-1", "received", "clinic", count(1).ByteSize())


def matters(store: MemoryStore) -> list[tuple[str, int, str]]:
    return [(each.fact.matter, each.fact.units.first, each.fact.subject) for each in store.entries()]


def test_what_is_delivered_was_about_to_leave(make_contract: Callable[..., Contract]) -> None:
    store = MemoryStore()
    gate = EgressGate(make_contract(egress=OF_PACKAGES), OPEN, store, "clinic")
    gate.deliver(count(1))
    gate.send(count(1))
    gate.send(labels(1))
    gate.send(count(2))
    gate.deliver(count(1))
    gate.deliver(count(1))
    # A gate that comes after a restart knows what is on its way.
    EgressGate(make_contract(egress=OF_PACKAGES), OPEN, store, "clinic").deliver_all(in_round(1))
    assert matters(store) == [
        ("intended", 1, "count"),
        ("intended", 1, "labels"),
        ("intended", 2, "count"),
        ("delivered", 1, "count"),
        ("delivered", 1, "labels"),
    ]
    assert bytes_by_kind(store.entries(), "sent") == {
        "count": count(1).ByteSize(),
        "vote": labels(1).ByteSize(),
    }


def review(policy: Policy, contract: Contract, *, own: Membership = OWN, active: int = 0) -> None:
    policy.review(contract, own, ("clinic",), active=active)


@pytest.mark.parametrize(
    ("policy", "changes", "active", "samples", "limit", "reason"),
    [
        ({"parties": ["bank"]}, {}, 0, 10, "parties", "expected a party that it names, received clinic"),
        (
            {"protocols": ["federated_count"]},
            {},
            0,
            10,
            "protocols",
            "expected federated_count, received teacher_votes",
        ),
        ({"max_rounds": 2}, {"rounds": 3}, 0, 10, "max_rounds", "expected at most 2, received 3"),
        ({"max_acceptors": 1}, {"acceptors": ("a", "b")}, 0, 10, "max_acceptors", "expected at most 1, received 2"),
        ({"max_sessions": 2}, {}, 2, 10, "max_sessions", "expected at most 2, received one more"),
        ({"max_silence_s": 60}, {}, 0, 10, "max_silence_s", "expected at most 60 s, received 604800 s"),
        ({}, {"max_silence_s": None}, 0, 10, "max_silence_s", "expected at most 604800 s, received no limit"),
        ({"max_duration_s": 60}, {"max_duration_s": 61}, 0, 10, "max_duration_s", "at most 60 s, received 61 s"),
        ({"max_duration_s": 60}, {}, 0, 10, "max_duration_s", "at most 60 s, received no limit"),
        ({"min_samples": 10}, {}, 0, 9, "min_samples", "expected at least 10, received 9"),
        ({"egress": ["contract", "loss"]}, {}, 0, 10, "egress", "expected contract, loss, received vote"),
        ({}, {"egress": ("sample",)}, 0, 10, "egress", "received sample"),
    ],
)
def test_each_limit_refuses_with_its_reason(
    make_contract: Callable[..., Contract],
    policy: dict[str, Any],
    changes: dict[str, Any],
    active: int,
    samples: int,
    limit: str,
    reason: str,
) -> None:
    own = OWN.model_copy(update={"samples": samples})
    with pytest.raises(PolicyRefusal, match=rf"hospital's policy\.{limit} refuses the session: .*{reason}") as caught:
        review(Policy(**policy), make_contract(**changes), own=own, active=active)
    assert caught.value.action


def test_a_contract_at_every_limit_is_entered(make_contract: Callable[..., Contract]) -> None:
    policy = Policy(
        parties=("clinic",),
        protocols=("teacher_votes",),
        egress=("contract", "vote"),
        max_rounds=3,
        max_sessions=2,
        min_samples=10,
        max_silence_s=60.0,
        max_duration_s=600.0,
    )
    review(policy, make_contract(rounds=3, max_silence_s=60.0, max_duration_s=600.0), active=1)


def test_how_long_it_goes_on_unasked_is_the_acceptors_to_say(make_contract: Callable[..., Contract]) -> None:
    asks = OWN.model_copy(update={"party": "clinic", "role": "student"})
    Policy(max_silence_s=60.0, egress=("contract", "vote", "score")).review(make_contract(), asks, (), active=0)


def test_fewer_clients_than_the_policy_wants_are_refused(
    make_contract: Callable[..., Contract], make_member: Callable[[str, str, int], Membership]
) -> None:
    # Of two, each can compute the other's votes.
    contract = make_contract(initiator="", terms=VotePoolTerms(clients=2))
    for own in (make_member("clinic", "client", 100), make_member("hospital", "server", 0)):
        with pytest.raises(PolicyRefusal, match=r"policy.min_clients.*expected at least 3, received 2"):
            Policy().review(contract, own, (), active=0)
        Policy(min_clients=2, egress=("contract", "vote")).review(contract, own, (), active=0)


def test_what_is_counted_otherwise_is_delivered_by_its_own_units(make_contract: Callable[..., Contract]) -> None:
    store = MemoryStore()
    gate = EgressGate(make_contract(egress=OF_PACKAGES), OPEN, store, "clinic")
    for units in (Units("request", 101, 10), Units("request", 111, 10), Units("request", 121, 1), WHOLE):
        gate.send_blob(IT, "vote", units)
    gate.deliver_all(Units("request", 101, 20))
    # That a peer quotes the contract says nothing of what else belongs to no unit.
    gate.deliver_all(WHOLE, "contract")
    delivered = [str(each.fact.units) for each in store.entries() if each.fact.matter == "delivered"]
    assert delivered == ["requests 101 to 110", "requests 111 to 120"]


@pytest.mark.parametrize(
    ("asked", "limit"), [(Asked(active=4), "max_sessions_a_party"), (Asked(within_an_hour=1000), "max_new_sessions")]
)
def test_one_party_asks_only_so_much(make_contract: Callable[..., Contract], asked: Asked, limit: str) -> None:
    """It is told no more of what else goes on than that there is too much of its own."""
    with pytest.raises(PolicyRefusal, match=rf"policy\.{limit} refuses the session: .*received one more"):
        Policy().review(make_contract(), OWN, ("clinic",), active=0, asked=asked)


def test_a_policy_need_not_name_what_only_the_other_side_sends(make_contract: Callable[..., Contract]) -> None:
    policy, contract = Policy(egress=("contract",)), make_contract(egress=("contract", "vote"))
    policy.review(contract, OWN, ("clinic",), active=0, received_only={"vote"})
    with pytest.raises(PolicyRefusal, match=r"policy\.egress refuses the session: expected contract, received vote"):
        policy.review(contract, OWN, ("clinic",), active=0)
