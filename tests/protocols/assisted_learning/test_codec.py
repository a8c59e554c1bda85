"""Assisted learning's messages cross unchanged, and what does not fit is refused."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.errors import ComityError, MalformedMessage, NonFiniteValue
from comity.ledger.receipts import SignedStatement, Statement
from comity.protocols.assisted_learning.algorithm import JointLoss, Loss
from comity.protocols.assisted_learning.codec import (
    checkpoint_from_proto,
    checkpoint_to_proto,
    joint_loss_from_proto,
    loss_from_proto,
    loss_to_proto,
)
from comity.protocols.assisted_learning.messages import Checkpoint, trajectory_digest
from comity.session.codec import statement_from_proto, statement_to_proto
from comity.wire.v1 import assisted_learning_pb2 as pb
from comity.wire.v1 import blobs_pb2, sessions_pb2

numbers = st.integers(0, 2**32 - 1)
losses = st.builds(Loss, st.floats(0, allow_infinity=False), st.integers(1, 2**64 - 1))
digests = st.binary(min_size=32, max_size=32)
joint_losses = st.builds(JointLoss.of, st.lists(st.floats(0, 1e300), max_size=5))
checkpoints = st.builds(Checkpoint, numbers, numbers, digests, losses | joint_losses)
texts = st.text(st.characters(codec="utf-8"), max_size=10)
kinds = st.sampled_from(["request", "receipt", "acknowledgement"])
names = texts.filter(bool)
lengths = st.integers(0, 2**64 - 1)
counts = st.integers(1, 2**64 - 1)
statements = st.builds(
    SignedStatement,
    st.builds(Statement, kinds, texts, texts, texts, names, counts, counts, texts, lengths, texts),
    st.binary(max_size=64).map(bytes.hex),
)


@given(losses)
def test_losses_cross_unchanged(loss: Loss) -> None:
    assert loss_from_proto(pb.Loss.FromString(loss_to_proto(loss).SerializeToString())) == loss


@given(checkpoints)
def test_checkpoints_cross_unchanged(checkpoint: Checkpoint) -> None:
    message = pb.Checkpoint.FromString(checkpoint_to_proto(checkpoint).SerializeToString())
    assert checkpoint_from_proto(message) == checkpoint


@given(checkpoints)
def test_a_record_of_a_checkpoint_is_the_checkpoint(checkpoint: Checkpoint) -> None:
    assert Checkpoint.from_json(json.loads(json.dumps(checkpoint.to_json()))) == checkpoint


@pytest.mark.parametrize(
    ("numbers", "error"),
    [
        ([math.nan], NonFiniteValue),
        ([math.inf, -math.inf], NonFiniteValue),
        ([1.7e308, 1.7e308], NonFiniteValue),
        ([1.0, -2.0], MalformedMessage),
        ([1.0] * 65, MalformedMessage),
    ],
)
def test_joint_losses_out_of_range_are_refused(numbers: list[float], error: type[ComityError]) -> None:
    with pytest.raises(error):
        joint_loss_from_proto(pb.JointLoss(numbers=numbers))


def test_a_checkpoint_has_one_loss() -> None:
    both = pb.Checkpoint(blob=blobs_pb2.BlobRef(digest=bytes(32)), loss=pb.Loss(count=1), joint_loss=pb.JointLoss())
    with pytest.raises(MalformedMessage, match="received both"):
        checkpoint_from_proto(both)


@given(statements)
def test_statements_cross_unchanged(signed: SignedStatement) -> None:
    data = statement_to_proto(signed).SerializeToString()
    assert statement_from_proto(sessions_pb2.SignedStatement.FromString(data)) == signed


@pytest.mark.parametrize(
    "units", [{}, {"unit": "round", "count": 1}, {"unit": "round", "first": 1}, {"first": 1, "count": 1}]
)
def test_statements_about_nothing_are_refused(units: dict[str, Any]) -> None:
    with pytest.raises(MalformedMessage, match="about nothing"):
        statement_from_proto(sessions_pb2.SignedStatement(kind="receipt", **units))


@pytest.mark.parametrize("kind", ["", "promise"])
def test_statements_of_no_known_kind_are_refused(kind: str) -> None:
    with pytest.raises(MalformedMessage, match="no known kind"):
        statement_from_proto(sessions_pb2.SignedStatement(kind=kind))


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (pb.Loss(sum=math.nan, count=1), NonFiniteValue),
        (pb.Loss(sum=math.inf, count=1), NonFiniteValue),
        (pb.Loss(sum=-math.inf, count=1), NonFiniteValue),
        (pb.Loss(sum=-1e-300, count=1), MalformedMessage),
        (pb.Loss(sum=1.0), MalformedMessage),
        (pb.Loss(), MalformedMessage),
    ],
)
def test_losses_out_of_range_are_refused(message: pb.Loss, error: type[ComityError]) -> None:
    with pytest.raises(error):
        loss_from_proto(message)


GOOD = {"blob": blobs_pb2.BlobRef(digest=bytes(32)), "loss": pb.Loss(sum=1.0, count=1)}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"blob": None}, "blob"),
        ({"loss": None}, "loss"),
        ({"blob": blobs_pb2.BlobRef()}, "32 bytes"),
        ({"blob": blobs_pb2.BlobRef(digest=bytes(31))}, "32 bytes"),
        ({"blob": blobs_pb2.BlobRef(digest=bytes(33))}, "32 bytes"),
        ({"loss": pb.Loss(sum=-1.0, count=1)}, "a sum from 0"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(MalformedMessage, match=expected):
        checkpoint_from_proto(pb.Checkpoint(**(GOOD | changes)))


@given(st.lists(checkpoints, min_size=1, max_size=3), numbers)
def test_the_digest_of_an_offer_covers_everything_in_it(offer: list[Checkpoint], round: int) -> None:
    first, *rest = offer
    if isinstance(first.loss, JointLoss):
        losses: list[Loss | JointLoss] = [JointLoss((*first.loss.numbers, 1.0)), Loss(1.0, 1)]
    else:
        losses = [
            Loss(first.loss.sum, first.loss.count + 1),
            Loss(0.0 if first.loss.sum else 1.0, first.loss.count),
        ]
    changed = [
        Checkpoint(first.index, first.iteration + 1, first.digest, first.loss),
        Checkpoint(first.index, first.iteration, bytes([first.digest[0] ^ 1]) + first.digest[1:], first.loss),
        *(Checkpoint(first.index, first.iteration, first.digest, loss) for loss in losses),
    ]
    digests = {
        trajectory_digest(round, offer),
        trajectory_digest(round + 1, offer),
        trajectory_digest(round, [*offer, first]),
    }
    digests |= {trajectory_digest(round, [each, *rest]) for each in changed}
    assert len(digests) == 3 + len(changed)
