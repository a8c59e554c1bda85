"""Assisted learning's messages cross unchanged, and what does not fit is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.errors import ComityError, MalformedMessage, NonFiniteValue
from comity.protocols.assisted_learning.algorithm import Loss
from comity.protocols.assisted_learning.codec import (
    checkpoint_from_proto,
    checkpoint_to_proto,
    loss_from_proto,
    loss_to_proto,
    receipt_from_proto,
    receipt_to_proto,
)
from comity.protocols.assisted_learning.messages import Checkpoint, Receipt, offer_digest
from comity.tensors import Blob
from comity.wire.v1 import assisted_learning_pb2 as pb
from comity.wire.v1 import blobs_pb2

numbers = st.integers(0, 2**32 - 1)
losses = st.builds(Loss, st.floats(0, allow_infinity=False), st.integers(1, 2**64 - 1))
blobs = st.binary(max_size=20).map(Blob.of)
checkpoints = st.builds(Checkpoint, numbers, numbers, blobs, losses)
receipts = st.builds(Receipt, numbers, numbers, st.binary(min_size=32, max_size=32))


@given(losses)
def test_losses_cross_unchanged(loss: Loss) -> None:
    assert loss_from_proto(pb.Loss.FromString(loss_to_proto(loss).SerializeToString())) == loss


@given(checkpoints)
def test_checkpoints_cross_unchanged(checkpoint: Checkpoint) -> None:
    asked = []

    def find(reference: blobs_pb2.BlobRef) -> Blob:
        asked.append((reference.digest, reference.size))
        return checkpoint.blob

    message = pb.Checkpoint.FromString(checkpoint_to_proto(checkpoint).SerializeToString())
    assert checkpoint_from_proto(message, find) == checkpoint
    assert asked == [(checkpoint.blob.digest, checkpoint.blob.size)]


@given(receipts)
def test_receipts_cross_unchanged(receipt: Receipt) -> None:
    assert receipt_from_proto(pb.Receipt.FromString(receipt_to_proto(receipt).SerializeToString())) == receipt


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


GOOD = {"blob": blobs_pb2.BlobRef(digest=bytes(32), size=1), "loss": pb.Loss(sum=1.0, count=1)}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"blob": None}, "blob"),
        ({"loss": None}, "loss"),
        ({"blob": blobs_pb2.BlobRef(size=1)}, "32 bytes"),
        ({"blob": blobs_pb2.BlobRef(digest=bytes(31))}, "32 bytes"),
        ({"blob": blobs_pb2.BlobRef(digest=bytes(33))}, "32 bytes"),
        ({"loss": pb.Loss(sum=-1.0, count=1)}, "a sum from 0"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused_before_their_blob_is_looked_for(
    changes: dict[str, Any], expected: str
) -> None:
    def find(reference: blobs_pb2.BlobRef) -> Blob:
        raise AssertionError(f"{reference} was looked for")

    with pytest.raises(MalformedMessage, match=expected):
        checkpoint_from_proto(pb.Checkpoint(**(GOOD | changes)), find)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_receipts_without_a_digest_are_refused(length: int) -> None:
    with pytest.raises(MalformedMessage, match="32 bytes"):
        receipt_from_proto(pb.Receipt(round=1, count=1, digest=bytes(length)))


@given(st.lists(checkpoints, min_size=1, max_size=3), numbers)
def test_the_digest_of_an_offer_covers_everything_in_it(offer: list[Checkpoint], round: int) -> None:
    first, *rest = offer
    changed = [
        Checkpoint(first.index, first.iteration + 1, first.blob, first.loss),
        Checkpoint(first.index, first.iteration, Blob.of(bytes(first.blob.data) + b"x"), first.loss),
        Checkpoint(first.index, first.iteration, first.blob, Loss(first.loss.sum, first.loss.count + 1)),
        Checkpoint(first.index, first.iteration, first.blob, Loss(0.0 if first.loss.sum else 1.0, first.loss.count)),
    ]
    digests = {offer_digest(round, offer), offer_digest(round + 1, offer), offer_digest(round, [*offer, first])}
    digests |= {offer_digest(round, [each, *rest]) for each in changed}
    assert len(digests) == 3 + len(changed)
