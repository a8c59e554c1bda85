"""A learner and its providers: over every binding alike, with providers that are away, and with answers that do not fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from comity.contract import Release, canonical
from comity.errors import PolicyRefusal, SessionFailed, TaskMismatch
from comity.ledger.comparison import compare
from comity.ledger.ledger import in_round, loaded
from comity.ledger.receipts import SignedStatement
from comity.ledger.verification import verify
from comity.node.sessions.script import parse_script
from comity.protocols.nash_bargaining.learner import AWAY, HERE, NOTHING, UNFIT, Learner
from comity.protocols.nash_bargaining.messages import Gradient, gradient_layout
from comity.simulation.in_process import simulate
from comity.transport.bindings.in_process import InProcessChannel
from tests.company import Company, company
from tests.contract.test_bindings import Joined
from tests.protocols.nash_bargaining.sessions import SCRIPT, guarded


@pytest.fixture
def joined(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Joined]]:
    with ExitStack() as stack:

        def begin(text: str, binding: str = "remote") -> Joined:
            return Joined(company(text), binding, request, tmp_path, stack)

        yield begin


def in_process(own: Any, other: Any, role: Any) -> InProcessChannel:
    return InProcessChannel(other, role)


@pytest.mark.parametrize("text", [SCRIPT, guarded()], ids=["public", "guarded"])
def test_a_session_ends_alike_over_the_network(text: str, joined: Callable[..., Joined]) -> None:
    found = joined(text)
    (outcome,) = found.of.run(found.join)
    _, expected = simulate(parse_script(text))
    assert outcome.digest == expected.digest
    assert outcome.metrics == expected.metrics
    ledgers = {name: loaded(party.store.chains()) for name, party in found.of.parties.items()}
    for name, chains in ledgers.items():
        assert verify(chains).charged == {"round": 12 if name == "learner" else 4}
        assert name == "learner" or compare(ledgers["learner"], chains) == []


def test_what_a_session_says(joined: Callable[..., Joined]) -> None:
    metrics = simulate(parse_script(SCRIPT))[1].metrics
    rows: Any = metrics["powers_by_round"]
    assert metrics["providers"] == ["same", "related", "harmful"]
    assert rows[:2] == [[0.25] * 3] * 2
    assert rows[2] == rows[3] != rows[0]
    powers: Any = metrics["powers"]
    assert math.isclose(sum(powers.values()), 0.75)
    assert metrics["providers_by_round"] == [[HERE] * 3] * 4
    assert metrics["rounds_helped"] == [4, 4, 4]
    helped: Any = metrics["help_by_round"]
    worth: Any = metrics["worth"]
    assert math.isclose(worth[0], sum(each[0] for each in helped))


def test_a_head_stays_at_home() -> None:
    found = company(SCRIPT)
    found.run(in_process)
    task: Any = found.acceptors[1][0].task
    assert task.own == ("3.weight", "3.bias")
    (record,) = (
        each for each in found.acceptors[1][0].journal.records() if each.kind == "finished" and each.round == 4
    )
    fields: Any = record.fields
    blob = found.initiators[0][1].blobs
    assert bytes.fromhex(fields["head"]) not in blob
    sent = task.gradient_layout.view(found.acceptors[1][0].blobs.get(bytes.fromhex(fields["gradient"])).data)
    head = sum(task.initial_state[name].numel() for name in task.own)
    assert not sent["gradient"][-head:].any()
    assert sent["gradient"][:-head].any()


def test_a_provider_whose_classes_stand_in_another_order_has_a_head_of_its_own() -> None:
    """Through the learner's it would say one class where it means another, and would look as if it did harm."""
    backwards = ", ".join(f'"{digit}"' for digit in range(9, -1, -1))
    source = 'data = { source = "digits", partition = { name = "uniform", parties = 20, index = 1 } }'
    assert source in SCRIPT
    found = company(SCRIPT.replace(source, source.replace('"digits",', f'"digits", classes = [{backwards}],')))
    assert found.acceptors[0][0].task.own == ("3.weight", "3.bias")
    assert found.acceptors[2][0].task.own == ()


def test_a_provider_may_keep_a_head_of_its_own_for_the_learner_s_task() -> None:
    own = SCRIPT.replace(
        '[party.same]\nsecret = "same\'s"\nrole = "provider"\n',
        '[party.same]\nsecret = "same\'s"\nrole = "provider"\nprotocols = { nash-bargaining = { head = "own" } }\n',
    )
    found = company(own)
    assert found.acceptors[0][0].task.own == ("3.weight", "3.bias")
    assert found.acceptors[2][0].task.own == ()


def test_a_round_goes_on_without_a_provider_that_is_away(joined: Callable[..., Joined]) -> None:
    quick = SCRIPT.replace(
        'role = "learner"\n', 'role = "learner"\nprotocols = { nash-bargaining = { wait_s = 0.3 } }\n'
    )
    found = joined(quick)
    definition = found.of.definition
    ports = [found.of.port(found.join, 0, at) for at in range(3)]
    # As at a node, what the connection knows of the peer, the role knows.
    known = [port._channel._connection.presence for port in ports]
    own = [replace(each, presence=one) for each, one in zip(found.of.initiators[0], known, strict=True)]
    learner = definition.load().initiator(own, ports)
    work = learner.work()
    next(work)
    host, (theirs,), role = found.hosts["related"], found.of.acceptors[1], found.of.roles[1]
    host.server.stop(0)
    next(work)
    # Whoever begins again, from what is kept, goes on without it, too.
    party = found.of.parties["learner"]
    place = party.session_context(found.of.contract, own[0].own, found.of.events["learner"].append)
    again = [replace(party.peer_context(place, each.peer), presence=each.presence) for each in own]
    assert again[1].receipt_book.is_withdrawn(in_round(2))
    assert definition.load().initiator(again, ports).outcome() == learner.outcome()
    found.serve(host.address, (theirs, role))
    learner._wait_s = 60.0
    next(work)
    next(work)
    assert next(work, None) is None
    metrics = learner.outcome().metrics
    assert metrics["providers_by_round"] == [[HERE, HERE if round != 2 else AWAY, HERE] for round in range(1, 5)]
    weights: Any = metrics["weights_by_round"]
    assert weights[1][1] == 0.0
    charged = {name: verify(loaded(each.store.chains())).charged for name, each in found.of.parties.items()}
    assert charged == {
        "learner": {"round": 11},
        "same": {"round": 4},
        "related": {"round": 3},
        "harmful": {"round": 4},
    }
    ledgers = (loaded(found.of.parties[name].store.chains()) for name in ("learner", "related"))
    assert compare(*ledgers) == []


class Lying:
    """A provider's role whose gradient in one round is another.

    Args:
        role: The honest role.
        context: Its context.
        change: Makes the other gradient of the honest one.
    """

    def __init__(self, role: Any, context: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._role = role
        self._context = context
        self._change = change

    def differentiate(self, round: int, *asked: Any) -> Future[Gradient]:
        answer: Future[Gradient] = self._role.differentiate(round, *asked)
        if round != 2:
            return answer
        while self._role.advance():
            pass
        honest = answer.result()
        assert honest.blob is not None
        sent = self._context.task.gradient_layout.view(self._context.blobs.get(honest.blob).data)["gradient"].clone()
        changed = self._change(sent)
        blob = self._context.blobs.add(gradient_layout(len(changed)).pack({"gradient": changed}))
        self._context.blobs.publish(blob.digest, "update", in_round(round))
        lied: Future[Gradient] = Future()
        lied.set_result(replace(honest, blob=blob.digest))
        return lied

    def __getattr__(self, name: str) -> Any:
        return getattr(self._role, name)


class Restating:
    """A provider's role whose answer in round 2 is changed.

    Args:
        role: The honest role.
        change: Makes the other answer of the honest one.
    """

    def __init__(self, role: Any, change: Callable[[Gradient], Gradient]) -> None:
        self._role = role
        self._change = change

    def differentiate(self, round: int, *asked: Any) -> Future[Gradient]:
        answer: Future[Gradient] = self._role.differentiate(round, *asked)
        if round != 2:
            return answer
        while self._role.advance():
            pass
        changed: Future[Gradient] = Future()
        changed.set_result(self._change(answer.result()))
        return changed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._role, name)


def lying(text: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Company:
    found = company(text)
    roles = [found.roles[0], found.roles[1], Lying(found.roles[2], found.acceptors[2][0], change)]
    return replace(found, roles=roles)


def spoiled(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(gradient: torch.Tensor) -> torch.Tensor:
        gradient[3] = value
        return gradient

    return change


CHANGES = {
    "NaN": spoiled(math.nan),
    "infinity": spoiled(math.inf),
    "too long": lambda gradient: gradient / gradient.norm() * 1.5,
    "zeros": torch.zeros_like,
    "fewer parameters": lambda gradient: gradient[1:].clone(),
    "another dtype": lambda gradient: gradient.double(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_gradient_that_does_not_fit_is_left_out(change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    found = lying(SCRIPT, change)
    (outcome,) = found.run(in_process)
    metrics = outcome.metrics
    assert metrics["providers_by_round"] == [[HERE, HERE, HERE if round != 2 else UNFIT] for round in range(1, 5)]
    told = [each for each in found.events["learner"] if each.kind == "gradient-unfit"]
    assert [(each.round, each.fields["peer"]) for each in told] == [(2, "harmful")]
    # It is not paid for, and both ledgers say so.
    ledgers = {name: loaded(party.store.chains()) for name, party in found.parties.items()}
    assert verify(ledgers["learner"]).charged == {"round": 11}
    assert verify(ledgers["harmful"]).charged == {"round": 3}
    assert compare(ledgers["learner"], ledgers["harmful"]) == []


@pytest.mark.parametrize(
    "of", [{"first": 1}, {"contract": "0" * 64}, {"party": "same"}], ids=["round", "contract", "party"]
)
def test_a_gradient_of_another_round_or_contract_is_left_out(of: dict[str, Any]) -> None:
    """What it is of, its receipt says, which its provider signs."""
    found = company(SCRIPT)

    def stated(answer: Gradient) -> Gradient:
        statement = replace(answer.receipt.statement, **of)
        signature = found.parties["harmful"].signer._key.sign(canonical(asdict(statement)))
        return replace(answer, receipt=SignedStatement(statement, signature.hex()))

    roles = [*found.roles[:2], Restating(found.roles[2], stated)]
    (outcome,) = replace(found, roles=roles).run(in_process)
    states = outcome.metrics["providers_by_round"]
    assert states == [[HERE, HERE, HERE if round != 2 else UNFIT] for round in range(1, 5)]
    (told,) = (each for each in found.events["learner"] if each.kind == "gradient-unfit")
    assert (told.round, told.fields["peer"]) == (2, "harmful")
    assert "states another" in str(told.fields["why"])
    assert verify(loaded(found.parties["learner"].store.chains())).charged == {"round": 11}


def test_a_session_may_end_for_a_gradient_that_does_not_fit() -> None:
    text = SCRIPT.replace("power_every = 2", 'power_every = 2\nunfit = "fail"')
    with pytest.raises(SessionFailed, match="the gradient of harmful in round 2 cannot be used: .*not finite"):
        lying(text, CHANGES["NaN"]).run(in_process)


def test_a_provider_that_holds_everything_back_takes_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    found = company(SCRIPT)
    task: Any = found.acceptors[1][0].task
    monkeypatch.setattr(task, "flat", lambda gradients: torch.zeros(sum(each.numel() for each in gradients.values())))
    (outcome,) = found.run(in_process)
    assert outcome.metrics["providers_by_round"] == [[HERE, NOTHING, HERE]] * 4
    powers: Any = outcome.metrics["powers"]
    # Of whom nothing is known, nothing is thought.
    assert powers["related"] == pytest.approx(0.25, abs=0.05)
    assert verify(loaded(found.parties["learner"].store.chains())).charged == {"round": 12}


def test_inputs_of_another_shape_do_not_go_into_the_trunk() -> None:
    text = SCRIPT.replace(
        '[party.same]\nsecret = "same\'s"\nrole = "provider"\nprivacy = { preset = "public" }\n'
        'data = { source = "digits", partition = { name = "uniform", parties = 20, index = 1 } }',
        '[party.same]\nsecret = "same\'s"\nrole = "provider"\nprivacy = { preset = "public" }\ndata = { source = "synthetic:fig2" }',
    )
    with pytest.raises(TaskMismatch, match="same's data are for another task"):
        simulate(parse_script(text))


def test_a_guarded_provider_refuses_what_shows_too_few_samples() -> None:
    text = guarded().replace("width_factor = 1 }", "width_factor = 9 }")
    with pytest.raises(PolicyRefusal, match=r"privacy\.width_factor refuses the session: expected 72 distinct"):
        simulate(parse_script(text))


def test_rows_are_held_back_and_judged() -> None:
    found = company(guarded())
    found.run(in_process)
    facts = [each.fact for each in found.parties["same"].store.entries(found.contract.session)]
    judged = {each.subject for each in facts if each.matter == "judged"}
    left = {each.subject for each in facts if each.kind == "update" and each.matter == "delivered"}
    assert left
    assert left <= judged


def test_a_round_that_was_answered_is_answered_alike() -> None:
    found = company(SCRIPT)
    port = found.port(in_process)
    own = found.initiators[0][0]
    model = own.blobs.add(own.task.layout.pack(own.task.initial_state)).digest
    request = own.receipt_book.sign("request", in_round(1), model)
    first = port.differentiate(1, model, request, []).result()
    assert port.differentiate(1, model, request, []).result() == first
    assert first.release == Release(samples=len(found.acceptors[0][0].task.local._train_data), kept="round")


def test_learner_s_powers_need_the_protocol_s_own_terms() -> None:
    found = company(SCRIPT)
    assert isinstance(found.definition.load().initiator(found.initiators[0], [None] * 3), Learner)


def test_noise_covers_every_party_s_training() -> None:
    private = SCRIPT.replace(
        "power_every = 2",
        'power_every = 2\nprivacy = { scope = "total", epsilon = 3.0, delta = 1e-5, clipping_norm = 1.0 }',
    )
    noisy, plain = company(private), company(SCRIPT)
    steps = [
        noisy.definition.load().private_training(noisy.contract, each[0].own, [each[0].peer])
        for each in (*noisy.initiators, *noisy.acceptors)
    ]
    assert [each.steps for each in steps] == [16, 8, 8, 8]
    for each in (*noisy.acceptors, *noisy.initiators):
        assert each[0].task.local.is_private
    (one,), (other,) = noisy.run(in_process), plain.run(in_process)
    assert one.digest != other.digest
    assert plain.definition.load().private_training(plain.contract, plain.acceptors[0][0].own, []) is None
