"""A learner that offers, closes and waits out of order."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator

import pytest

from comity import errors
from comity.errors import ComityError
from comity.ledger.ledger import in_round
from comity.simulation.in_process import simulate
from comity.transport import blobs
from comity.wire.v1 import assisted_learning_pb2 as pb
from tests.e2e.hostile.parties import DEADLINE_S, QUICK, Target, assert_clear, refusal
from tests.e2e.protocols.assisted_learning.attacked.attacks import PLAY, Attack, spoiled_headers


def test_an_offer_without_its_blob(attack: Attack) -> None:
    error = refusal(lambda: attack.offer(attack.checkpoint()))
    assert_clear(error, errors.UnknownBlob, attack.blob.hex, "send it first")


def test_an_offer_that_is_incomplete(attack: Attack) -> None:
    assert attack.put(attack.blob.data).complete
    error = refusal(lambda: attack.call("Offer", pb.OfferRequest(round=1)))
    assert_clear(error, errors.MalformedMessage, "checkpoint", "nothing")
    for name in ("blob", "loss"):
        checkpoint = attack.checkpoint()
        checkpoint.ClearField(name)
        error = refusal(lambda checkpoint=checkpoint: attack.offer(checkpoint))  # type: ignore[misc]
        assert_clear(error, errors.MalformedMessage, f"expected {name}", "nothing")
    checkpoint = attack.checkpoint()
    checkpoint.blob.digest = b"short"
    assert_clear(refusal(lambda: attack.offer(checkpoint)), errors.MalformedMessage, "32 bytes", "5 bytes")
    assert attack.begin()


@pytest.mark.parametrize(
    ("sum", "count", "kind", "parts"),
    [
        (math.nan, 37, errors.NonFiniteValue, ("a finite sum", "nan", "learning_rate")),
        (math.inf, 37, errors.NonFiniteValue, ("a finite sum", "inf", "learning_rate")),
        (-math.inf, 37, errors.NonFiniteValue, ("a finite sum", "-inf", "learning_rate")),
        (-0.5, 37, errors.MalformedMessage, ("a sum from 0", "-0.5")),
        (1.0, 0, errors.MalformedMessage, ("1 sample or more", "over 0")),
        (1.0, 38, errors.MalformedMessage, ("another number of samples", "37", "38")),
        (1.0, 2**64 - 1, errors.MalformedMessage, ("another number of samples", "37", str(2**64 - 1))),
    ],
)
def test_a_loss_that_cannot_be(
    attack: Attack, sum: float, count: int, kind: type[ComityError], parts: tuple[str, ...]
) -> None:
    blob = attack.blob
    assert attack.put(blob.data).complete
    assert_clear(refusal(lambda: attack.offer(attack.checkpoint(blob, sum=sum, count=count))), kind, *parts)
    assert attack.begin() == blob


def test_losses_too_great_to_be_added(attack: Attack) -> None:
    """Finite one by one, and infinite together: the session that asks for it fails, with a reason."""
    blob = attack.blob
    assert attack.put(blob.data).complete
    attack.offer(attack.checkpoint(blob, sum=1.7976931348623157e308))
    attack.close()
    assert len(attack.watch()) == 6


@pytest.mark.parametrize("round", [0, 2, 3, 2**32 - 1])
def test_a_round_out_of_order(attack: Attack, round: int) -> None:
    blob = attack.blob
    assert attack.put(blob.data).complete
    error = refusal(lambda: attack.offer(attack.checkpoint(blob), round=round))
    assert_clear(error, errors.RoundOutOfOrder, "round 1", f"round {round}")
    if round:
        assert_clear(refusal(lambda: attack.close(round=round)), errors.RoundOutOfOrder, "round 1", f"round {round}")
    else:
        assert_clear(refusal(lambda: attack.close(round=0)), errors.MalformedMessage, "about nothing")
    assert_clear(refusal(lambda: attack.watch(round)), errors.RoundOutOfOrder, "none", f"round {round}")
    assert attack.begin() == blob


def test_an_index_out_of_order(attack: Attack) -> None:
    blob = attack.blob
    assert attack.put(blob.data).complete
    for index in (1, 2, 3, 2**32 - 1):
        error = refusal(lambda index=index: attack.offer(attack.checkpoint(blob, index=index)))  # type: ignore[misc]
        assert_clear(error, errors.RoundOutOfOrder, "index 0", f"index {index}")
    error = refusal(lambda: attack.offer(attack.checkpoint(blob, iteration=5)))
    assert_clear(error, errors.MalformedMessage, "another iteration", "expected 0", "received 5")
    # One more than the contract's trajectory has.
    attack.offer(attack.checkpoint(blob))
    for index in (1, 2):
        attack.offer(attack.checkpoint(blob, index=index, iteration=5 * index))
    error = refusal(lambda: attack.offer(attack.checkpoint(blob, index=3, iteration=15)))
    assert_clear(error, errors.RoundOutOfOrder, "of 3", "index 3")


def test_an_offer_that_changes_afterwards(attack: Attack) -> None:
    blob = attack.begin()
    attack.offer(attack.checkpoint(blob))  # the same again is no change
    state = attack.state
    state["3.bias"] += 1
    other = attack.layout.pack(state)
    assert attack.put(other.data).complete
    for changed, part in (
        (attack.checkpoint(other), other.hex),
        (attack.checkpoint(blob, sum=84.0), "84.0"),
        (attack.checkpoint(blob, count=38), "38"),
        (attack.checkpoint(blob, iteration=5), "iteration 5"),
    ):
        error = refusal(lambda changed=changed: attack.offer(changed))  # type: ignore[misc]
        assert_clear(error, errors.ConflictingOffer, part, "cannot change")
        assert error.expected != error.received


def test_a_round_that_is_closed(attack: Attack) -> None:
    for count in (0, 1, 2**32 - 1):
        error = refusal(lambda count=count: attack.close(count))  # type: ignore[misc]
        assert_clear(error, errors.RoundOutOfOrder, "checkpoints", f"received {count}", "close with their number")
    assert_clear(refusal(attack.watch), errors.RoundOutOfOrder, "none", "round 1")
    blob = attack.begin()
    receipt = attack.close()
    assert attack.close() == receipt
    error = refusal(lambda: attack.offer(attack.checkpoint(blob, index=1, iteration=5)))
    assert_clear(error, errors.RoundOutOfOrder, "closed", "checkpoint 1")
    error = refusal(lambda: attack.put(attack.blob.data))
    assert_clear(error, errors.UnexpectedBlob, "checkpoint of round 1")
    assert attack.watch(skip=2**32 - 1) == []


def test_a_session_is_as_it_was_after_all_of_it(attack: Attack) -> None:
    """Bad messages cost their calls only: the same session then comes to what it would have come to."""
    blob = attack.blob
    spoiled = bytearray(blob.data)
    spoiled[-1] ^= 1
    refusal(lambda: attack.put(spoiled, digest=blob.hex))
    refusal(lambda: attack.put(blob.data, pieces=[blob.data[:100]]))
    refusal(lambda: attack.put(blob.data, pieces=[blob.data[100:], b"x"], offset=100))
    refusal(lambda: attack.put(spoiled_headers(attack.layout, blob)["another dtype"]))
    refusal(lambda: attack.offer(attack.checkpoint(), round=2))
    refusal(lambda: attack.offer(attack.checkpoint(sum=math.nan)))
    refusal(attack.close)
    expected = simulate(PLAY.script(attack.contract.session, initiator="mallory"))[1]
    assert attack.play_on() == expected.digest


def test_many_calls_that_wait_keep_nobody_out(attack: Attack, target: Target) -> None:
    """One peer's open calls may not take all the threads that answer."""
    held = threading.Event()

    def never() -> Iterator[memoryview]:
        held.wait(DEADLINE_S)
        yield from ()

    blob = attack.blob
    metadata = [*attack.connection._metadata, *blobs.put_metadata(blob, "checkpoint", in_round(1), 0)]
    calls = [attack.connection._put.future(never(), metadata=metadata, timeout=DEADLINE_S) for _ in range(64)]
    try:
        assert PLAY.run_honestly(target, "crowded", rounds=1, retry=QUICK).models
    finally:
        for call in calls:
            call.cancel()
        held.set()
