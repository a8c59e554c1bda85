"""Masks that people make: what is exported is read as it was drawn, and what is no mask is told in a line."""

from __future__ import annotations

import base64
import csv
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from comity.data import Dataset
from comity.errors import InvalidValue, MissingFile
from comity.protocols.peer_study.annotation.annotation_calls import AnnotationCalls
from comity.protocols.peer_study.annotation.annotation_queue import AnnotationBatch, AnnotationQueue
from comity.protocols.peer_study.annotation.annotations import Annotation
from comity.protocols.peer_study.annotation.masks import encoded, indexed, pixels
from comity.protocols.peer_study.annotation.question import Question
from comity.protocols.peer_study.annotation.rules import Settled, agreement, settled
from comity.protocols.peer_study.annotation.views import digest_of
from comity.protocols.peer_study.annotators import People, Selected
from comity.protocols.peer_study.choices import IGNORED, Difference
from comity.protocols.peer_study.client_pool import ClientPool
from comity.protocols.peer_study.verbs import sheets
from comity.protocols.peer_study.verbs.labels import Sample, Task
from comity.session.waiting import Waits
from comity.store.journal import Journal
from comity.store.memory_store import MemoryStore
from comity.store.store import StoredSession
from tests.protocols.peer_study import street

CLASSES = ("sky", "road", "car")
SIZE = (street.SIZE, street.SIZE)
_, MASKS = street.scenes(0, 4)


def base64_of(image: Image.Image, form: str = "PNG") -> str:
    file = BytesIO()
    image.save(file, form)
    return base64.b64encode(file.getvalue()).decode()


def test_a_mask_is_indexed_png_and_comes_back_as_it_was() -> None:
    for mask in MASKS:
        with Image.open(BytesIO(indexed(mask))) as image:
            assert image.mode == "P"
            assert np.array_equal(np.array(image), mask)
        assert np.array_equal(pixels(encoded(mask)), mask)
    colours = np.asarray(Image.open(BytesIO(indexed(MASKS[0]))).convert("RGB")).reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) == len(np.unique(MASKS[0]))


class Opened:
    """A queue that asks for masks of four pictures."""

    def __init__(self) -> None:
        pictures, masks = street.scenes(0, 4)
        self.data = Dataset(torch.from_numpy(pictures), torch.from_numpy(masks), 1 / 255, 3, task="segmentation")
        self.pool = ClientPool(
            self.data.select(torch.tensor([], dtype=torch.int64)), self.data, ((), ()), torch.device("cpu")
        )
        self.store = MemoryStore()
        self.store.save(StoredSession("s", {}, {}))
        question = Question("s", CLASSES, "", 1, "first", SIZE)
        self.queue = AnnotationQueue(question, self.pool, Journal(self.store, "s"))
        self.calls = AnnotationCalls(self.queue, lambda places: [(encoded(MASKS[0]), 0.5) for _ in places])
        self.digests = {str(place): digest_of(self.data, place) for place in range(4)}
        self.queue.ask(AnnotationBatch(0, 1, {str(place): place for place in range(4)}, self.digests))

    def say(self, sample: str, label: object) -> None:
        said = [{"sample": sample, "label": label}]
        self.calls.operated("labels.say", {"annotator": "zoe", "said": said})


@pytest.mark.parametrize(
    ("label", "line"),
    [
        (1, "cannot be read"),
        ("not base64", "cannot be read"),
        (base64.b64encode(b"no picture").decode(), "cannot be read"),
        (base64_of(Image.new("L", SIZE), "JPEG"), "cannot be read"),
        (base64_of(Image.new("RGB", SIZE)), "mode RGB"),
        (base64_of(Image.new("L", (3, 4))), "4x3"),
        (base64_of(Image.new("L", SIZE, 255)), "says nothing"),
        (base64_of(Image.new("L", SIZE, 3)), "no class"),
        (encoded(MASKS[0])[:60], "cannot be read"),
    ],
)
def test_what_is_no_mask_is_told_in_a_line_and_does_not_count(label: object, line: str) -> None:
    opened = Opened()
    with pytest.raises(InvalidValue, match=line) as caught:
        opened.say("0", label)
    assert "\n" not in str(caught.value)
    assert opened.queue.left() == 4


def test_masks_count_as_they_were_drawn() -> None:
    opened = Opened()
    # However a program writes the same pixels.
    opened.say("0", base64_of(Image.fromarray(MASKS[0])))
    for place in (1, 2):
        opened.say(str(place), encoded(MASKS[place]))
    opened.calls.operated("labels.say", {"annotator": "zoe", "said": [{"sample": "3", "skipped": True}]})
    people = People(opened.pool, opened.queue, Waits(opened.store, "s", lambda event: None))
    found = people.label(Selected(0, 1, torch.arange(4), opened.digests), lambda: None)
    assert found.indices.tolist() == [0, 1, 2]
    assert found.labels.dtype == torch.uint8
    assert np.array_equal(found.labels.numpy(), MASKS[:3])


def test_two_who_draw_agree_by_pixels() -> None:
    other = MASKS[0].copy()
    other[0, :4] = 2
    (found,) = agreement({"a": [Annotation("a", "ann", encoded(MASKS[0])), Annotation("a", "bob", encoded(other))]})
    counted = int((MASKS[0] != 255).sum())
    assert (found["samples"], found["same"]) == (1, pytest.approx(1 - 4 / counted))
    assert 0 < found["kappa"] < 1  # type: ignore[operator]


@pytest.mark.parametrize(
    ("rule", "counts"),
    [("majority", [[0, 1], [IGNORED, 2]]), ("leave_out", [[0, IGNORED], [IGNORED, 2]]), ("first", [[0, 1], [0, 2]])],
)
def test_masks_that_differ_are_settled_by_pixel(rule: Difference, counts: list[list[int]]) -> None:
    drawn = ([[0, 1], [0, 2]], [[0, 1], [1, 2]], [[0, 0], [2, 2]])
    said = [
        Annotation("a", str(who), encoded(np.array(mask, np.uint8)), is_final=True) for who, mask in enumerate(drawn)
    ]
    found = settled(said, 3, rule)
    assert found is not None
    assert pixels(str(found.label)).tolist() == counts


def test_masks_of_which_no_pixel_counts_are_left_out() -> None:
    drawn = np.zeros((2, 2), np.uint8), np.ones((2, 2), np.uint8)
    said = [Annotation("a", str(who), encoded(mask), is_final=True) for who, mask in enumerate(drawn)]
    assert settled(said, 2, "majority") == Settled(None)


@pytest.mark.parametrize("guessed", [False, True])
def test_masks_are_drawn_on_files_and_read_from_them(tmp_path: Path, *, guessed: bool) -> None:
    picture = BytesIO()
    Image.new("RGB", SIZE).save(picture, "PNG")
    guess = (encoded(MASKS[0]), 0.75) if guessed else None
    samples = tuple(Sample(name, name * 3, picture.getvalue(), guess=guess) for name in ("a", "b"))
    sheets.write(Task("s", 0, "image", CLASSES, (), "", samples, SIZE), tmp_path)
    with (tmp_path / sheets.FILE).open(encoding="utf-8-sig", newline="") as file:
        rows = [*csv.DictReader(file)]
    drawn = tmp_path / rows[0]["mask"]
    with Image.open(drawn) as image:
        assert image.mode == "P"
        assert np.array_equal(np.array(image), MASKS[0] if guessed else np.full(SIZE, 255))
    drawn.write_bytes(indexed(MASKS[1]))
    rows[0]["label"], rows[1]["skip"] = rows[0]["mask"], "yes"
    with (tmp_path / sheets.FILE).open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)
    one, two = sheets.read(tmp_path / sheets.FILE, CLASSES, masks=True)
    assert np.array_equal(pixels(str(one["label"])), MASKS[1])
    assert two["skipped"] is True
    drawn.unlink()
    with pytest.raises(MissingFile, match="line 2 names a mask"):
        sheets.read(tmp_path / sheets.FILE, CLASSES, masks=True)
