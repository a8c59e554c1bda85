"""Gradient rewards' messages cross unchanged, and what does not fit is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.errors import ComityError, MalformedMessage, NonFiniteValue
from comity.ledger.receipts import SignedStatement, Statement
from comity.protocol.registry import protocol
from comity.protocols.gradient_rewards.codec import (
    news_from_proto,
    news_to_proto,
    require_fitting,
    reward_from_proto,
    reward_to_proto,
)
from comity.protocols.gradient_rewards.messages import Reward, RewardDetails
from comity.session.gathering.messages import News
from comity.tensors.sparse import largest_encoding
from comity.wire.v1 import blobs_pb2, sessions_pb2
from comity.wire.v1 import gradient_rewards_pb2 as pb

PARAMETERS = 1000
finite = st.floats(allow_nan=False, allow_infinity=False)
rounds = st.integers(1, 10_000)
terms = st.builds(
    RewardDetails,
    rounds,
    finite,
    finite,
    st.floats(0, 1),
    st.integers(0, PARAMETERS),
    st.binary(min_size=32, max_size=32),
    st.integers(1, largest_encoding(PARAMETERS)),
)
SIGNED = SignedStatement(Statement("statement", "server", "s", "c", "round", 1, 1, "ab", 3, "cd"), "ef")
rewards = st.builds(Reward, terms, st.just(SIGNED))


@given(rewards)
def test_rewards_cross_unchanged(reward: Reward) -> None:
    data = reward_to_proto(reward).SerializeToString()
    assert reward_from_proto(pb.Reward.FromString(data)) == reward


@given(rewards, rounds)
def test_news_crosses_unchanged(reward: Reward, round: int) -> None:
    for news in (News("opened", round), News("settled", reward.details.round, reward)):
        data = news_to_proto(news).SerializeToString()
        assert news_from_proto(pb.RoundNews.FromString(data)) == news
    over = pb.RoundNews.FromString(news_to_proto(News("over", round)).SerializeToString())
    assert news_from_proto(over).kind == "over"


@given(terms)
def test_a_statement_covers_everything_in_it(stated: RewardDetails) -> None:
    changed = [
        RewardDetails(stated.round + 1, *_rest(stated)),
        *(RewardDetails(stated.round, *_changed(stated, place)) for place in range(6)),
    ]
    subjects = {each.subject for each in [stated, *changed]}
    assert len(subjects) == 1 + len(changed)


def _rest(stated: RewardDetails) -> list[Any]:
    return [stated.contribution, stated.importance, stated.fraction, stated.kept, stated.entries, stated.size]


def _changed(stated: RewardDetails, place: int) -> list[Any]:
    values = _rest(stated)
    if isinstance(values[place], bytes):
        values[place] = bytes([values[place][0] ^ 1]) + values[place][1:]
    else:
        values[place] = 1 if values[place] == 0 else 0
    return values


GOOD: dict[str, Any] = {
    "round": 1,
    "contribution": 0.5,
    "importance": 0.2,
    "fraction": 0.4,
    "kept": 400,
    "entries": blobs_pb2.BlobRef(digest=bytes(32)),
    "size": 100,
    "statement": sessions_pb2.SignedStatement(kind="statement", party="server", unit="round", first=1, count=1),
}


def taken(**changes: Any) -> Reward:
    reward = reward_from_proto(pb.Reward(**(GOOD | changes)))
    require_fitting(reward, PARAMETERS)
    return reward


def test_the_good_reward_is_taken() -> None:
    assert taken().details.kept == 400


@pytest.mark.parametrize(
    ("changes", "error", "expected"),
    [
        ({"entries": None}, MalformedMessage, "entries"),
        ({"statement": None}, MalformedMessage, "statement"),
        ({"entries": blobs_pb2.BlobRef(digest=bytes(31))}, MalformedMessage, "32 bytes"),
        ({"statement": sessions_pb2.SignedStatement(kind="promise")}, MalformedMessage, "no known kind"),
        *(({name: math.nan}, NonFiniteValue, "finite") for name in ("contribution", "importance", "fraction")),
        ({"contribution": math.inf}, NonFiniteValue, "finite"),
        ({"fraction": -0.1}, MalformedMessage, "a share from 0 to 1"),
        ({"fraction": 1.1}, MalformedMessage, "a share from 0 to 1"),
        ({"kept": PARAMETERS + 1}, MalformedMessage, "entries"),
        ({"size": 0}, MalformedMessage, "bytes"),
        ({"size": 2**40}, MalformedMessage, "bytes"),
    ],
)
def test_rewards_that_do_not_fit_are_refused(changes: dict[str, Any], error: type[ComityError], expected: str) -> None:
    with pytest.raises(error, match=expected):
        taken(**changes)


@pytest.mark.parametrize(
    "message", [pb.RoundNews(), pb.RoundNews(opened=0), pb.RoundNews(reward=pb.Reward(**(GOOD | {"round": 0})))]
)
def test_news_that_says_nothing_is_refused(message: pb.RoundNews) -> None:
    with pytest.raises(MalformedMessage, match="cannot be read"):
        news_from_proto(message)


def test_neither_policy_need_name_what_the_other_sends() -> None:
    service = protocol("gradient_rewards").load().service
    assert service.kinds_sent(by_initiator=True) == {"contract", "update"}
    assert service.kinds_sent(by_initiator=False) == {"contract", "reward"}
