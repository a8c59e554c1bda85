"""What a session came to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from comity.errors import InvalidValue
from comity.front.table import Rounds
from comity.models import OwnModels
from comity.node.artifacts.description import KeptModel
from comity.node.artifacts.keeping import Kept, keep_models
from comity.node.artifacts.loading import built, put_into
from comity.protocol.presentation import Column, ColumnKind, PerRoundTable, Summary
from comity.protocol.registry import protocol
from comity.report.comparison import verdict
from comity.report.numbers import number, size
from comity.session.events import Event
from comity.tasks.scores import metric
from comity.tensors import Layout


class Result:
    """What a session came to.

    Args:
        fields: The result as `comity simulate --json` prints it.
        left: The models that it left; None where they cannot be reached from here.
        rounds: A row for each round.
        events: What happened.
        own: What the party that looks calls models of its own.

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
        cost: Who owes how much to whom by the price that was agreed on (`owed`); None where there is no price.
        compared: What the party would have had alone, beside what it has (`gain`, by class in `by`); None where nobody looked.
        notes: What the session said of rounds that went badly, and what to do.
    """

    def __init__(
        self,
        fields: Mapping[str, Any],
        left: Kept | None,
        rounds: Rounds,
        events: Sequence[Event],
        own: OwnModels | None = None,
    ) -> None:
        self._fields = dict(fields)
        self._left = left
        self._own = own or {}
        self.protocol: str = fields["protocol"]
        self.session: str = fields["session"]
        self.digest: str = fields["digest"]
        self.metrics: Mapping[str, Any] = fields["metrics"]
        self.rounds = rounds
        self.bytes_sent: Mapping[str, int] = fields["bytes_sent"]
        self.bytes_received: Mapping[str, int] = fields["bytes_received"]
        self.seconds: float = fields["wall_s"]
        self.ledger_verified: bool = fields["ledger_verified"]
        self.cost: Mapping[str, Any] | None = fields.get("cost")
        self.compared: Mapping[str, Any] | None = fields.get("compared")
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
        return {each.name: self._built(each) for each in self._reached().description.models}

    @property
    def model(self) -> nn.Module:
        """The final model, ready to use.

        Raises:
            InvalidValue: There is not just one, or it is not to be had here.
        """
        return self._built(self._only())

    def load_into(self, model: nn.Module) -> nn.Module:
        """Gives a module the weights of the final model; for models that only another node's own code makes.

        Raises:
            InvalidValue: There is not just one model, or it has other tensors.
        """
        return put_into(model, self._only(), self._tensors(self._only())).eval()

    def save(self, folder: Path | str) -> Path:
        """Writes `result.json`, the models and what describes them, as a node does; returns the folder."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        keep_models(place, self._reached())
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
            **({} if self.compared is None else {"worth it": verdict(self.compared)}),
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

    def _only(self) -> KeptModel:
        known = self._reached().description.models
        if len(known) != 1:
            names = ", ".join(each.name for each in known)
            raise InvalidValue(
                "the session left another number of models than one",
                expected=f".models[name] with a name of {names}" if known else "nothing: it trains no model",
                received=".model",
            )
        return known[0]

    def _tensors(self, model: KeptModel) -> dict[str, Tensor]:
        blob = self._reached().blobs[model.file]
        return {name: each.clone() for name, each in Layout.unpack(blob).items()}

    def _built(self, model: KeptModel) -> nn.Module:
        network = built(self._reached().description, model, self._own)
        return put_into(network, model, self._tensors(model)).eval()

    def _reached(self) -> Kept:
        if self._left is None:
            raise InvalidValue(
                "the models are at the node, which is on another machine",
                expected="the node's folder on this one",
                received="a control port",
                action=f"take them from its folder sessions/{self.session}",
            )
        return self._left


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
