"""A learner whose blobs are not what they should be: corrupted, cut, too large, of another model, not finite."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator

import pytest

from comity import errors
from comity.errors import ComityError
from comity.tensors import Blob
from comity.transport.peer_connection import PeerConnection
from comity.wire.v1 import blobs_pb2
from tests.e2e.hostile.parties import DEADLINE_S, QUICK, assert_clear, refusal
from tests.e2e.protocols.assisted_learning.attacked.attacks import Attack, agreed, spoiled_headers


def test_a_corrupted_blob(attack: Attack) -> None:
    blob = attack.blob
    spoiled = bytearray(blob.data)
    spoiled[-1] ^= 1
    error = refusal(lambda: attack.put(spoiled, digest=blob.hex))
    assert_clear(error, errors.BlobCorrupted, blob.hex, Blob.of(spoiled).hex, "send it again")
    # Nothing of it is kept: the right one is taken.
    assert attack.begin() == blob


def test_a_truncated_blob(attack: Attack) -> None:
    blob = attack.blob
    half = blob.size // 2
    error = refusal(lambda: attack.put(blob.data, pieces=[blob.data[:half]]))
    assert_clear(error, errors.BlobTruncated, f"{blob.size} bytes", f"{half} bytes", "send the rest")
    error = refusal(lambda: attack.offer(attack.checkpoint(blob)))
    assert_clear(error, errors.UnknownBlob, blob.hex, "send it first")
    # What came is kept, and can be gone on from.
    stat = attack.connection._stat(blobs_pb2.BlobRef(digest=blob.digest), metadata=attack.connection._metadata)
    assert (stat.held, stat.complete) == (half, False)
    error = refusal(lambda: attack.put(blob.data))
    assert_clear(error, errors.BlobTruncated, f"offset {half}", "offset 0", "go on from there")
    assert attack.put(blob.data, pieces=[blob.data[half:]], offset=half).complete
    attack.offer(attack.checkpoint(blob))


def test_an_oversized_blob(attack: Attack) -> None:
    blob = attack.blob
    for size in (blob.size + 1, blob.size - 1, 0, 10**18 - 1):
        error = refusal(lambda size=size: attack.put(blob.data, size=size))  # type: ignore[misc]
        assert_clear(error, errors.BlobSizeMismatch, f"{blob.size} bytes", f"{size} bytes", "state dict")
    for tail in (b"x", bytes(2**20)):
        error = refusal(lambda tail=tail: attack.put(blob.data, pieces=[blob.data, tail]))  # type: ignore[misc]
        assert_clear(error, errors.BlobSizeMismatch, f"{blob.size} bytes", f"{blob.size + len(tail)} or more")
    assert attack.begin() == blob


def test_a_blob_that_nobody_waits_for(attack: Attack) -> None:
    blob = attack.blob
    for announced in ({"kind": "update"}, {"kind": "sample"}, {"unit": "request"}, {"first": 2}, {"first": 10**17}):
        error = refusal(lambda announced=announced: attack.put(blob.data, **announced))  # type: ignore[misc]
        came = f"{announced.get('kind', 'checkpoint')} of {announced.get('unit', 'round')} {announced.get('first', 1)}"
        assert_clear(error, errors.UnexpectedBlob, "checkpoint of round 1", came, "wait until it is asked for")
    error = refusal(lambda: attack.put(blob.data, count=2))
    assert_clear(error, errors.UnexpectedBlob, "checkpoint of round 1", "checkpoint of rounds 1 to 2")
    assert_clear(refusal(lambda: attack.put(blob.data, without="unit")), errors.UnexpectedBlob, "of the session")


def test_units_that_are_none(attack: Attack) -> None:
    for announced in ({"first": 0}, {"count": 0}, {"unit": ""}, {"unit": "Round"}, {"unit": "x" * 4000}):
        error = refusal(lambda announced=announced: attack.put(attack.blob.data, **announced))  # type: ignore[misc]
        assert_clear(error, errors.MalformedMessage)


@pytest.mark.parametrize("field", ["kind", "first", "count", "digest", "size", "offset"])
def test_numbers_that_are_none(attack: Attack, field: str) -> None:
    blob = attack.blob
    for value in ("", "-1", "1e3", "0x10", "9" * 19, "9" * 4000, "nan", " 1", "1 ", "1_0", "~"):
        # Whatever could be a kind's name is one that nobody waits for.
        kind = errors.UnexpectedBlob if (field, value) == ("kind", "nan") else errors.MalformedMessage
        error = refusal(lambda value=value: attack.put(blob.data, **{field: value}))  # type: ignore[misc]
        assert_clear(error, kind)
    assert_clear(refusal(lambda: attack.put(blob.data, without=field)), errors.MalformedMessage)
    assert attack.begin() == blob


def test_an_offset_that_is_not_where_the_bytes_end(attack: Attack) -> None:
    blob = attack.blob
    error = refusal(lambda: attack.put(blob.data, offset=10**17))
    assert_clear(error, errors.BlobTruncated, "offset 0", f"offset {10**17}")
    assert attack.begin() == blob


def test_too_many_blobs(attack: Attack) -> None:
    states = [attack.state for _ in range(4)]
    for index, state in enumerate(states):
        state["3.bias"] += index
    *fitting, surplus = (attack.layout.pack(state) for state in states)
    for blob in fitting:
        assert attack.put(blob.data).complete
    error = refusal(lambda: attack.put(surplus.data))
    assert_clear(error, errors.UnexpectedBlob, "at most 3", "one more", "no more than")


@pytest.mark.parametrize(
    ("case", "parts"),
    [
        ("another dtype", ("tensor 1.bias differs", "F32 [16]", "I32 [16]", "state dict")),
        ("another shape", ("tensor 3.weight differs", "F32 [10, 16]", "F32 [16, 10]", "state dict")),
        ("another name", ("tensor 3.weight is missing", "F32 [10, 16]", "nothing", "state dict")),
        ("places swapped", ("order", "state dict")),
        ("no header", ("state dict",)),
        ("noise", ("header", "state dict")),
        ("an absurd header length", ("header is too long", f"{2**63} bytes", "state dict")),
        ("brackets", ("header cannot be read", "state dict")),
        ("a list", ("header cannot be read", "state dict")),
        ("null", ("header cannot be read", "state dict")),
        ("a null tensor", ("header cannot be read", "state dict")),
        ("numbers for names", ("state dict",)),
        ("no text", ("header cannot be read", "state dict")),
    ],
)
def test_tensors_of_another_model(attack: Attack, case: str, parts: tuple[str, ...]) -> None:
    blob = attack.blob
    spoiled = spoiled_headers(attack.layout, blob)[case]
    assert len(spoiled) == blob.size
    assert spoiled != bytes(blob.data)
    assert_clear(refusal(lambda: attack.put(spoiled)), errors.TensorMismatch, *parts)
    error = refusal(lambda: attack.offer(attack.checkpoint(Blob.of(spoiled))))
    assert_clear(error, errors.UnknownBlob, "send it first")


@pytest.mark.parametrize(
    ("value", "name"), [(math.nan, "NaN"), (math.inf, "an infinite value"), (-math.inf, "an infinite value")]
)
def test_weights_that_are_not_finite(attack: Attack, value: float, name: str) -> None:
    state = attack.state
    state["3.weight"][-1, -1] = value
    error = refusal(lambda: attack.put(attack.layout.pack(state).data))
    assert_clear(error, errors.NonFiniteValue, "tensor 3.weight", "finite values", name, "learning rate")


@pytest.mark.usefixtures("during")
def test_an_upload_that_outlives_its_round(line: PeerConnection) -> None:
    """The check of a blob cannot be waited out: what is not expected any more when it ends is not taken."""
    with agreed(line, "m-outlives", rounds=1) as attack:
        attack.begin()
        state = attack.state
        state["3.weight"][0, 0] = math.nan
        bad = attack.layout.pack(state)
        held, closed = threading.Event(), threading.Event()

        def pieces() -> Iterator[memoryview]:
            yield bad.data[:100]
            held.set()
            closed.wait(DEADLINE_S)
            yield bad.data[100:]

        found: list[ComityError] = []
        upload = threading.Thread(target=lambda: found.append(refusal(lambda: attack.put(bad.data, pieces=pieces()))))
        upload.start()
        try:
            assert held.wait(DEADLINE_S)
            attack.close()
            assert len(attack.watch()) == 6
        finally:
            closed.set()
            upload.join(DEADLINE_S)
        assert len(found) == 1, "the upload was taken"
        assert_clear(found[0], errors.UnexpectedBlob, bad.hex, "wait until it is asked for")
        stat = attack.connection._stat(blobs_pb2.BlobRef(digest=bad.digest), metadata=attack.connection._metadata)
        assert (stat.held, stat.complete) == (0, False)


def test_blobs_that_are_not_there_to_be_had(attack: Attack) -> None:
    own = attack.begin()

    def get(digest: bytes) -> object:
        request = blobs_pb2.BlobRequest(blob=blobs_pb2.BlobRef(digest=digest))
        return list(attack.connection._get(request, metadata=attack.connection._metadata, timeout=QUICK.call_s))

    # What came is not what may leave.
    assert_clear(refusal(lambda: get(own.digest)), errors.UnknownBlob, own.hex)
    assert_clear(refusal(lambda: get(bytes(32))), errors.UnknownBlob, "00" * 32)
    assert_clear(refusal(lambda: get(b"short")), errors.MalformedMessage, "32 bytes", "5 bytes")
