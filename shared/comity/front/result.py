"""What a session came to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from torch import nn

from comity.contract import Contract
from comity.errors import InvalidValue, TensorMismatch, UnknownModel
from comity.front.table import Rounds
from comity.models import OwnModels
from comity.models.crossing import Crossing
from comity.protocol.presentation import Column, ColumnKind, PerRoundTable, Summary
from comity.protocol.registry import protocol
from comity.report.numbers import number, size
from comity.session.events import Event
from comity.tasks import build_model, no_weights
from comity.tasks.models import Weights
from comity.tasks.scores import metric
from comity.tensors import Blob, Layout


@dataclass(frozen=True)
class Left:
    """A model that a session left.

    Attributes:
        blob: Its tensors.
        build: Makes a module of its kind.
    """

    blob: Blob
    build: Callable[[], nn.Module]

    def module(self, model: nn.Module | None = None) -> nn.Module:
        """The model, ready to use: with its weights, and in evaluation mode."""
        module = self.build() if model is None else model
        Crossing.of(module).load(module, {name: each.clone() for name, each in Layout.unpack(self.blob).items()})
        return module.eval()


class Result:
    """What a session came to.

    Args:
        fields: The result as `comity simulate --json` prints it.
        left: The models that it left, by what they are called; None where they cannot be reached from here.
        events: What happened.

    Attributes:
        protocol: The protocol.
        session: The session's identifier.
        digest: BLAKE3 of the final models: the same session gives the same, over a network too.
        metrics: The protocol's own numbers.
        rounds: A row for each round.
        per_party: A row for each round and party, where the protocol has such numbers; else without rows.
        bytes_sent: Bytes that left, by egress kind.
        bytes_received: Bytes that came, by egress kind.
        seconds: How long it took.
        ledger_verified: Whether the ledger's chains hold.
        notes: What the session said of rounds that went badly, and what to do.
    """

    def __init__(
        self, fields: Mapping[str, Any], left: Mapping[str, Left] | None, rounds: Rounds, events: Sequence[Event]
    ) -> None:
        self._fields = dict(fields)
        self._left = left
        self.protocol: str = fields["protocol"]
        self.session: str = fields["session"]
        self.digest: str = fields["digest"]
        self.metrics: Mapping[str, Any] = fields["metrics"]
        self.rounds = rounds
        self.bytes_sent: Mapping[str, int] = fields["bytes_sent"]
        self.bytes_received: Mapping[str, int] = fields["bytes_received"]
        self.seconds: float = fields["wall_s"]
        self.ledger_verified: bool = fields["ledger_verified"]
        table = protocol(self.protocol).presentation.per_round
        self.per_party = Rounds([]) if table is None else _per_party(table, self.metrics)
        self._summary = _summary(events)
        self.notes = [
            f"round {each.round}: {each.fields['what']}; {each.fields['action']}"
            for each in events
            if each.kind == "stalled"
        ]

    @property
    def models(self) -> dict[str, nn.Module]:
        """The final models, ready to use; by party, where each has its own, and else by what the protocol calls them.

        Raises:
            InvalidValue: They are not to be had here.
        """
        return {name: each.module() for name, each in self._reached().items()}

    @property
    def model(self) -> nn.Module:
        """The final model, ready to use.

        Raises:
            InvalidValue: There is not just one, or it is not to be had here.
        """
        return self._only().module()

    def load_into(self, model: nn.Module) -> nn.Module:
        """Gives a module the weights of the final model; for models that only another node's own code makes.

        Raises:
            InvalidValue: There is not just one model, or it has other tensors.
        """
        try:
            return self._only().module(model)
        except (RuntimeError, TensorMismatch) as error:
            raise InvalidValue(
                "the module has other tensors than the session's model",
                expected="a module of the same kind",
                received=str(error).replace("\n", " ")[:300],
            ) from error

    def save(self, folder: Path | str) -> Path:
        """Writes `result.json`, and each model in safetensors layout, as a node does; returns the folder."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        left = self._reached()
        for name, each in left.items():
            file = "model.safetensors" if len(left) == 1 else f"{name.replace('/', '-')}.safetensors"
            (place / file).write_bytes(each.blob.data)
        (place / "result.json").write_text(json.dumps(self._fields, indent=2), encoding="utf-8")
        return place

    def to_json(self) -> dict[str, Any]:
        """The result as `comity simulate --json` prints it."""
        return dict(self._fields)

    @property
    def summary(self) -> dict[str, str]:
        """What people compare, in words and numbers."""
        if self._summary is None:
            return {}
        title, columns = self._summary.title, self._summary.columns
        found = {each.title: number(self.metrics.get(each.field), each.kind) for each in columns}
        return {f"{title}, {name}": value for name, value in found.items() if value != "-"}

    @property
    def tested(self) -> Mapping[str, Mapping[str, Any]]:
        """All that tests say: by the model's field among the metrics, then by metric; a number, or one for each class."""
        return self.metrics.get("tested" if self._summary is None else self._summary.tested) or {}

    def __repr__(self) -> str:
        """The result in a few lines."""
        return "\n".join(f"{name}: {value}" for name, value in self._lines().items())

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{escape(value)}</td></tr>"
            for name, value in self._lines().items()
        )
        return f"<table>{rows}</table>"

    def _lines(self) -> dict[str, str]:
        sent, received = (size(sum(each.values())) for each in (self.bytes_sent, self.bytes_received))
        return {
            "session": f"{self.session}, {self.protocol}, {len(self.rounds)} rounds, {self.seconds:.1f} s",
            **self.summary,
            **self._of_classes(),
            "crossed": f"{sent} sent, {received} received",
            "digest": self.digest,
            "ledger": "verified" if self.ledger_verified else "BROKEN",
            **({"note": self._noted()} if self.notes else {}),
        }

    def _of_classes(self) -> dict[str, str]:
        """What tests say of each class or target, in a line for each model."""
        if self._summary is None:
            return {}
        found = {}
        for each in self._summary.columns:
            for name, value in (self.tested.get(each.field) or {}).items():
                if isinstance(value, Mapping):
                    known = metric(name)
                    kind: ColumnKind = "shares" if known.written == "share" else "numbers"
                    title = known.title if " by " in known.title else f"{known.title} by class"
                    found[f"{title}, {each.title}"] = number(value, kind)
        return found

    def _noted(self) -> str:
        return self.notes[-1] if len(self.notes) == 1 else f"{self.notes[-1]} ({len(self.notes)} such rounds: .notes)"

    def _only(self) -> Left:
        left = self._reached()
        if len(left) != 1:
            raise InvalidValue(
                "the session left another number of models than one",
                expected=f".models[name] with a name of {', '.join(left)}" if left else "nothing: it trains no model",
                received=".model",
            )
        return next(iter(left.values()))

    def _reached(self) -> Mapping[str, Left]:
        if self._left is None:
            raise InvalidValue(
                "the models are at the node, which is on another machine",
                expected="the node's folder on this one",
                received="a control port",
                action=f"take them from its folder sessions/{self.session}",
            )
        return self._left


def left_behind(
    contract: Contract, blobs: Sequence[Blob], parties: Sequence[str], own: OwnModels, weights: Weights = no_weights
) -> dict[str, Left]:
    """The models that a session left, by what they are called.

    Args:
        contract: Its contract.
        blobs: Their tensors.
        parties: Those that each have a model of their own, in the order of the models; none where all have the same.
        own: What the party that looks calls models of its own.
        weights: Gives the weights that models began with.
    """
    names = list(contract.models)
    if len(blobs) == len(parties) and len(names) == 1:
        labels, kinds = list(parties), names * len(parties)
    elif len(blobs) == len(names):
        labels = kinds = names
    elif not names:
        labels, kinds = [f"model-{index}" for index in range(len(blobs))], [""] * len(blobs)
    else:
        # Some of them, or several of one: their layout tells which.
        by_signature = {spec.signature: name for name, spec in contract.models.items()}
        kinds = [by_signature.get(Layout.of(Layout.unpack(each)).signature, "") or names[0] for each in blobs]
        once = len({*kinds}) == len(kinds)
        labels = kinds if once else [f"model-{index}" for index in range(len(blobs))]
    return {
        label: Left(blob, lambda kind=kind: _built(contract, kind, own, weights))  # type: ignore[misc]
        for label, kind, blob in zip(labels, kinds, blobs, strict=True)
    }


def _built(contract: Contract, model: str, own: OwnModels, weights: Weights) -> nn.Module:
    spec = contract.models[model]
    try:
        size = protocol(contract.protocol).load().sizes(contract, own).get(model)
        return build_model(spec, contract.task, contract.seed, own, weights, size=size)
    except UnknownModel as error:
        raise InvalidValue(
            f"the session's model {spec.name!r} is the node's own code",
            expected="a module to put its weights into",
            received="nothing",
            action="result.load_into(Net())",
        ) from error


def _per_party(table: PerRoundTable, metrics: Mapping[str, Any]) -> Rounds:
    """What every round came to for whom."""
    columns = table.columns_of(metrics)
    short = [Column(each.field.removesuffix("_by_round"), each.title, each.kind) for each in columns]
    parties = metrics.get(table.parties)
    rows: list[dict[str, Any]] = []
    for index, values in enumerate(zip(*(metrics[each.field] for each in columns), strict=True)):
        round = metrics[table.rounds][index] if table.rounds in metrics else index + 1
        if not parties:
            rows.append({"round": round, **dict(zip((each.field for each in short), values, strict=True))})
        for place, party in enumerate(parties or ()):
            own = {each.field: value[place] for each, value in zip(short, values, strict=True)}
            rows.append({"round": round, "party": party, **own})
    return Rounds(rows, short)


def _summary(events: Sequence[Event]) -> Summary | None:
    for event in events:
        if event.kind == "session-finished":
            fields: Any = event.fields
            return Summary.from_json(fields["summary"])
    return None
