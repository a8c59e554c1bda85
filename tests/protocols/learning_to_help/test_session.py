"""A session of learning to help: what it comes to, what is charged, and what a party that lies is told."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from comity.errors import (
    BlobError,
    ComityError,
    ConflictingOffer,
    DeadlineExceeded,
    MalformedMessage,
    NonFiniteValue,
    PolicyRefusal,
    RoundOutOfOrder,
)
from comity.node.sessions.script import parse_script
from comity.protocols.learning_to_help import messages
from comity.protocols.learning_to_help.features import Quantization
from comity.protocols.learning_to_help.questions import outputs_in
from comity.protocols.learning_to_help.studies.demo import script
from comity.session.metering.tally import Wire
from comity.simulation.in_process import simulate
from comity.transport.bindings.in_process import InProcessChannel
from tests.company import Company, company
from tests.protocols.learning_to_help.sessions import SESSIONS

FEATURES = 256


def small(session: str = "plain", *replaced: tuple[str, str]) -> Company:
    text = SESSIONS[session].text
    for old, new in replaced:
        assert old in text
        text = text.replace(old, new)
    return company(text)


def question(first: int = 1, count: int = 1, features: bytes | None = None) -> tuple[Any, ...]:
    """What the server's role gets for a question."""
    wire = Wire(100, lambda _: 50, time.monotonic())
    return wire, first, count, bytes(FEATURES * count) if features is None else features, 0


@pytest.fixture
def trained() -> Company:
    """A server that has learned for a client's model."""
    parties = small()
    (server,), ((context,),) = parties.roles, parties.initiators
    local = context.task.layouts["local"].pack(context.task.local)
    parties.acceptors[0][0].blobs.add(local)
    answer = server.learn(local.digest, 0.0, 1.0)
    assert not answer.done()
    assert server.advance()
    assert answer.result() == server.learn(local.digest, 0.0, 1.0).result()
    return parties


def test_nothing_is_answered_before_the_server_has_learned() -> None:
    (server,) = small().roles
    with pytest.raises(RoundOutOfOrder, match="has not been trained"):
        server.ask(*question())
    with pytest.raises(BlobError, match="not here"):
        server.learn(bytes(32), 0.0, 1.0)


@pytest.mark.parametrize("ends", [(1.0, 0.0), (0.0, float("inf")), (float("nan"), 1.0)], ids=str)
def test_a_range_that_is_none_is_refused(ends: tuple[float, float]) -> None:
    (server,) = small().roles
    with pytest.raises(MalformedMessage, match="range of features"):
        server.learn(bytes(32), *ends)


@pytest.mark.parametrize(
    ("old", "new"), [("c_e = 0.25", "c_e = 1.0"), ("c_e = 0.25", "c_e = -0.1"), ("c_1 = 1.25", "c_1 = -1.0")]
)
def test_costs_out_of_range_are_named(old: str, new: str) -> None:
    with pytest.raises(ComityError, match=old[:3]):
        small("plain", (old, new))


def test_a_session_is_about_one_model(trained: Company) -> None:
    (server,), ((context,),) = trained.roles, trained.initiators
    with pytest.raises(ConflictingOffer, match="another model"):
        server.learn(bytes(32), 0.0, 1.0)
    with pytest.raises(ConflictingOffer, match="another model"):
        server.learn(context.task.layouts["local"].pack(context.task.local).digest, 0.0, 2.0)


@pytest.mark.parametrize(
    "asked",
    [question(count=0), question(features=bytes(255)), question(features=bytes(512)), question(count=1025)],
    ids=["none", "too short", "too long", "too many"],
)
def test_features_of_another_shape_are_refused_and_nothing_is_charged(trained: Company, asked: tuple[Any, ...]) -> None:
    (server,) = trained.roles
    with pytest.raises(MalformedMessage, match="not those of the contract's model"):
        server.ask(*asked)
    assert not server.advance()
    assert not server.tally().numbers


def test_a_question_without_a_number_or_beyond_what_was_bought_is_refused(trained: Company) -> None:
    (server,) = trained.roles
    with pytest.raises(MalformedMessage, match="no number"):
        server.ask(*question(first=0))
    answers = [server.ask(*question(first=first, count=100)) for first in range(1, 501, 100)]
    assert server.advance()
    assert all(len(each.result()[2]) == 1000 for each in answers)
    with pytest.raises(PolicyRefusal, match="bought is answered"):
        server.ask(*question(first=501))
    # What was answered is answered again, for nothing.
    again = server.ask(*question(first=1, count=100))
    assert server.advance()
    assert again.result() == answers[0].result()
    assert len(server.tally().numbers) == 500


def test_a_question_beyond_what_was_bought_is_refused_as_a_whole(trained: Company) -> None:
    (server,) = trained.roles
    with pytest.raises(PolicyRefusal, match="bought is answered"):
        server.ask(*question(count=501))
    assert not server.advance()
    assert not server.tally().numbers


def test_what_waits_is_judged_together(trained: Company) -> None:
    """Each of three questions would be answered by itself, and all of them together are more than was bought."""
    (server,) = trained.roles
    answers = [server.ask(*question(first=first, count=200)) for first in (1, 201, 401)]
    assert server.advance()
    assert [each.result()[:2] for each in answers[:2]] == [(1, 200), (201, 200)]
    with pytest.raises(PolicyRefusal, match="bought is answered"):
        answers[2].result()
    assert len(server.tally().numbers) == 400


def test_with_little_credit_a_client_settles_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks in windows of half of what the server answers without being paid, and pays after each."""
    monkeypatch.setattr(messages, "MOST_INPUTS", 4)
    parties = small()
    (outcome,) = parties.run(lambda own, other, role: InProcessChannel(other, role))
    answered = outcome.metrics["requests"]
    assert answered == 449 + 1
    settled = [each.fields["answered"] for each in parties.events["server"] if each.kind == "requests-settled"]
    assert settled[-1] == answered
    steps = [after - before for before, after in zip([0, *settled], settled, strict=False)]  # type: ignore[operator]
    assert max(steps) == 20


def test_a_question_that_is_too_late_costs_nothing_and_those_behind_it_are_answered(trained: Company) -> None:
    (server,) = trained.roles
    wire = Wire(100, lambda _: 50, time.monotonic() - 10)
    late = server.ask(wire, 1, 1, bytes(FEATURES), 1)
    gone = server.ask(*question(first=2))
    assert gone.cancel()
    good = server.ask(*question(first=3))
    assert server.advance()
    with pytest.raises(DeadlineExceeded):
        late.result()
    assert good.result()[:2] == (3, 1)
    assert [*server.tally().numbers] == [3]


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ((2, 1, [0.0] * 10), MalformedMessage),
        ((1, 2, [0.0] * 20), MalformedMessage),
        ((1, 1, [0.0] * 9), MalformedMessage),
        ((1, 1, [float("nan")] * 10), NonFiniteValue),
    ],
    ids=["another input", "another count", "too few outputs", "NaN"],
)
def test_answers_that_are_none_are_refused(value: Any, error: type[ComityError]) -> None:
    with pytest.raises(error):
        outputs_in(value, 1, 1, classes=10)


def test_without_calibration_samples_no_rate_can_be_bounded() -> None:
    bounded = ("requests = 500", "requests = 500\nreject_rate = 0.2")
    text = SESSIONS["plain"].text.replace(*bounded).replace("splits = { calibration = { share = 0.334 } }", "")
    with pytest.raises(PolicyRefusal, match="calibration"):
        simulate(parse_script(text))


def test_where_all_that_was_bought_is_spent_the_client_answers_itself() -> None:
    parties = small("plain", ("requests = 500", "requests = 100"))
    _, outcome = simulate(parties.script)
    assert outcome.metrics["requests"] == 100
    assert outcome.metrics["refused"] == 350


def test_a_model_whose_layer_is_not_there_is_refused_before_anything_is_agreed() -> None:
    with pytest.raises(ComityError, match="no such layer"):
        small("plain", ('features = "4"', 'features = "nose"'))


def test_the_classifier_takes_the_features_and_the_rejector_gives_two_numbers() -> None:
    ((context,),) = small().initiators
    assert context.task.feature_shape == (FEATURES,)
    assert context.task.layouts["rejector"].tensors["3.weight"].shape == (2, 64)
    assert context.task.layouts["server"].tensors["1.weight"].shape == (256, FEATURES)
    said, features = context.task.map(context.task.inputs("test", torch.arange(5)))
    assert said.shape == (5, 10)
    assert Quantization.of(features).encode(features).shape == (5, FEATURES)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_the_demo_helps_where_the_client_is_blind(seed: int) -> None:
    _, outcome = simulate(parse_script(script(seed)))
    found: Any = outcome.metrics
    assert found["local"]["missing_class"] == 0
    assert found["joint"]["missing_class"] >= 0.75
    assert found["joint"]["other_classes"] >= found["local"]["other_classes"] - 0.03
    assert found["risk"] < min(found["risk_never_ask"], found["risk_always_ask"])
    assert found["requests"] == 450
