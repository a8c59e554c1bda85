"""What counts of what people say, how far they agree, and how samples are shown to them."""

from __future__ import annotations

import json
from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import cohen_kappa_score

from comity.contract import Json
from comity.data import Dataset
from comity.data.meaning import Meaning
from comity.errors import DataChanged, InvalidValue, RoundOutOfOrder
from comity.protocols.peer_study.annotation.annotation_calls import AnnotationCalls
from comity.protocols.peer_study.annotation.annotation_queue import AnnotationBatch, AnnotationQueue
from comity.protocols.peer_study.annotation.annotations import Annotation
from comity.protocols.peer_study.annotation.question import Question
from comity.protocols.peer_study.annotation.rules import Settled, agreement, settled
from comity.protocols.peer_study.annotation.views import digest_of, view
from comity.protocols.peer_study.annotators import People, Selected
from comity.protocols.peer_study.choices import Difference
from comity.protocols.peer_study.client_pool import ClientPool
from comity.protocols.peer_study.uploading.consents import Consents
from comity.protocols.peer_study.verbs.labels import Labels
from comity.session.waiting import Waits
from comity.store.journal import Journal
from comity.store.memory_store import MemoryStore
from comity.store.store import StoredSession


def said(*labels: int | None) -> list[Annotation]:
    return [Annotation("a", f"annotator {number}", label, is_final=True) for number, label in enumerate(labels)]


@pytest.mark.parametrize(
    ("labels", "annotators", "rule", "counts"),
    [
        ((), 1, "leave_out", None),
        ((3,), 1, "leave_out", Settled(3)),
        ((3,), 2, "leave_out", None),
        ((3, 3), 2, "leave_out", Settled(3)),
        ((3, 4), 2, "leave_out", Settled(None)),
        ((3, 4), 2, "first", Settled(3)),
        ((None, 4, 3), 3, "first", Settled(4)),
        ((3, 4), 2, "majority", None),
        ((3, 4, 4), 2, "majority", Settled(4)),
        ((3, 4, 5), 2, "majority", None),
        ((None, None), 2, "majority", Settled(None)),
        ((None, 4), 2, "leave_out", Settled(4)),
    ],
)
def test_what_counts(labels: tuple[int | None, ...], annotators: int, rule: Difference, counts: Settled | None) -> None:
    assert settled(said(*labels), annotators, rule) == counts


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_agreement_is_cohens_kappa(pairs: list[tuple[int, int]]) -> None:
    both = {
        str(number): [Annotation(str(number), name, label) for name, label in zip(("ann", "bob"), pair, strict=True)]
        for number, pair in enumerate(pairs)
    }
    (found,) = agreement(both)
    mine, theirs = zip(*pairs, strict=True)
    assert found["samples"] == len(pairs)
    assert found["same"] == pytest.approx(np.mean(np.equal(mine, theirs)))
    if len({*mine, *theirs}) == 1:
        assert found["kappa"] is None
    else:
        assert found["kappa"] == pytest.approx(cohen_kappa_score(mine, theirs))


def test_who_labelled_nothing_in_common_agrees_with_nobody() -> None:
    assert agreement({"a": said(3), "b": []}) == []
    assert agreement({"a": [Annotation("a", "ann", None), Annotation("a", "bob", 3)]}) == []


def images(count: int = 6) -> Dataset:
    pixels = torch.arange(count * 12, dtype=torch.uint8).reshape(count, 1, 3, 4)
    return Dataset(pixels, torch.arange(count) % 3, 1 / 255, 3)


def test_pictures_are_shown_as_they_are_stored() -> None:
    data = images()
    shown = view(data, 2)
    with Image.open(BytesIO(shown.data)) as opened:
        assert opened.format == "PNG"
        assert np.array_equal(np.asarray(opened), data.inputs[2, 0].numpy())
    colours = torch.rand(2, 3, 4, 5)
    with Image.open(BytesIO(view(Dataset(colours, torch.zeros(2, dtype=torch.int64), 1.0, 2), 1).data)) as opened:
        assert opened.mode == "RGB"
        assert np.abs(np.asarray(opened) / 255 - colours[1].permute(1, 2, 0).numpy()).max() <= 1 / 255
    beyond = Dataset(torch.randn(1, 1, 4, 5) * 9, torch.zeros(1, dtype=torch.int64), 1.0, 2)
    with Image.open(BytesIO(view(beyond, 0).data)) as opened:
        assert (np.asarray(opened).min(), np.asarray(opened).max()) == (0, 255)


def test_rows_are_numbers_and_texts_are_text() -> None:
    rows = Dataset(
        torch.tensor([[1.5, 2.0], [3.0, 4.0]]), torch.tensor([0, 1]), 1.0, 2, meaning=Meaning(features=("x", "y"))
    )
    assert view(rows, 1).row == (3.0, 4.0)
    texts = Dataset(torch.ones(2, 4), torch.tensor([0, 1]), 1.0, 2, texts=("na\u00efve", "b"))
    assert view(texts, 0).data.decode() == "na\u00efve"
    assert texts.select(torch.tensor([1])).texts == ("b",)


class Opened:
    """A queue where four samples are to be labelled."""

    def __init__(self, annotators: int = 1, rule: Difference = "leave_out") -> None:
        self.store = MemoryStore()
        self.store.save(StoredSession("s", {}, {}))
        self.data = images()
        self.pool = ClientPool(
            self.data.select(torch.tensor([], dtype=torch.int64)), self.data, ((), ()), torch.device("cpu")
        )
        self.question = Question("s", ("cat", "dog", "cow"), "", annotators, rule)
        self.queue = self.again()

    def again(self) -> AnnotationQueue:
        """The queue after a restart."""
        queue = AnnotationQueue(self.question, self.pool, Journal(self.store, "s"))
        for record in self.store.records("s"):
            queue.replay(record.fields)
        places = {str(each): each for each in (4, 1, 3, 0)}
        queue.ask(
            AnnotationBatch(0, 1, places, {sample: digest_of(self.data, place) for sample, place in places.items()})
        )
        return queue

    @property
    def calls(self) -> AnnotationCalls:
        """What answers operators."""
        return AnnotationCalls(self.queue, lambda places: [(each % 3, 0.5) for each in places])

    def say(self, annotator: str, *, is_final: bool = True, **labels: int | None) -> dict:
        said = [
            {"sample": name[1:], "label": label} if label is not None else {"sample": name[1:], "skipped": True}
            for name, label in labels.items()
        ]
        fields = {"annotator": annotator, "said": said, "is_final": is_final}
        return self.answer("labels.say", **fields)

    def answer(self, call: str, **fields: object) -> dict:
        """What an operator is answered, but for the version."""
        answered = dict(self.calls.operated(call, fields).fields)
        assert answered.pop("version") == self.queue.version
        return answered


def test_two_annotators_and_a_third_where_they_differ() -> None:
    opened = Opened(2, "majority")
    assert opened.say("ann", s4=0, s1=1, s3=2, s0=0)["left"] == 4
    assert opened.say("bob", s4=0, s1=2, s3=None, s0=0)["left"] == 1
    with pytest.raises(InvalidValue, match="needs no more labels"):
        opened.say("eve", s4=0)
    (found,) = opened.queue.agreement
    assert (found["annotators"], found["samples"], found["same"]) == (["ann", "bob"], 3, 2 / 3)
    assert not opened.queue.ready.is_set()
    assert opened.say("eve", s1=2)["left"] == 0
    assert opened.queue.ready.is_set()
    assert opened.queue.close() == {"4": 0, "1": 2, "3": 2, "0": 0}


def test_what_is_not_handed_in_may_be_changed_and_taken_back_and_is_there_after_a_restart() -> None:
    opened = Opened()
    opened.say("ann", is_final=False, s4=0, s1=1)
    opened.say("ann", is_final=False, s4=2)
    assert opened.calls.operated("labels.take_back", {"annotator": "ann", "sample": "1"}).fields["taken_back"]
    opened.queue = opened.again()
    assert opened.queue.left() == 4
    assert opened.queue.history == []
    assert opened.answer("labels.hand_in", annotator="ann") == {"handed_in": 1, "left": 3}
    with pytest.raises(InvalidValue, match="has handed in a label of sample 4 before: expected the same, cow"):
        opened.say("ann", s4=1)
    assert opened.say("ann", s4=2) == {"taken": 0, "known": 1, "left": 3}
    with pytest.raises(InvalidValue, match="handed in"):
        opened.calls.operated("labels.take_back", {"annotator": "ann", "sample": "4"})
    assert [(each["sample"], each["annotator"], each["label"]) for each in opened.queue.history] == [("4", "ann", 2)]


def test_a_pool_that_changed_since_is_told() -> None:
    opened = Opened()
    opened.data.inputs[1] += 1
    for call, fields in (
        ("labels.sample", {"sample": "1"}),
        ("labels.say", {"annotator": "a", "said": [{"sample": "1", "label": 0}]}),
    ):
        with pytest.raises(DataChanged, match="sample 1 is not the one"):
            opened.calls.operated(call, fields)
    assert opened.calls.operated("labels.sample", {"sample": "4"}).data.startswith(b"\x89PNG")


def test_guesses_and_calls_that_are_none() -> None:
    opened = Opened()
    guesses = opened.calls.operated("labels.guesses", {}).fields["guesses"]
    assert guesses[0] == {"sample": "4", "label": 1, "score": 0.5}
    with pytest.raises(InvalidValue, match="no such call"):
        opened.calls.operated("labels.else", {})
    with pytest.raises(InvalidValue, match="cannot be read"):
        opened.calls.operated("labels.say", {"annotator": "a", "said": "b"})
    with pytest.raises(InvalidValue, match="unsure as true or false"):
        opened.calls.operated(
            "labels.say", {"annotator": "a", "said": [{"sample": "4", "label": 1, "comment": "x" * 2001}]}
        )
    opened.say("a", s4=1, s1=None, s3=None, s0=None)
    opened.queue.close()
    with pytest.raises(InvalidValue, match="nothing is to be labelled"):
        opened.calls.operated("labels.sample", {"sample": "4"})


def test_the_server_is_told_as_long_as_people_label_and_a_round_that_ended_without_them_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("comity.protocols.peer_study.annotators._STILL_HERE_S", 0.001)
    opened = Opened()
    waits = Waits(opened.store, "s")
    people = People(opened.pool, opened.queue, waits)
    indices = torch.tensor([4, 1])
    selected = Selected(1, 3, indices, people.digests(indices))
    told: list[str] = []

    def tell() -> None:
        kept = opened.store.find("s")
        assert kept is not None
        told.append(kept.state)
        if len(told) == 3:
            raise RoundOutOfOrder("the round is over")

    with pytest.raises(RoundOutOfOrder):
        people.label(selected, tell)
    # It begins to wait when the server knows.
    assert told == ["active", "waiting", "waiting"]
    kept = opened.store.find("s")
    assert kept is not None
    assert kept.waits == ()
    # Nobody labels for a round that is over.
    with pytest.raises(InvalidValue, match="nothing is to be labelled now"):
        opened.say("ann", s4=2)

    def label() -> None:
        opened.say("ann", s4=2, s1=None)

    found = people.label(Selected(1, 4, indices, selected.digests), label)
    assert (found.indices.tolist(), found.labels.tolist()) == ([4], [2])
    assert [each["sample"] for each in people.summary()["annotations"]] == ["4", "1"]


def test_what_was_said_in_a_step_that_was_missed_counts_in_the_next() -> None:
    opened = Opened(2, "first")
    opened.say("ann", s4=0, s1=1)
    opened.say("bob", s4=2)
    opened.say("bob", is_final=False, s1=2)
    opened.queue.leave()
    with pytest.raises(InvalidValue, match="nothing is to be labelled now"):
        opened.say("bob", s1=2)

    def asked_again(queue: AnnotationQueue) -> AnnotationQueue:
        queue.leave()
        queue.ask(AnnotationBatch(1, 5, {"4": 4, "1": 1, "2": 2}))
        return queue

    opened.queue = asked_again(opened.again())
    assert opened.queue.left() == 2
    assert opened.answer("labels.hand_in", annotator="bob") == {"handed_in": 1, "left": 1}
    opened.queue = asked_again(opened.again())
    opened.say("bob", s2=1)
    opened.say("ann", s2=2)
    assert [(each["step"], each["sample"], each["annotator"]) for each in opened.queue.history] == [
        (0, "4", "ann"),
        (0, "4", "bob"),
        (0, "1", "ann"),
        (1, "1", "bob"),
        (1, "2", "bob"),
        (1, "2", "ann"),
    ]
    assert [each["samples"] for each in opened.queue.agreement] == [3]
    assert opened.queue.close() == {"4": 0, "1": 1, "2": 1}


class Control:
    """The way to what operators call, without a node between; counts the calls."""

    def __init__(self, answers: AnnotationCalls | Consents) -> None:
        self.answers = answers
        self.calls: list[str] = []

    def call(self, session: str, call: str, **fields: Json) -> tuple[dict[str, Json], bytes]:
        self.calls.append(call)
        # What a node takes in a message is 8 MiB.
        assert len(json.dumps(fields)) < 2**22
        answered = self.answers.operated(call, fields)
        said = json.dumps(answered.fields)
        assert len(said) < 2**22
        return json.loads(said), answered.data


def test_many_samples_come_by_pages_and_again_only_where_something_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Labels(Control(Opened().calls), "s").show()  # type: ignore[arg-type]
    monkeypatch.setattr("comity.protocols.peer_study.pages.PAGE_BYTES", 100)
    monkeypatch.setattr("comity.protocols.peer_study.annotation.annotation_calls._GUESSES_AT_ONCE", 3)
    opened = Opened()
    control = Control(opened.calls)
    labels = Labels(control, "s")  # type: ignore[arg-type]
    shown = labels.show()
    assert control.calls == ["labels.show", *["labels.samples"] * 4]
    assert shown["samples"] == whole["samples"]
    assert labels.show() == shown
    assert control.calls[5:] == ["labels.show"]
    opened.say("ann", s4=2, s1=1)
    assert [len(each["said"]) for each in labels.show()["samples"]] == [1, 1, 0, 0]
    assert [each["sample"] for each in labels.history()] == ["4", "1"]
    assert [each.guess for each in labels.task(guess=True).samples] == [(0, 0.5), (0, 0.5)]
    # A queue that is made anew, as by a restart, is not taken for the same.
    opened.queue = opened.again()
    control.answers = opened.calls
    calls = len(control.calls)
    assert [len(each["said"]) for each in labels.show()["samples"]] == [1, 1, 0, 0]
    assert len(control.calls) > calls + 1
    with pytest.raises(InvalidValue, match="no such page"):
        opened.calls.operated("labels.samples", {"begin": -1})


def test_labels_that_are_too_many_for_a_message_count_all_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comity.protocols.peer_study.pages.PAGE_BYTES", 50)
    opened = Opened()
    control = Control(opened.calls)
    labels = Labels(control, "s")  # type: ignore[arg-type]
    said = [{"sample": each, "label": 0} for each in ("4", "1", "3", "0")]
    with pytest.raises(InvalidValue, match="sample 4 has several labels of ann"):
        labels.say("ann", [*said, said[0]])
    with pytest.raises(InvalidValue, match="not to be labelled"):
        labels.say("ann", [*said, {"sample": "99", "label": 0}])
    assert (opened.queue.history, opened.queue.left()) == ([], 4)
    control.calls.clear()
    told = labels.say("ann", said)
    assert len(control.calls) > 2
    assert (told["taken"], told["known"], told["left"]) == (4, 0, 0)
    told = labels.say("ann", said[:1])
    assert (told["taken"], told["known"]) == (0, 1)


@pytest.mark.slow
def test_a_pool_of_fifty_thousand_is_labelled_and_shown_in_messages_that_a_node_takes() -> None:
    ids = tuple(f"{'scan-of-a-long-name-' * 3}{each:05d}" for each in range(50_000))
    rows = Dataset(torch.arange(50_000.0)[:, None], torch.zeros(50_000, dtype=torch.int64), 1.0, 2, ids=ids)
    pool = ClientPool(rows.select(torch.tensor([], dtype=torch.int64)), rows, ((), ()), torch.device("cpu"))
    store = MemoryStore()
    store.save(StoredSession("s", {}, {}))
    queue = AnnotationQueue(Question("s", ("cat", "dog"), "", 1, "leave_out"), pool, Journal(store, "s"))
    queue.ask(
        AnnotationBatch(
            0, 1, {each: at for at, each in enumerate(ids)}, {each: digest_of(rows, at) for at, each in enumerate(ids)}
        )
    )
    labels = Labels(Control(AnnotationCalls(queue, lambda places: [(0, 0.5)] * len(places))), "s")  # type: ignore[arg-type]
    assert len(labels.show()["samples"]) == 50_000
    assert len([each for page in labels._pages("labels.guesses") for each in page["guesses"]]) == 50_000
    told = labels.say("ann", [{"sample": each, "label": 1, "comment": "c" * 100} for each in ids])
    assert (told["taken"], told["left"]) == (50_000, 0)
    assert len(labels.history()) == 50_000


@pytest.mark.slow
def test_consents_of_fifty_thousand_samples_are_shown_and_decided_in_messages_that_a_node_takes() -> None:
    ids = [f"{'scan-of-a-long-name-' * 10}{each:05d}" for each in range(50_000)]
    store = MemoryStore()
    store.save(StoredSession("s", {}, {}))
    consents = Consents("s", Journal(store, "s"))
    consents.ask(1, dict.fromkeys(ids, "d" * 64))
    labels = Labels(Control(consents), "s")  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="nobody asks"):
        labels.decide("zoe", [*ids, "another"], is_given=True)
    assert labels.consents()["left"] == ids
    shown = labels.decide("zoe", ids[:40_000], is_given=True)
    assert shown["left"] == ids[40_000:]
    assert [each["sample"] for each in shown["decided"]] == ids[:40_000]
    with pytest.raises(InvalidValue, match="decided on before"):
        labels.decide("bea", ids[::-1], is_given=False)
    assert labels.consents() == shown
