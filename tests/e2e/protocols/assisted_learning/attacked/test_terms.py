"""A learner that proposes training that cannot be: each gets its line, and the node goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from comity import errors
from comity.errors import ComityError
from comity.transport import sessions
from comity.transport.peer_connection import PeerConnection
from comity.wire.v1 import assisted_learning_pb2 as pb
from comity.wire.v1 import sessions_pb2
from tests.e2e.hostile.parties import assert_clear, refusal
from tests.e2e.protocols.assisted_learning.attacked.attacks import PLAY


def with_terms(**terms: Any) -> sessions_pb2.Proposal:
    message = PLAY.proposal()
    packed = pb.AssistedLearningTerms()
    assert message.contract.terms.Unpack(packed)
    for name, value in terms.items():
        setattr(packed, name, value)
    message.contract.terms.Pack(packed)
    return message


def without_samples() -> sessions_pb2.Proposal:
    message = PLAY.proposal()
    message.membership.samples = 0
    return message


TERMS: Mapping[str, tuple[Callable[[], sessions_pb2.Proposal], type[ComityError], tuple[str, ...]]] = {
    "a learning rate of NaN": (
        lambda: with_terms(learning_rate=math.nan),
        errors.MalformedMessage,
        ("learning_rate", "NaN"),
    ),
    "a negative learning rate": (
        lambda: with_terms(learning_rate=-1.0),
        errors.MalformedMessage,
        ("learning_rate", "-1"),
    ),
    "a step size that no tensor can take": (
        lambda: with_terms(learning_rate=1e300),
        errors.MalformedMessage,
        ("learning_rate", "1e+300"),
    ),
    "no iterations": (lambda: with_terms(iterations=0), errors.MalformedMessage, ("iterations", "0")),
    "no sampling period": (lambda: with_terms(sampling_period=0), errors.MalformedMessage, ("sampling_period", "0")),
    "no batch": (lambda: with_terms(batch_size=0), errors.MalformedMessage, ("batch_size", "0")),
    "an unknown optimiser": (lambda: with_terms(optimizer="lion"), errors.MalformedMessage, ("optimizer", "lion")),
    "an unknown objective": (lambda: with_terms(objective="max"), errors.MalformedMessage, ("objective", "max")),
    "no samples of a party that trains": (without_samples, errors.MalformedMessage, ("samples", "0")),
}


@pytest.mark.parametrize("case", TERMS)
@pytest.mark.usefixtures("during")
def test_terms_that_cannot_be_taken(case: str, line: PeerConnection) -> None:
    make, kind, parts = TERMS[case]
    assert_clear(refusal(lambda: sessions.propose(line, make())), kind, *parts)
