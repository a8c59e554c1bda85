"""Messages of gradient rewards to protobuf and back; what does not fit is refused here."""

from __future__ import annotations

import math

from comity.errors import MalformedMessage, NonFiniteValue
from comity.protocols.gradient_rewards.messages import News, Reward, Terms
from comity.session.codec import statement_from_proto, statement_to_proto
from comity.tensors.sparse import largest_encoding
from comity.transport.blobs import digest_in
from comity.wire.v1 import blobs_pb2
from comity.wire.v1 import gradient_rewards_pb2 as pb


def reward_to_proto(reward: Reward) -> pb.Reward:
    """Encodes a reward; its entries travel as a blob."""
    terms = reward.terms
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


def reward_from_proto(message: pb.Reward, parameters: int) -> Reward:
    """Decodes a reward.

    Args:
        message: The message.
        parameters: Entries of a whole update.

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
    most = largest_encoding(parameters)
    if not (0 <= message.fraction <= 1 and message.kept <= parameters and 0 < message.size <= most):
        raise MalformedMessage(
            "the reward is out of range",
            expected=f"a share from 0 to 1, at most {parameters} entries in at most {most} bytes",
            received=f"{message.fraction}, {message.kept} entries in {message.size} bytes",
            action="ask the server's operator what happened",
        )
    terms = Terms(message.round, *numbers, message.kept, digest_in(message.entries), message.size)
    return Reward(terms, statement_from_proto(message.statement))


def news_to_proto(news: News) -> pb.RoundNews:
    """Encodes news of a round."""
    if news.reward is not None:
        return pb.RoundNews(reward=reward_to_proto(news.reward))
    return pb.RoundNews(over=True) if news.kind == "over" else pb.RoundNews(opened=news.round)


def news_from_proto(message: pb.RoundNews, parameters: int) -> News:
    """Decodes news of a round.

    Raises:
        MalformedMessage: A field is missing or out of range.
        NonFiniteValue: A number is not finite.
    """
    match message.WhichOneof("kind"):
        case "opened" if message.opened >= 1:
            return News("opened", message.opened)
        case "reward" if message.reward.round >= 1:
            return News("settled", message.reward.round, reward_from_proto(message.reward, parameters))
        case "over":
            return News("over", 0)
    raise MalformedMessage(
        "the news cannot be read",
        expected="a round that opened or is settled, from 1, or the end",
        received=message.WhichOneof("kind") or "nothing",
        action="run the same version of comity on both sides",
    )
