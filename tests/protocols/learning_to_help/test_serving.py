"""What is asked of the server while applications are served, and what is said of it over time."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from comity.errors import (
    ComityError,
    InvalidValue,
    MalformedMessage,
    NodeDraining,
    NonFiniteValue,
    PeerUnreachable,
    PolicyRefusal,
    TooManyCalls,
)
from comity.protocols.learning_to_help.asking import Purchase, RateCap
from comity.protocols.learning_to_help.drift import ServingReport
from comity.protocols.learning_to_help.messages import metered
from comity.protocols.learning_to_help.predictor import Decided, Predictor
from comity.protocols.learning_to_help.questions import outputs_in
from comity.session.metering.requests import RequestMeter
from comity.session.metering.tally import Answered
from tests.company import company
from tests.protocols.learning_to_help.sessions import SESSIONS

CLASSES = 3


class Model:
    """Says class 0, and asks where the first feature is above 0."""

    def decide(self, inputs: Tensor) -> Decided:
        logits = torch.tensor([9.0, 0.0, 0.0]).repeat(len(inputs), 1)
        return Decided(logits, inputs.to(torch.uint8), inputs[:, 0] > 0)

    def scores(self, value: Any, first: int, count: int) -> Tensor:
        return outputs_in(value, first, count, CLASSES)


@dataclass
class Server:
    """Answers when it is told to; says class 1."""

    asked: dict[int, tuple[int, Future[Any]]] = field(default_factory=dict)
    is_away: bool = False
    refusal: ComityError | None = None
    changed: threading.Condition = field(default_factory=threading.Condition)

    def ask(self, first: int, count: int, features: bytes, within_ms: int) -> Future[Any]:
        assert within_ms > 0
        assert len(features) == count * 2
        if self.refusal is not None:
            raise self.refusal
        answer: Future[Any] = Future()
        with self.changed:
            self.asked[first] = count, answer
            self.changed.notify_all()
        return answer

    def wait_for(self, questions: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.asked) >= questions, 30)

    def answer(self, outputs: tuple[float, ...] = (0.0, 9.0, 0.0)) -> None:
        with self.changed:
            asked, self.asked = self.asked, {}
        for first, (count, answer) in asked.items():
            if not answer.cancelled():
                answer.set_result(Answered((first, count, outputs * count), 100, 50))


class Desk:
    """A predictor, the server that it asks, and what was counted."""

    def __init__(self, requests: int = 100, within_s: float = 30.0, cap: RateCap | None = None) -> None:
        ((context,),) = company(SESSIONS["plain"].text).initiators
        self.meter = RequestMeter(context, metered(requests))
        self.purchase = Purchase(self.meter)
        self.server = Server()
        self.counts = Counter[str]()
        self.predictor = Predictor(
            Model(),
            self.server.ask,
            self.purchase,
            within_s=within_s,
            is_away=lambda: self.server.is_away,
            cap=cap,
            told=self.counts.update,
        )

    def predict(self, *firsts: float, **how: Any) -> Future[Any]:
        return self.predictor.predict(torch.tensor([[each, 0.0] for each in firsts]), **how)

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, *error: object) -> None:
        self.predictor.close()


def test_the_server_answers_what_the_rejector_sends_and_nothing_else() -> None:
    with Desk() as desk:
        asked = desk.predict(1, -1, 1)
        desk.server.wait_for(1)
        assert not asked.done()
        desk.server.answer()
        found = asked.result(30)
        assert found.scores.argmax(dim=1).tolist() == [1, 0, 1]
        assert found.remote.tolist() == [True, False, True]
        assert found.why == ("", "rejector", "")
    assert desk.counts == Counter(predictions=3, asked=2, free=3, wanted=2, rejector=1)
    assert (desk.meter.unsettled, desk.purchase.left) == (2, 98)


def test_a_late_answer_is_no_answer() -> None:
    with Desk(within_s=0.05) as desk:
        found = desk.predict(1, -1).result(30)
    assert found.why == ("late", "rejector")
    # The server may have answered all the same.
    assert desk.purchase.left == 99


def test_a_caller_may_wait_for_a_shorter_time_than_the_node_does() -> None:
    with Desk(within_s=3600) as desk:
        assert desk.predict(1, within_s=0.01).result(30).why == ("late",)


def test_nobody_asks_a_server_that_is_away() -> None:
    with Desk() as desk:
        waits = desk.predict(1)
        desk.server.wait_for(1)
        desk.server.is_away = True
        assert waits.result(30).why == ("away",)
        assert desk.predict(1).result(30).why == ("away",)
        assert len(desk.server.asked) == 1
        desk.server.is_away = False
        again = desk.predict(1)
        desk.server.wait_for(2)
        desk.server.answer()
        assert again.result(30).remote.tolist() == [True]


@pytest.mark.parametrize(
    ("refusal", "why"),
    [
        (PolicyRefusal("every request that was bought is answered"), "spent"),
        (TooManyCalls("too many requests wait"), "busy"),
        (PeerUnreachable("the peer does not answer"), "away"),
        (NodeDraining("the line is closed"), "away"),
    ],
    ids=lambda each: each if isinstance(each, str) else type(each).__name__,
)
def test_a_refusal_is_answered_at_home(refusal: ComityError, why: str) -> None:
    with Desk() as desk:
        desk.server.refusal = refusal
        assert desk.predict(1).result(30).why == (why,)


def test_what_was_bought_is_not_exceeded_whatever_is_on_its_way() -> None:
    with Desk(requests=5) as desk:
        first = desk.predict(1, 1, 1)
        desk.server.wait_for(1)
        second = desk.predict(1, 1, 1)
        desk.server.wait_for(2)
        third = desk.predict(1)
        assert third.result(30).why == ("spent",)
        desk.server.answer()
        assert first.result(30).remote.all()
        assert second.result(30).why == ("", "", "spent")
    assert desk.counts["asked"] == 5


def test_a_caller_who_goes_is_waited_for_no_more() -> None:
    with Desk() as desk:
        gone, stays = desk.predict(1), desk.predict(1)
        desk.server.wait_for(1)
        assert gone.cancel()
        desk.server.wait_for(2)
        desk.server.answer()
        assert stays.result(30).remote.all()


def test_a_request_that_does_not_go_through_leaves_the_others() -> None:
    class Odd(Model):
        def decide(self, inputs: Tensor) -> Decided:
            if bool((inputs == 7).any()):
                raise NonFiniteValue("features", expected="finite values", received="NaN")
            return super().decide(inputs)

    with Desk() as desk:
        desk.predictor._model = Odd()
        odd, good = desk.predict(7), desk.predict(-1)
        with pytest.raises(NonFiniteValue):
            odd.result(30)
        assert good.result(30).why == ("rejector",)


def test_an_answer_that_is_none_ends_the_session_and_not_the_caller() -> None:
    with Desk() as desk:
        looked = threading.Event()
        desk.predictor.answered = lambda _: looked.set()
        asked = desk.predict(1)
        desk.server.wait_for(1)
        desk.server.answer((0.0, 1.0))
        assert asked.result(30).why == ("busy",)
        assert looked.wait(30)
        assert isinstance(desk.predictor.failure, MalformedMessage)


def test_too_many_at_a_time_are_told_to_try_again() -> None:
    with Desk(requests=10_000) as desk:
        begun = [desk.predictor.predict(torch.ones(1024, 2)) for _ in range(4)]
        with pytest.raises(TooManyCalls):
            desk.predict(1)
        desk.server.wait_for(4)
        desk.server.answer()
        assert all(each.result(30).remote.all() for each in begun)
        with pytest.raises(InvalidValue):
            desk.predictor.predict(torch.ones(1025, 2))
        with pytest.raises(InvalidValue):
            desk.predictor.predict(torch.ones(0, 2))
        with pytest.raises(NonFiniteValue):
            desk.predict(float("inf"))
    with pytest.raises(NodeDraining):
        desk.predict(1)


def test_a_doubt_ends_with_a_settlement_that_began_long_after_it() -> None:
    with Desk(requests=1, within_s=0.02) as desk:
        assert desk.predict(1).result(30).why == ("late",)
        desk.purchase.settled(time.monotonic())
        assert desk.purchase.left == 0
        desk.purchase.settled(time.monotonic() + 60)
        assert desk.purchase.left == 1


@given(
    st.floats(0, 1),
    st.integers(1, 50),
    st.lists(st.booleans(), max_size=300),
)
def test_no_window_holds_more_than_the_cap(limit: float, window: int, wanted: list[bool]) -> None:
    cap = RateCap(limit, window)
    taken = [cap.take(wanted=each) for each in wanted]
    assert all(not took or want for took, want in zip(taken, wanted, strict=True))
    for begin in range(max(len(taken) - window, 0) + 1):
        assert sum(taken[begin : begin + window]) <= limit * window + 1e-6


@pytest.mark.parametrize(("limit", "window"), [(-0.1, 5), (1.1, 5), (0.5, 0)])
def test_a_cap_that_is_none_is_refused(limit: float, window: int) -> None:
    with pytest.raises(InvalidValue):
        RateCap(limit, window)


def test_the_cap_is_counted() -> None:
    with Desk(cap=RateCap(0.5, 2)) as desk:
        asked = desk.predict(1, 1, 1)
        desk.server.wait_for(1)
        desk.server.answer()
        assert asked.result(30).why == ("", "capped", "")
    assert desk.counts["wanted"] == 3


def test_a_rate_that_drifts_from_what_was_promised_is_told() -> None:
    report = ServingReport(promised=0.1, calibrated=200)
    report.add(Counter(predictions=1000, free=1000, wanted=120, asked=120, agreed=60, rejector=880))
    told = report.next()
    assert (told["reject_rate"], told["agreement"], told["drifts"]) == (0.12, 0.5, False)
    assert str(told["what"]).startswith("1000 predictions: 12.0% to be asked, 10.0% promised, 120 asked")
    report.add(Counter(predictions=1000, free=1000, wanted=300, away=300, rejector=700))
    told = report.next()
    assert told["drifts"] is True
    assert "since the server is away" in str(told["what"])
    assert "calibrate anew" in str(told["what"])
    assert report.counts["predictions"] == 2000
    # What callers decide says nothing of the inputs.
    report.add(Counter(predictions=10, forced=10))
    told = report.next()
    assert (told["reject_rate"], told["drifts"]) == (None, False)
