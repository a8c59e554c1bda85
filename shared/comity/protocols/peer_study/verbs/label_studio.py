"""Label Studio's task files: what is to be labelled, with what the model takes it for; and what people said there."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from comity.contract import Json
from comity.data.texts import read_text
from comity.errors import InvalidValue
from comity.protocols.peer_study.annotation.masks import Pixels, encoded, pixels
from comity.protocols.peer_study.choices import IGNORED
from comity.protocols.peer_study.verbs.brush import decode, encode
from comity.protocols.peer_study.verbs.labels import Sample, Task, class_number
from comity.protocols.peer_study.verbs.sheets import written

TASKS, CONFIG = "tasks.json", "labelling.xml"
_LABEL, _UNSURE, _COMMENT, _SAMPLE, _DIGEST = "label", "unsure", "comment", "comity_sample", "comity_digest"
_OBJECTS = {"image": ("Image", "image"), "text": ("Text", "text"), "table": ("Table", "row")}
"""The tag that shows a sample, and the field of a task that it shows, by kind."""
_BRUSH, _PAINTED = "BrushLabels", "brushlabels"
"""The tag with which masks are painted, and what its results are called."""
_KEYS = "1234567890abcdefghijklmnopqrstuvwxyz"


def write(task: Task, folder: Path) -> list[Path]:
    """Writes what is to be labelled: `tasks.json` to import into a project, and `labelling.xml`, its labelling interface.

    Pictures are in the file. Where the model was asked, its guesses go along as predictions. Returns the files.

    Raises:
        StorageFailed: They cannot be written.
    """
    tasks = json.dumps([_task(task, each) for each in task.samples], indent=1)
    return written(folder, {CONFIG: config(task).encode(), TASKS: tasks.encode()})


def config(task: Task) -> str:
    """The labelling interface of a project."""
    tag, shown = _OBJECTS[task.kind]
    choice = "Choice" if task.mask_size is None else "Label"
    choices = "\n".join(
        f"    <{choice} value={quoteattr(name)}" + (f' hotkey="{_KEYS[at]}"' if at < len(_KEYS) else "") + "/>"
        for at, name in enumerate(task.classes)
    )
    asked, of = ("Choices", ' choice="single" required="true"') if task.mask_size is None else (_BRUSH, "")
    guidelines = f"  <Header value={quoteattr(task.guidelines)}/>\n" if task.guidelines else ""
    return f"""<View>
{guidelines}  <{tag} name="sample" value="${shown}"/>
  <{asked} name="{_LABEL}" toName="sample"{of}>
{choices}
  </{asked}>
  <Choices name="{_UNSURE}" toName="sample" choice="multiple">
    <Choice value="{_UNSURE}"/>
  </Choices>
  <TextArea name="{_COMMENT}" toName="sample" maxSubmissions="1"/>
</View>
"""


def _task(task: Task, sample: Sample) -> dict[str, Any]:
    _, shown = _OBJECTS[task.kind]
    value: Any
    if task.kind == "image":
        value = f"data:image/png;base64,{base64.b64encode(sample.data).decode()}"
    elif task.kind == "text":
        value = sample.data.decode()
    else:
        value = dict(zip(task.columns, sample.row, strict=True))
    found: dict[str, Any] = {"data": {shown: value, _SAMPLE: sample.name, _DIGEST: sample.digest}}
    if sample.guess is not None:
        label, score = sample.guess
        if isinstance(label, str):
            result = _painted(pixels(label), task.classes)
        else:
            result = [_chosen("choices", {"choices": [task.classes[label]]})]
        found["predictions"] = [{"model_version": f"{task.session} step {task.step}", "score": score, "result": result}]
    return found


def _chosen(kind: str, value: Mapping[str, Any]) -> dict[str, Any]:
    return {"from_name": _LABEL, "to_name": "sample", "type": kind, "value": {**value}}


def _painted(mask: Pixels, classes: Sequence[str]) -> list[dict[str, Any]]:
    """A mask, a result for each class that is in it."""
    height, width = mask.shape
    found = []
    for number in np.unique(mask[mask != IGNORED]).tolist():
        value = {"format": "rle", "rle": encode(mask == number), _PAINTED: [classes[number]]}
        of = {"id": f"class-{number}", "original_width": width, "original_height": height, "image_rotation": 0}
        found.append(_chosen(_PAINTED, value) | of)
    return found


def read(
    path: Path,
    classes: Sequence[str],
    annotator: str = "",
    *,
    partial: bool = False,
    mask_size: tuple[int, int] | None = None,
) -> dict[str, list[dict[str, Json]]]:
    """What people said, by annotator.

    Predictions are no labels, whatever form an export gives them. Of a task with several annotations each counts as its
    annotator's; one that was cancelled says that its annotator skips the sample. Where masks are painted, a pixel is of the
    class that was painted over it last, and one that was not painted does not count.

    Args:
        path: An export of the format JSON.
        classes: Names of the classes, in order.
        annotator: Whose all of it is; empty for whom each annotation names.
        partial: Whether tasks without an annotation are for later, and not a mistake.
        mask_size: Height and width of the masks that are asked for; None where classes are.

    Raises:
        MissingFile: There is none.
        InvalidValue: It is no such file, or says something that there is not.
    """
    try:
        tasks = json.loads(read_text(path))
    except ValueError as error:
        raise _unreadable(path, "a list of tasks in JSON", f"{error}") from error
    except RecursionError as error:
        raise _unreadable(path, "a list of tasks in JSON", "brackets within brackets, too many to read") from error
    if not isinstance(tasks, list):
        raise _unreadable(path, "a list of tasks", type(tasks).__name__)
    said: dict[str, list[dict[str, Json]]] = {}
    for number, task in enumerate(tasks, start=1):
        data = task.get("data") if isinstance(task, dict) else None
        sample = data.get(_SAMPLE) if isinstance(data, dict) else None
        if not isinstance(data, dict) or not isinstance(sample, str):
            raise _unreadable(path, f"data with {_SAMPLE} in each task", f"none in task {number}")
        annotations = task.get("annotations", [])
        if not isinstance(annotations, list) or not all(isinstance(each, dict) for each in annotations):
            raise _unreadable(path, "annotations with what was chosen", f"others in task {number}")
        for each in annotations:
            one = _said(path, sample, each, classes, mask_size)
            if data.get(_DIGEST):
                one["digest"] = str(data[_DIGEST])
            said.setdefault(annotator or _name(each.get("completed_by")), []).append(one)
        if not annotations and not partial:
            raise InvalidValue(
                f"{path}: task {number}, sample {sample[:100]}, is not labelled",
                expected="an annotation in each task",
                received="none",
                action="label it, or leave such tasks for later with --partial",
            )
    return said


def _said(
    path: Path,
    sample: str,
    annotation: Mapping[str, Any],
    classes: Sequence[str],
    mask_size: tuple[int, int] | None,
) -> dict[str, Json]:
    results = annotation.get("result", [])
    if not isinstance(results, list) or not all(
        isinstance(each, dict) and _is_value(each.get("value", {})) for each in results
    ):
        raise _unreadable(path, "a list of results in each annotation", f"another of sample {sample[:100]}")
    chosen = [name for value in _values(results, _LABEL) for name in value.get("choices", [])]
    unsure = any(value.get("choices") for value in _values(results, _UNSURE))
    texts = [text for value in _values(results, _COMMENT) for text in _texts(value.get("text"))]
    said: dict[str, Json] = {"sample": sample, "unsure": unsure, "comment": " ".join(texts)}
    if isinstance(at := annotation.get("created_at"), str):
        said["at"] = at
    if annotation.get("was_cancelled"):
        return said | {"skipped": True}
    if mask_size is not None:
        return said | {"label": _mask(path, sample, results, classes, mask_size)}
    if len(chosen) != 1:
        raise InvalidValue(
            f"{path}: sample {sample[:100]} has an annotation that names no one class",
            expected=f"one choice of {_LABEL}",
            received=", ".join(map(str, chosen))[:100] or "none",
            action="correct it in Label Studio, and export anew",
        )
    return said | {"label": class_number(str(chosen[0]), classes, sample)}


def _mask(
    path: Path, sample: str, results: Sequence[Mapping[str, Any]], classes: Sequence[str], size: tuple[int, int]
) -> str:
    """The mask that was painted, as it is kept."""
    mask = np.full(size, IGNORED, dtype=np.uint8)
    for each in results:
        if each.get("from_name") != _LABEL:
            continue
        value = each.get("value", {})
        names, runs = value.get(_PAINTED), value.get("rle")
        if not isinstance(runs, list) or not isinstance(names, list) or len(names) != 1:
            raise _unpainted(path, sample, f"runs (rle) with one class under {_PAINTED}", str(each.get("type")))
        rotated, painted_on = each.get("image_rotation") or 0, (each.get("original_height"), each.get("original_width"))
        if rotated or painted_on != size:
            raise _unpainted(
                path,
                sample,
                f"{size[0]}x{size[1]} pixels, not turned",
                f"{painted_on[0]}x{painted_on[1]}, turned by {rotated}",
            )
        try:
            mask[decode(runs, size)] = class_number(str(names[0]), classes, sample)
        except (TypeError, ValueError) as error:
            raise _unpainted(path, sample, "runs of a picture's pixels", f"{error}") from error
    if bool((mask == IGNORED).all()):
        raise _unpainted(path, sample, "a class at some pixel", "none")
    return encoded(mask)


def _unpainted(path: Path, sample: str, expected: str, received: str) -> InvalidValue:
    return InvalidValue(
        f"{path}: the mask of sample {sample[:100]} cannot be read",
        expected=expected,
        received=received[:100],
        action="paint it with the brush of labelling.xml, or skip the task, and export anew",
    )


def _is_value(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("choices", []), list)


def _values(results: Sequence[Mapping[str, Any]], name: str) -> list[Mapping[str, Any]]:
    """What was given under a name of the labelling interface; nothing where a result has no value."""
    return [each.get("value", {}) for each in results if each.get("from_name") == name]


def _texts(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else [str(value)] if value else []


def _name(completed_by: Any) -> str:
    """Who made an annotation: an export says a number, or more of the person."""
    if isinstance(completed_by, dict):
        completed_by = completed_by.get("email") or completed_by.get("id")
    return completed_by if isinstance(completed_by, str) else f"label-studio-{completed_by or 'user'}"


def _unreadable(path: Path, expected: str, received: str) -> InvalidValue:
    return InvalidValue(
        f"{path} is no export of Label Studio's",
        expected=expected,
        received=received[:100],
        action="export the project in the format JSON",
    )
