"""Messages of gradient rewards to protobuf and back; what does not fit is refused here."""

from __future__ import annotations

import math

from comity.errors import MalformedMessage, NonFiniteValue
from comity.protocols.gradient_rewards.messages import Reward, RewardDetails, RewardNews
from comity.session.codec import statement_from_proto, statement_to_proto
from comity.tensors.sparse import largest_encoding
from comity.transport.blobs import digest_in
from comity.wire.v1 import blobs_pb2
from comity.wire.v1 import gradient_rewards_pb2 as pb


def reward_to_proto(reward: Reward) -> pb.Reward:
    """Encodes a reward; its entries travel as a blob."""
    terms = reward.details
    return pb.Reward(
        round=terms.round,
        contribution=terms.contribution,
        importance=terms.importance,
        fraction=terms.fraction,
        kept=terms.kept,
        entries=blobs_pb2.BlobRef(digest=terms.entries),
        size=terms.size,
        statement=statement_to_proto(reward.statement),
    )


def reward_from_proto(message: pb.Reward) -> Reward:
    """Decodes a reward, which may still be greater than an update; see `require_fitting`.

    Raises:
        MalformedMessage: A field is missing or out of range.
        NonFiniteValue: A number is not finite.
    """
    for name in ("entries", "statement"):
        if not message.HasField(name):
            raise MalformedMessage(
                "the reward is incomplete", expected=name, received="nothing", action="send entries and statement"
            )
    numbers = (message.contribution, message.importance, message.fraction)
    if not all(map(math.isfinite, numbers)):
        raise NonFiniteValue("the reward is not finite", expected="finite numbers", received=numbers)
    if not 0 <= message.fraction <= 1:
        raise MalformedMessage(
            "the reward is out of range",
            expected="a share from 0 to 1",
            received=message.fraction,
            action="ask the server's operator what happened",
        )
    terms = RewardDetails(message.round, *numbers, message.kept, digest_in(message.entries), message.size)
    return Reward(terms, statement_from_proto(message.statement))


def require_fitting(reward: Reward, parameters: int) -> None:
    """Checks that a reward is none of a larger model, before any of it is fetched.

    Args:
        reward: The reward.
        parameters: Entries of a whole update.

    Raises:
        MalformedMessage: It is out of range.
    """
    terms, most = reward.details, largest_encoding(parameters)
    if not (terms.kept <= parameters and 0 < terms.size <= most):
        raise MalformedMessage(
            "the reward is out of range",
            expected=f"at most {parameters} entries in at most {most} bytes",
            received=f"{terms.kept} entries in {terms.size} bytes",
            action="ask the server's operator what happened",
        )


def news_to_proto(news: RewardNews) -> pb.RoundNews:
    """Encodes news of a round."""
    if news.answer is not None:
        return pb.RoundNews(reward=reward_to_proto(news.answer))
    return pb.RoundNews(over=True) if news.kind == "over" else pb.RoundNews(opened=news.round)


def news_from_proto(message: pb.RoundNews) -> RewardNews:
    """Decodes news of a round.

    Raises:
        MalformedMessage: A field is missing or out of range.
        NonFiniteValue: A number is not finite.
    """
    match message.WhichOneof("kind"):
        case "opened" if message.opened >= 1:
            return RewardNews("opened", message.opened)
        case "reward" if message.reward.round >= 1:
            return RewardNews("settled", message.reward.round, reward_from_proto(message.reward))
        case "over":
            return RewardNews("over", 0)
    raise MalformedMessage(
        "the news cannot be read",
        expected="a round that opened or is settled, from 1, or the end",
        received=message.WhichOneof("kind") or "nothing",
        action="run the same version of comity on both sides",
    )
