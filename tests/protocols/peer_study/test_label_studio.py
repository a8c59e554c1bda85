"""Label Studio's own SDK reads what is written for it, and what it writes is read."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from comity.errors import InvalidValue
from comity.protocols.peer_study.annotation.masks import encoded, pixels
from comity.protocols.peer_study.choices import IGNORED
from comity.protocols.peer_study.verbs import brush, label_studio
from comity.protocols.peer_study.verbs.labels import Sample, Task
from tests.protocols.peer_study import street
from tests.protocols.peer_study.test_sheets import CLASSES, task

_SDK = Path(__file__).with_name("label_studio_sdk_reads.py")
_PAINTS = Path(__file__).with_name("label_studio_sdk_paints.py")


@pytest.fixture(scope="session")
def with_sdk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has Label Studio's SDK."""
    if shutil.which("uv") is None:
        pytest.skip("uv makes the environment of Label Studio's SDK")
    folder = tmp_path_factory.mktemp("label-studio")
    subprocess.run(["uv", "venv", "--quiet", "--python", "3.11", str(folder / "v")], check=True)
    python = folder / "v" / "bin" / "python"
    installing = ["uv", "pip", "install", "--quiet", "--python", str(python), "label-studio-sdk==2.1.2"]
    if subprocess.run(installing, check=False).returncode:
        pytest.skip("label-studio-sdk cannot be installed here")
    return python


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["image", "text", "table"])
def test_the_sdk_reads_our_tasks_and_we_read_its_annotations(with_sdk: Path, tmp_path: Path, kind: str) -> None:
    written = task(kind, guess=(1, 0.75))
    label_studio.write(written, tmp_path)
    truth = dict(zip((each.name for each in written.samples), ("cat", None, "Sea, lion"), strict=True))
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    done = subprocess.run([str(with_sdk), str(_SDK), str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = label_studio.read(tmp_path / "exported.json", CLASSES)
    (named,) = said.values()
    assert [each.get("label") for each in named] == [0, None, 2]
    assert [each["digest"] for each in named] == [each.digest for each in written.samples]


def painted(folder: Path) -> dict[str, NDArray[np.uint8]]:
    """Three pictures of scenes, written as tasks with the masks that a model takes them for; returns the masks."""
    pictures, masks = street.scenes(0, 3)
    truth = {f"s-{at}": mask for at, mask in enumerate(masks)}
    truth["s-1"][:2] = IGNORED
    samples = tuple(
        Sample(name, f"d-{name}", pictures[at].tobytes(), guess=(encoded(mask), 0.5))
        for at, (name, mask) in enumerate(truth.items())
    )
    label_studio.write(Task("s", 1, "image", CLASSES, (), "", samples, (street.SIZE, street.SIZE)), folder)
    return truth


def read(file: Path) -> list[dict[str, Any]]:
    (said,) = label_studio.read(file, CLASSES, "zoe", mask_size=(street.SIZE, street.SIZE)).values()
    return [{**each} for each in said]


@pytest.mark.slow
def test_the_sdk_reads_masks_that_we_paint_and_we_read_those_that_it_paints(with_sdk: Path, tmp_path: Path) -> None:
    truth = painted(tmp_path)
    np.savez(tmp_path / "truth.npz", **truth)
    done = subprocess.run([str(with_sdk), str(_PAINTS), str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = read(tmp_path / "exported.json")
    assert [each["sample"] for each in said] == [*truth]
    assert all(np.array_equal(pixels(each["label"]), truth[each["sample"]]) for each in said)


def annotated(folder: Path, change: Callable[[list[Any]], object] = lambda results: None) -> Path:
    """The tasks with their predictions as annotations; with the results of the first as a test has them."""
    tasks = json.loads((folder / label_studio.TASKS).read_text())
    for each in tasks:
        each["annotations"] = [{"result": each.pop("predictions")[0]["result"], "completed_by": 1}]
    change(tasks[0]["annotations"][0]["result"])
    (folder / "changed.json").write_text(json.dumps(tasks))
    return folder / "changed.json"


def test_painted_masks_come_back_and_what_is_painted_last_is_above(tmp_path: Path) -> None:
    truth = painted(tmp_path)
    said = read(annotated(tmp_path))
    assert all(np.array_equal(pixels(each["label"]), truth[each["sample"]]) for each in said)
    everywhere = brush.encode(np.ones((street.SIZE, street.SIZE), dtype=np.bool_))

    def cover(results: list[Any]) -> None:
        results.append(results[0] | {"value": {"format": "rle", "rle": everywhere, "brushlabels": [CLASSES[2]]}})

    assert bool((pixels(read(annotated(tmp_path, cover))[0]["label"]) == 2).all())


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"original_width": 3}, "pixels, not turned"),
        ({"image_rotation": 90}, "turned by 90"),
        ({"value": {"choices": ["cat"]}}, "one class under brushlabels"),
        ({"value": {"rle": 10**12, "brushlabels": ["cat"]}}, "one class under brushlabels"),
        ({"value": {"rle": [0, 0, 0, 1], "brushlabels": ["cat"]}}, "1 numbers for the"),
        ({"value": {"rle": [0, 0], "brushlabels": ["cat"]}}, "end before"),
        ({"value": {"rle": [300], "brushlabels": ["cat"]}}, "range"),
        ({"value": {"rle": brush.encode(np.zeros((16, 16), dtype=np.bool_)), "brushlabels": ["cow"]}}, "no class"),
    ],
)
def test_what_is_no_painted_mask_is_told_in_a_line(tmp_path: Path, change: dict[str, Any], line: str) -> None:
    painted(tmp_path)
    with pytest.raises(InvalidValue, match=line):
        read(annotated(tmp_path, lambda results: results[0].update(change)))


@settings(max_examples=60)
@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_runs_say_what_was_painted(mask: NDArray[np.bool_]) -> None:
    assert np.array_equal(brush.decode(brush.encode(mask), mask.shape), mask)  # type: ignore[arg-type]


def test_long_runs_are_several() -> None:
    mask = np.ones((300, 400), dtype=np.bool_)
    assert np.array_equal(brush.decode(brush.encode(mask), (300, 400)), mask)


@settings(max_examples=200)
@given(st.lists(st.integers(0, 255), max_size=40))
def test_any_bytes_are_a_mask_or_none(data: list[int]) -> None:
    with suppress(ValueError):
        assert brush.decode([0, 0, 0, 16, *data], (2, 2)).shape == (2, 2)
