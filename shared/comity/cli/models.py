"""`comity predict`, `evaluate` and `export`: models that sessions left."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from comity.cli.tables import print_table, show_json
from comity.contract import Contract
from comity.data import SplitName
from comity.errors import InvalidValue, MissingFile
from comity.node.artifacts.description import Description, read_description
from comity.node.artifacts.exporting import export_onnx, export_torchscript
from comity.node.artifacts.keeping import described_before
from comity.node.artifacts.loading import SessionModel, load_model
from comity.node.artifacts.playing import EPISODES, played
from comity.node.artifacts.predicting import Tell, as_csv, evaluated, predicted, rows, write_predictions
from comity.node.artifacts.samples import samples
from comity.node.config import NodeConfig, load_config
from comity.node.operating import NodeChoice
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.extensions import loaded
from comity.protocol.predicting import PredictionContext, Predictor, PredictorFactory
from comity.protocol.presentation import ColumnKind
from comity.protocol.registry import protocol
from comity.report.numbers import number
from comity.tasks.scores import metric


@dataclass(frozen=True)
class Chosen:
    """The model that a command line names.

    Attributes:
        node: The node, whose configuration says what models of its own are.
        model: A session's folder, or a file of a model; None for a session of the node.
        session: That session; empty for a folder.
        name: Which model, where there are several; empty for the only one.
    """

    node: NodeChoice
    model: Path | None
    session: str
    name: str

    @property
    def folder(self) -> Path:
        """Where the model is.

        Raises:
            InvalidValue: It was named in no way, or in two.
        """
        if (self.model is None) == (not self.session):
            raise InvalidValue(
                "no model is named" if self.model is None else "the model is named in two ways",
                expected="--model FOLDER, or --session SESSION of your node",
                received="neither" if self.model is None else "both",
                action="comity sessions lists a node's",
            )
        return self.model if self.model is not None else self.node.state_dir / "sessions" / self.session

    def config(self) -> NodeConfig | None:
        """The node's configuration; None where none is named, nor needed."""
        named = self.node.is_named or bool(self.session)
        if not named or self.node.state is not None or not self.node.config_file.exists():
            return None
        return load_config(NodeConfig, self.node.config_file)

    def load(self, name: str = "") -> SessionModel:
        """A model of it, ready to use.

        Raises:
            ComityError: See `load_model`.
        """
        if self.session and not self.folder.is_dir():
            raise self.nothing_left()
        config = self.config()
        own = {} if config is None else config.own_models
        return load_model(self.folder, name=name or self.name or None, models=own)

    def nothing_left(self) -> MissingFile:
        """The error where a session has left no model at the node."""
        return MissingFile(
            f"session {self.session} left nothing at this node",
            expected=f"a session that ended well, whose files are in {self.folder.parent}",
            received="none of that name",
            action=f"comity sessions{self.node.option} lists them",
        )


def predict_samples(chosen: Chosen, data: str, split: str, out: Path | None, *, as_json: bool) -> None:
    """Says what samples are."""
    description, _ = _described(chosen)
    found, name = samples(data, description, labelled=False, split=_split(split))
    with _predictor(chosen, description) as predict, _progress("predicted", quiet=as_json) as tell:
        said = predicted(predict, found, tell)
    _say(f"{len(found)} samples of {data}, {'all' if name == 'train' else name}", quiet=as_json)
    if out is not None:
        write_predictions(out, description.task, found.ids, said)
        if as_json:
            show_json({"session": description.session, "samples": len(found), "split": name, "file": str(out)})
        else:
            print(f"the predictions are in {out}")  # noqa: T201
        return
    table = rows(description.task, found.ids, said)
    if as_json:
        show_json({"session": description.session, "samples": len(found), "split": name, "predictions": table})
    else:
        sys.stdout.write(as_csv(table))


def evaluate_model(chosen: Chosen, data: str, split: str, *, as_json: bool) -> None:
    """Tests a model on samples with labels."""
    model = chosen.load()
    tested: dict[str, object]
    if model.task.kind == "reinforcement":
        said = played(model, data)
        tested, of = {"episodes": EPISODES}, f"{EPISODES} episodes of {data}"
    else:
        found, name = samples(data, model.description, labelled=True, split=_split(split))
        with _progress("tested", quiet=as_json) as tell:
            said = evaluated(model, found, tell)
        tested = {"samples": len(found), "split": name}
        of = f"{len(found)} samples of {data}, {'all' if name == 'train' else name}"
    if as_json:
        described = {"session": model.description.session, "model": model.model.name}
        show_json({**described, **tested, "metrics": said})
        return
    _say(of, quiet=False)
    table = Table("", "", box=None, pad_edge=False, show_header=False)
    for each, value in said.items():
        known = metric(each)
        kind: ColumnKind = known.written
        if isinstance(value, dict):
            for title, part in value.items():
                table.add_row(f"{known.title} of {title}", number(part, kind))
        else:
            table.add_row(known.title, number(value, kind))
    print_table(table)


def write_exports(chosen: Chosen, onnx: Path | None, torchscript: Path | None, *, as_json: bool) -> None:
    """Writes a model in formats of others."""
    model = chosen.load()
    wanted: list[tuple[str, Path | None, Callable[[SessionModel, Path], float]]] = [
        ("onnx", onnx, export_onnx),
        ("torchscript", torchscript, export_torchscript),
    ]
    written = {}
    for name, path, export in wanted:
        if path is None:
            continue
        difference = export(model, path)
        written[name] = {"file": str(path), "greatest_difference": difference}
        if not as_json:
            print(f"{path}: answers as the original does, to {difference:.1e}")  # noqa: T201
    if as_json:
        show_json({"session": model.description.session, "model": model.model.name, "exports": written})


def _described(chosen: Chosen) -> tuple[Description, Path]:
    folder = chosen.folder
    if chosen.session and not folder.is_dir():
        agreed = _agreed(chosen)
        if agreed.is_on and agreed.definition.extensions.predictor:
            config = chosen.config()
            party, data = ("", None) if config is None else (config.party, config.data)
            return described_before(agreed.contract, party, data), folder
        raise chosen.nothing_left()
    return read_description(folder)


@contextmanager
def _predictor(chosen: Chosen, description: Description) -> Iterator[Predictor]:
    """What predicts: the model itself, or, of a session of the node, what its protocol has for that."""
    if chosen.session:
        definition = protocol(description.protocol)
        if definition.extensions.predictor:
            with _of_protocol(chosen, definition, description) as predict:
                yield predict
            return
    yield chosen.load().predict


@dataclass(frozen=True)
class _Agreed:
    """A session of the node: its contract, and what it came to so far."""

    definition: ProtocolDefinition
    contract: Contract
    result: dict[str, Any]
    is_on: bool


def _agreed(chosen: Chosen) -> _Agreed:
    with chosen.node.read() as reader:
        details = reader.details(chosen.session)
    values: dict[str, Any] = json.loads(details.contract)
    definition = protocol(values["protocol"])
    contract = Contract.model_validate(values | {"terms": definition.terms.model_validate(values["terms"])})
    result = json.loads(details.result) if details.result else {}
    return _Agreed(definition, contract, result, details.summary.state in {"running", "waiting"})


@contextmanager
def _of_protocol(chosen: Chosen, definition: ProtocolDefinition, description: Description) -> Iterator[Predictor]:
    agreed = _agreed(chosen)
    config = chosen.config()
    make: PredictorFactory = loaded(definition.extensions.predictor)
    context = PredictionContext(
        contract=agreed.contract,
        folder=chosen.folder,
        state_dir=chosen.node.state_dir,
        party=description.party,
        settings=None if config is None else config.settings_of(definition),
        config=config,
        model=chosen.load,
        result=agreed.result,
        is_on=agreed.is_on,
    )
    with make(context) as predict:
        yield predict


def _split(name: str) -> SplitName | None:
    if not name:
        return None
    for known in get_args(SplitName):
        if name == known:
            return known  # type: ignore[no-any-return]
    raise InvalidValue("there is no such split", expected=", ".join(get_args(SplitName)), received=name)


@contextmanager
def _progress(what: str, *, quiet: bool) -> Iterator[Tell]:
    """A bar on a terminal; nothing in a pipe."""
    console = Console(stderr=True, quiet=quiet)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


def _say(line: str, *, quiet: bool) -> None:
    if not quiet:
        sys.stderr.write(f"{line}\n")
