"""A session's blobs: only what is expected comes in, whole and verified; only what was published goes out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.blobs.incoming import Incoming
from comity.blobs.session_blobs import Expectation, SessionBlobs
from comity.errors import (
    BlobCorrupted,
    BlobSizeMismatch,
    BlobTruncated,
    NonFiniteValue,
    StorageFailed,
    TooManyCalls,
    UnexpectedBlob,
    UnknownBlob,
)
from comity.ledger.ledger import WHOLE, Units, in_round
from comity.tensors import Blob

SIZE = 8


def blob(number: int = 0) -> Blob:
    return Blob.of(bytes([number]) * SIZE)


def accept(blob: Blob) -> None:
    """Takes anything."""


def refuse(blob: Blob) -> None:
    raise NonFiniteValue("tensor w is not finite")


@pytest.fixture
def blobs() -> SessionBlobs:
    """The blobs of a session that waits for two checkpoints in round 1."""
    blobs = SessionBlobs()
    blobs.expect(Expectation("checkpoint", in_round(1), SIZE, 2, accept))
    return blobs


def begin(blobs: SessionBlobs, blob: Blob, offset: int = 0) -> Incoming:
    return blobs.receive("checkpoint", in_round(1), blob.digest, blob.size, offset)


def upload(blobs: SessionBlobs, blob: Blob) -> Blob:
    incoming = begin(blobs, blob)
    incoming.write(blob.data)
    return blobs.complete(incoming, accept)


@given(st.binary(max_size=60), st.data())
def test_incoming_bytes_become_the_announced_blob(data: bytes, cuts: st.DataObject) -> None:
    whole = Blob.of(data)
    incoming = Incoming(whole.digest, whole.size)
    while incoming.held < whole.size:
        end = cuts.draw(st.integers(incoming.held + 1, whole.size))
        incoming.write(whole.data[incoming.held : end])
        assert incoming.held == end
    assert incoming.finish() == whole


def test_bytes_past_the_announced_length_are_refused_and_change_nothing() -> None:
    whole = blob()
    incoming = Incoming(whole.digest, SIZE)
    incoming.write(whole.data[:5])
    with pytest.raises(BlobSizeMismatch, match="expected 8 bytes, received 9 or more"):
        incoming.write(bytes(4))
    incoming.write(whole.data[5:])
    assert incoming.finish() == whole


def test_a_blob_that_ends_early_keeps_what_came() -> None:
    whole = blob()
    incoming = Incoming(whole.digest, SIZE)
    incoming.write(whole.data[:5])
    with pytest.raises(BlobTruncated, match="expected 8 bytes, received 5 bytes"):
        incoming.finish()
    incoming.write(whole.data[5:])
    assert incoming.finish() == whole


def test_a_blob_with_other_bytes_begins_anew() -> None:
    whole = blob()
    incoming = Incoming(whole.digest, SIZE)
    incoming.write(bytes(7) + b"x")
    with pytest.raises(BlobCorrupted, match=f"expected {whole.hex}"):
        incoming.finish()
    assert incoming.held == 0
    incoming.write(whole.data)
    assert incoming.finish() == whole


def test_an_upload_goes_on_where_it_was_cut(blobs: SessionBlobs) -> None:
    whole = blob()
    assert blobs.held(whole.digest) == (0, False, b"")
    incoming = begin(blobs, whole)
    incoming.write(whole.data[:5])
    blobs.put_back(incoming)
    assert blobs.held(whole.digest) == (5, False, b"")
    assert whole.digest not in blobs
    incoming = begin(blobs, whole, offset=5)
    incoming.write(whole.data[5:])
    assert blobs.complete(incoming, accept) == whole
    assert blobs.held(whole.digest) == (SIZE, True, b"")
    assert blobs.get(whole.digest) == whole


@pytest.mark.parametrize("offset", [0, 4, 6, 8])
def test_an_upload_from_another_offset_is_refused(blobs: SessionBlobs, offset: int) -> None:
    whole = blob()
    incoming = begin(blobs, whole)
    incoming.write(whole.data[:5])
    blobs.put_back(incoming)
    with pytest.raises(BlobTruncated, match=f"expected offset 5, received offset {offset}"):
        begin(blobs, whole, offset)
    assert blobs.held(whole.digest) == (5, False, b"")


def test_two_uploads_of_one_blob_do_not_share_a_buffer(blobs: SessionBlobs) -> None:
    whole = blob()
    first, second = begin(blobs, whole), begin(blobs, whole)
    first.write(b"garbage!")
    second.write(whole.data)
    assert blobs.complete(second, accept) == whole
    with pytest.raises(BlobCorrupted):
        blobs.complete(first, accept)
    assert bytes(blobs.get(whole.digest).data) == bytes(whole.data)


@pytest.mark.parametrize(("kind", "round"), [("checkpoint", 0), ("checkpoint", 2), ("loss", 1), ("update", 1)])
def test_another_kind_or_round_is_refused(blobs: SessionBlobs, kind: str, round: int) -> None:
    whole = blob()
    with pytest.raises(UnexpectedBlob, match=f"expected checkpoint of round 1, received {kind} of {in_round(round)}"):
        blobs.receive(kind, in_round(round), whole.digest, SIZE, 0)  # type: ignore[arg-type]
    assert upload(blobs, whole) == whole


def test_nothing_comes_in_when_nothing_is_expected(blobs: SessionBlobs) -> None:
    blobs.expect()
    for each in (blobs, SessionBlobs()):
        with pytest.raises(UnexpectedBlob, match="no upload now"):
            begin(each, blob())


@pytest.mark.parametrize("size", [0, SIZE - 1, SIZE + 1, 2**62])
def test_another_size_is_refused_before_anything_is_allocated(blobs: SessionBlobs, size: int) -> None:
    with pytest.raises(BlobSizeMismatch, match=f"expected 8 bytes, received {size} bytes"):
        blobs.receive("checkpoint", in_round(1), blob().digest, size, 0)


def test_no_more_come_in_than_expected(blobs: SessionBlobs) -> None:
    upload(blobs, blob(1))
    begin(blobs, blob(2))
    with pytest.raises(UnexpectedBlob, match="at most 2"):
        begin(blobs, blob(3))
    # One that counts already may come again.
    assert upload(blobs, blob(1)) == blob(1)
    assert upload(blobs, blob(2)) == blob(2)


def test_a_blob_that_is_refused_does_not_count(blobs: SessionBlobs) -> None:
    for number in range(5):
        incoming = begin(blobs, blob(number))
        incoming.write(b"garbage!")
        with pytest.raises(BlobCorrupted):
            blobs.complete(incoming, accept)
        assert blob(number).digest not in blobs
    assert upload(blobs, blob(5)) == blob(5)


def test_what_the_expectation_refuses_is_not_kept() -> None:
    blobs = SessionBlobs()
    blobs.expect(Expectation("checkpoint", in_round(1), SIZE, 1, refuse))
    with pytest.raises(NonFiniteValue):
        upload(blobs, blob())
    assert blob().digest not in blobs
    with pytest.raises(UnknownBlob):
        blobs.get(blob().digest)
    assert blobs.held(blob().digest) == (0, False, b"")


def test_a_truncated_upload_is_kept_by_complete(blobs: SessionBlobs) -> None:
    incoming = begin(blobs, blob())
    incoming.write(blob().data[:3])
    with pytest.raises(BlobTruncated):
        blobs.complete(incoming, accept)
    assert blobs.held(blob().digest) == (3, False, b"")


@pytest.mark.parametrize("following", [[], [Expectation("checkpoint", in_round(2), SIZE, 2, accept)]])
def test_an_upload_that_outlasts_its_round_is_dropped(blobs: SessionBlobs, following: list[Expectation]) -> None:
    # Otherwise a peer could end the round meanwhile, and slip in what nobody verifies.
    cut, late = begin(blobs, blob(1)), begin(blobs, blob(2))
    cut.write(blob(1).data[:3])
    late.write(blob(2).data)
    blobs.expect(*following)
    blobs.put_back(cut)
    assert blobs.held(blob(1).digest) == (0, False, b"")
    with pytest.raises(UnexpectedBlob):
        blobs.complete(late, accept)
    assert blob(2).digest not in blobs


def test_only_published_blobs_can_be_asked_for(blobs: SessionBlobs) -> None:
    came, added, made = upload(blobs, blob(1)), blob(2), blob(3)
    blobs.add(added)
    blobs.publish(blobs.add(made).digest, "checkpoint", in_round(1))
    assert blobs.published(made.digest) == (made, "checkpoint", in_round(1))
    for hidden in (came, added, blob(4)):
        with pytest.raises(UnknownBlob, match=hidden.hex):
            blobs.published(hidden.digest)
    assert all(each.digest in blobs for each in (came, added, made))


def test_keep_drops_everything_else(blobs: SessionBlobs) -> None:
    for number in (1, 2):
        blobs.publish(blobs.add(blob(number)).digest, "checkpoint", in_round(1))
    blobs.keep({blob(2).digest})
    assert blob(1).digest not in blobs
    for find in (blobs.get, blobs.published):
        with pytest.raises(UnknownBlob):
            find(blob(1).digest)
    assert blobs.published(blob(2).digest)[0] == blob(2)


def test_no_session_sees_anothers_blobs(blobs: SessionBlobs) -> None:
    blobs.publish(blobs.add(blob()).digest, "checkpoint", in_round(1))
    other = SessionBlobs()
    assert other.held(blob().digest) == (0, False, b"")
    for find in (other.get, other.published):
        with pytest.raises(UnknownBlob):
            find(blob().digest)


def test_a_blob_is_kept_only_after_it_was_recorded(blobs: SessionBlobs) -> None:
    def full_disk(blob: Blob) -> None:
        assert blob.digest not in blobs
        raise StorageFailed("the ledger cannot be written")

    incoming = begin(blobs, blob())
    incoming.write(blob().data)
    with pytest.raises(StorageFailed):
        blobs.complete(incoming, full_disk)
    assert blob().digest not in blobs
    assert upload(blobs, blob()) == blob()


def test_what_is_settled_need_not_come_again(blobs: SessionBlobs) -> None:
    blobs.settle(blob().digest)
    assert blobs.held(blob().digest) == (0, True, b"")
    assert blob().digest not in blobs
    blobs.unsettle()
    assert blobs.held(blob().digest) == (0, False, b"")


def test_blobs_of_several_kinds_may_come(blobs: SessionBlobs) -> None:
    """Each by its own measure: a model of the session as a whole, and what goes along with requests."""
    checked: list[Blob] = []
    queries = Units("request", 101, 100)
    blobs.expect(
        Expectation("model", WHOLE, SIZE, 1, accept), Expectation("features", queries, SIZE + 1, 2, checked.append)
    )
    whole, other = blob(1), Blob.of(bytearray(SIZE + 1))
    for kind, units, sent in (("model", WHOLE, whole), ("features", Units("request", 140, 5), other)):
        incoming = blobs.receive(kind, units, sent.digest, sent.size, 0)
        incoming.write(sent.data)
        blobs.complete(incoming, accept)
    assert checked == [other]
    for kind, units in (("features", WHOLE), ("model", queries), ("features", Units("request", 199, 3))):
        with pytest.raises(UnexpectedBlob, match="model of the session, or features of requests 101 to 200"):
            blobs.receive(kind, units, blob(2).digest, SIZE, 0)
    with pytest.raises(BlobSizeMismatch):
        blobs.receive("features", queries, blob(2).digest, SIZE, 0)
    # One model is all there may be, however many others may come.
    with pytest.raises(UnexpectedBlob, match="too many blobs: model of the session"):
        blobs.receive("model", WHOLE, blob(3).digest, SIZE, 0)


def test_of_half_uploads_the_oldest_go_when_there_are_too_many() -> None:
    blobs = SessionBlobs(half_uploads=3)
    blobs.expect(Expectation("checkpoint", in_round(1), SIZE, 100, accept))
    for number in range(10):
        incoming = begin(blobs, blob(number))
        incoming.write(b"\0" * 4)
        blobs.put_back(incoming)
        del incoming
    assert [number for number in range(10) if blobs.held(blob(number).digest).size] == [7, 8, 9]


def test_half_an_upload_does_not_wait_for_ever() -> None:
    blobs = SessionBlobs()
    blobs.expect(Expectation("checkpoint", in_round(1), SIZE, 100, accept))
    for number in range(2):
        incoming = begin(blobs, blob(number))
        incoming.write(b"\0" * 4)
        blobs.put_back(incoming)
    on_its_way = begin(blobs, blob(2))
    blobs.drop_half_uploads(60.0)
    assert [blobs.held(blob(number).digest).size for number in range(2)] == [4, 4]
    blobs.drop_half_uploads(0.0)
    assert [blobs.held(blob(number).digest).size for number in range(2)] == [0, 0]
    # Whose caller is there is no half upload.
    blobs.put_back(on_its_way)
    assert blobs.held(blob(2).digest).size == 0
    blobs.drop_half_uploads(60.0)
    begin(blobs, blob(2))


def test_only_so_many_uploads_are_on_their_way() -> None:
    blobs = SessionBlobs(half_uploads=3)
    blobs.expect(Expectation("checkpoint", in_round(1), SIZE, 100, accept))
    on_the_way = [begin(blobs, blob(number)) for number in range(3)]
    with pytest.raises(TooManyCalls):
        begin(blobs, blob(3))
    del on_the_way[0]
    begin(blobs, blob(3))
