"""Predictions and tests with a model that a session left."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from comity.contract import HeadSpec, Json, TaskSpec
from comity.data import Dataset
from comity.errors import InvalidValue
from comity.node.artifacts.keeping import write_whole
from comity.node.artifacts.loading import SessionModel
from comity.protocol.predicting import Predictor, Said
from comity.tasks import objective_of
from comity.tasks.objective import titles

Tell = Callable[[int, int], None]
"""Is told how many samples are done, and of how many."""

_BATCH = 256


def blocks(data: Dataset, tell: Tell) -> Iterator[Tensor]:
    """Places of samples, a batch at a time."""
    done = 0
    for block in torch.arange(len(data)).split(_BATCH):
        yield block
        done += len(block)
        tell(done, len(data))


def predicted(predict: Predictor, data: Dataset, tell: Tell) -> dict[str, Tensor | list[str]]:
    """What is said of samples, in their order.

    Args:
        predict: Says it.
        data: The samples.
        tell: Is told how far it is.
    """
    found: dict[str, list[Any]] = {}
    for block in blocks(data, tell):
        said: Said = predict(data.inputs[block])
        for name, each in said.items():
            found.setdefault(name, []).append(each.cpu() if isinstance(each, Tensor) else list(each))
    return {
        name: torch.cat(parts) if isinstance(parts[0], Tensor) else [each for part in parts for each in part]
        for name, parts in found.items()
    }


def evaluated(model: SessionModel, data: Dataset, tell: Tell) -> dict[str, Json]:
    """What a test of a model says, by metric: all that its kind of task knows, and the mean loss.

    Args:
        model: The model.
        data: The samples, with labels that mean what the model's do.
        tell: Is told how far it is.

    Raises:
        TaskMismatch: The model is for no samples.
    """
    objective = objective_of(model.task)
    tally, total = objective.tally(), 0.0
    with torch.inference_mode():
        for block in blocks(data, tell):
            outputs, targets = model(data.inputs[block]), data.targets_of(block)
            tally.add(outputs, targets)
            total += float(objective.loss(outputs, targets, "none").double().sum())
    loss = total / len(data)
    return {**tally.results(), "loss": loss if math.isfinite(loss) else None}


def rows(task: TaskSpec, ids: Sequence[str], said: dict[str, Tensor | list[str]]) -> list[dict[str, Json]]:
    """Predictions as a table: a row for each sample, its id first.

    Raises:
        InvalidValue: They are no table, such as a mask for each sample.
    """
    columns: dict[str, Sequence[Json]] = {"id": list(ids)}
    for name, each in said.items():
        columns |= _columns(task, name, each)
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _columns(task: TaskSpec, name: str, values: Tensor | list[str]) -> dict[str, Sequence[Json]]:
    if not isinstance(values, Tensor):
        return {name: values}
    head = _head(task, name)
    if values.ndim == 1:
        numbers = values.tolist()
        is_class = head is not None and not values.is_floating_point() and values.dtype != torch.bool
        return {name: [titles(head)[each] for each in numbers] if head is not None and is_class else numbers}
    if values.ndim > 2:
        raise InvalidValue(
            f"{name} is no table: it has {list(values.shape[1:])} numbers for each sample",
            expected="--out FILE.npz, which keeps them as arrays",
            received="a table",
        )
    wide = values.int() if values.dtype == torch.bool else values
    called = titles(head) if head is not None and head.size == values.shape[1] else list(map(str, range(wide.shape[1])))
    return {f"{name} {title}": column.tolist() for title, column in zip(called, wide.unbind(dim=1), strict=True)}


def _head(task: TaskSpec, name: str) -> HeadSpec | None:
    """The head that something is said by; `head.what` in tasks of several."""
    if len(task.heads) == 1:
        return task.heads[0]
    return next((head for head in task.heads if head.name == name.partition(".")[0]), None)


def as_csv(found: Sequence[dict[str, Json]]) -> str:
    """A table as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(found[0]) if found else ["id"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue()


def write_predictions(path: Path, task: TaskSpec, ids: Sequence[str], said: dict[str, Tensor | list[str]]) -> None:
    """Writes predictions to a file: `.csv`, `.json`, or `.npz` for arrays.

    Raises:
        InvalidValue: It has another suffix, or the predictions are no table.
    """
    match path.suffix:
        case ".csv":
            data = as_csv(rows(task, ids, said)).encode()
        case ".json":
            data = json.dumps(rows(task, ids, said), indent=1).encode()
        case ".npz":
            arrays = {name: each.numpy() if isinstance(each, Tensor) else np.array(each) for name, each in said.items()}
            buffer = io.BytesIO()
            np.savez_compressed(buffer, id=np.array(ids), **arrays)  # type: ignore[arg-type]
            data = buffer.getvalue()
        case other:
            raise InvalidValue(
                "predictions cannot be written so", expected=".csv, .json or .npz", received=other or "no suffix"
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, [data])
