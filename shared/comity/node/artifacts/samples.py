"""Samples for a model that a session left: read as the party of the session reads its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comity.contract import Aspect, Preprocessing, TaskSpec
from comity.data import DataConfig, Dataset, SplitName, Splits, read_source
from comity.data.config import SOURCES, TABLES
from comity.data.loading import with_features
from comity.errors import InvalidValue, TaskMismatch
from comity.node.artifacts.description import Description
from comity.node.validation import validated
from comity.tasks import require_task
from comity.tasks.meaning import differences, meaning_of, with_meaning
from comity.tasks.samples import inputs_of

_FOR: Mapping[str, frozenset[str]] = {
    "image_size": frozenset({"imagefolder"}),
    "channels": frozenset({"imagefolder"}),
    "table": TABLES,
    "words": frozenset({"text"}),
    "in_memory": frozenset({"imagefolder", "python"}),
}
"""Settings that only some sources take, and which."""

_INPUTS: frozenset[Aspect] = frozenset({"inputs"})
_SUFFIXES = {".csv": "csv", ".parquet": "parquet", ".npz": "npz"}


def samples(
    source: str, description: Description, *, labelled: bool, split: SplitName | None = None
) -> tuple[Dataset, str]:
    """Samples for a model.

    Args:
        source: Where they are, as `[data] source` has it; or a file or folder, which is read like the party's own.
        description: What the model is.
        labelled: Whether they have labels, which are then to mean what the model's do.
        split: Which of the source's splits; None for the test split where the source brings one, and else all.

    Returns:
        The samples, and the split that they are.

    Raises:
        MissingFile: They are not there.
        InvalidValue: They cannot be read, or are not for the model.
    """
    if not description.task.heads or description.task.kind == "reinforcement":
        raise InvalidValue("the model is a policy, and says nothing of samples", expected="samples", received=source)
    config = _config(source, description, labelled=labelled)
    read = read_source(config, labelled=labelled)
    if config.features:
        read = with_features(read, config.features)
    name = split or ("test" if read.test is not None else "train")
    found = read.split(name)
    try:
        if labelled:
            require_task(source, Splits(found), description.task)
        else:
            _require_inputs(source, found, description.task)
    except TaskMismatch as error:
        # Nobody refuses anything here: the samples were named wrongly.
        raise InvalidValue(error.what, expected=error.expected, received=error.received, action=error.action) from error
    return found, name


def _config(source: str, description: Description, *, labelled: bool) -> DataConfig:
    """How samples are read: as the party's own, as far as that is for such a source."""
    own = dict(description.reading or {})
    own_kind = own.pop("kind", "")
    named = _named(source, own_kind)
    kind = named.partition(":")[0]
    reading = {name: each for name, each in own.items() if kind in _FOR.get(name, {kind})}
    if kind != own_kind:
        # Its classes are called otherwise, or not at all.
        reading = {name: each for name, each in reading.items() if name in {"classes", "features"}}
    if not labelled:
        reading = {name: each for name, each in reading.items() if name not in {"classes", "relabel"}}
    head = description.task.heads[0]
    labels, features = head.labels, description.task.inputs.features
    numbered = description.task.kind == "classification" and bool(labels) and not {"classes", "relabel"} & {*reading}
    if labelled and numbered:
        # A file with few samples has few classes: their numbers are the model's all the same.
        reading["classes"] = labels
    if kind in TABLES and "table" not in reading:
        raise InvalidValue(
            f"nobody says what the columns of {source} are",
            expected="a model whose party reads a table too",
            received=own_kind or "a party without samples",
            action=f"the model takes {', '.join(features)[:300] or 'other inputs'}: bring them as npz:FILE",
        )
    values: dict[str, Any] = {"source": named, "root": Path.cwd(), **reading}
    return validated(DataConfig, values, source)


def _named(source: str, own_kind: str) -> str:
    """A source as `[data]` has it."""
    kind, colon, _ = source.partition(":")
    known = {form.partition(":")[0] for form in SOURCES}
    if kind in known and (colon or not Path(source).exists()):
        return source
    path = Path(source)
    if path.suffix in _SUFFIXES:
        return f"{_SUFFIXES[path.suffix]}:{source}"
    if path.is_dir() and own_kind:
        return f"{own_kind}:{source}"
    return source


def _require_inputs(source: str, found: Dataset, task: TaskSpec) -> None:
    """Checks that samples are such as a model takes, whatever is told of them.

    Raises:
        TaskMismatch: They are not.
    """
    if found.input_shape != task.inputs.shape:
        raise TaskMismatch(
            f"{source} has other inputs than the model takes",
            expected=list(task.inputs.shape),
            received=list(found.input_shape),
            action="prepare them as the session's samples were",
        )
    own = task.model_copy(update={"inputs": inputs_of(found, Preprocessing())})
    for each in differences(source, with_meaning(own, meaning_of(Splits(found))), task, _INPUTS):
        raise TaskMismatch(each.what, expected=each.wanted, received=each.own, action=each.action)
