"""Messages of peer study to protobuf and back; what does not fit is refused here."""

from __future__ import annotations

from comity.errors import MalformedMessage
from comity.protocols.peer_study.messages import Average, AverageDetails, AverageNews
from comity.session.codec import statement_from_proto, statement_to_proto
from comity.transport.blobs import digest_in
from comity.wire.v1 import blobs_pb2
from comity.wire.v1 import peer_study_pb2 as pb


def average_to_proto(average: Average) -> pb.Average:
    """Encodes an average; the model travels as a blob."""
    details = average.details
    return pb.Average(
        round=details.round,
        model=blobs_pb2.BlobRef(digest=details.model),
        participants=details.participants,
        statement=statement_to_proto(average.statement),
    )


def average_from_proto(message: pb.Average) -> Average:
    """Decodes an average.

    Raises:
        MalformedMessage: A field is missing or out of range.
    """
    for name in ("model", "statement"):
        if not message.HasField(name):
            raise MalformedMessage(
                "the average is incomplete", expected=name, received="nothing", action="send model and statement"
            )
    if message.participants < 1:
        raise MalformedMessage(
            "the average is of no client's model",
            expected="1 or more",
            received=message.participants,
            action="ask the server's operator what happened",
        )
    details = AverageDetails(message.round, digest_in(message.model), message.participants)
    return Average(details, statement_from_proto(message.statement))


def news_to_proto(news: AverageNews) -> pb.AverageNews:
    """Encodes news of a round."""
    if news.answer is not None:
        return pb.AverageNews(average=average_to_proto(news.answer))
    return pb.AverageNews(over=True) if news.kind == "over" else pb.AverageNews(opened=news.round)


def news_from_proto(message: pb.AverageNews) -> AverageNews:
    """Decodes news of a round.

    Raises:
        MalformedMessage: A field is missing or out of range.
    """
    match message.WhichOneof("kind"):
        case "opened" if message.opened >= 1:
            return AverageNews("opened", message.opened)
        case "average" if message.average.round >= 1:
            return AverageNews("settled", message.average.round, average_from_proto(message.average))
        case "over":
            return AverageNews("over", 0)
    raise MalformedMessage(
        "the news cannot be read",
        expected="a round that opened or is averaged, from 1, or the end",
        received=message.WhichOneof("kind") or "nothing",
        action="run the same version of comity on both sides",
    )
