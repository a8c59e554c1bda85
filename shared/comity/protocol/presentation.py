"""What people look at in a protocol's sessions: the numbers of a round, of a result, and what they are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from comity.contract import Contract, Json
from comity.session.events import Event
from comity.tasks.scores import detail_of, metric, score_of

ColumnKind = Literal["integer", "number", "share", "seconds", "text", "shares", "numbers", "score"]
"""How a number is written. A `share` is from 0 to 1 and written in percent; `shares` and `numbers` are one for each class or
target; a `score` is written as the metric `score` of a result says; `text` is no number."""

Scale = Literal["linear", "log"]

_UNITS: Mapping[ColumnKind, str] = {"share": "%", "shares": "%", "seconds": "s", "integer": "count"}


@dataclass(frozen=True, slots=True)
class Column:
    """A number of a protocol's own that people look at, and how.

    Attributes:
        field: Its name among an event's or a result's fields.
        title: What it is called in a table.
        kind: How it is written.
        about: What it means, in a sentence, for whoever sees a chart of it.
        unit: What it is measured in; empty for what its kind says.
        scale: Of a chart's axis; `log` for what falls by factors, as losses do.
    """

    field: str
    title: str
    kind: ColumnKind
    about: str = ""
    unit: str = ""
    scale: Scale = "linear"

    @property
    def measured_in(self) -> str:
        """What it is measured in; empty for a bare number."""
        return self.unit or _UNITS.get(self.kind, "")


def columns_of(columns: Sequence[Column], metrics: Mapping[str, Any]) -> list[Column]:
    """Those of some columns that a result has, its scores as its kind of task has them written."""
    written = metric(str(metrics.get("score", "accuracy"))).written
    there = [each for each in columns if metrics.get(each.field) is not None]
    return [replace(each, kind=written) if each.kind == "score" else each for each in there]


@dataclass(frozen=True, slots=True)
class Summary:
    """What people compare when a session is over.

    Attributes:
        title: What the numbers are, for example `test accuracy`.
        columns: Metrics, all of one kind; those that a result lacks are left out.
        outcome: Field of the one that the session came to.
        tested: Metric that has, by the field of a column, all that a test says of it: a number by the name of each of a
            test's metrics, or one for each class.
    """

    title: str
    columns: tuple[Column, ...]
    outcome: str
    tested: str = "tested"

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Summary:
        """Reads what an event with which a session ends well has as `summary`."""
        columns = tuple(Column(**each) for each in value["columns"])
        return cls(value["title"], columns, value["outcome"], value["tested"])


@dataclass(frozen=True, slots=True)
class PerRoundTable:
    """What a result says of every round: of each party at the one that helps many, and of oneself at the others.

    Attributes:
        title: What the rounds are stated for, for example `rewards`.
        columns: Metrics that are lists by round; where the result has `parties`, of lists by party.
        parties: Metric that lists the parties.
        rounds: Metric that lists the rounds; from 1 on where a result has none.
        sums: Metrics that list, by party, what a column comes to in all rounds; by the column's field.
        share: Which of the columns is a party's share, of 1, in what a round was worth: by it a price may be shared out; empty
            where none is.
        so_far: `package.module:NAME` of a function that gives these metrics of a session that goes on: it takes the
            contract and the fields of the rounds that are finished at the party that has the result; empty where only a
            result says them.
    """

    title: str
    columns: tuple[Column, ...]
    parties: str = "parties"
    rounds: str = "rounds"
    sums: Mapping[str, str] = field(default_factory=dict)
    share: str = ""
    so_far: str = ""

    def columns_of(self, metrics: Mapping[str, Any]) -> list[Column]:
        """The columns that a result has, its scores as its kind of task has them written."""
        return columns_of(self.columns, metrics)

    def by_round(self, metrics: Mapping[str, Any]) -> dict[tuple[int, str], dict[str, Json]]:
        """What the columns say of each round and party, by both; of the party whose metrics they are, by an empty name."""
        parties = metrics.get(self.parties)
        found: dict[tuple[int, str], dict[str, Json]] = {}
        for column in self.columns_of(metrics):
            values = metrics[column.field]
            for round, value in zip(metrics.get(self.rounds) or range(1, len(values) + 1), values, strict=False):
                of_each = {"": value} if parties is None else dict(zip(parties, value, strict=False))
                for party, each in of_each.items():
                    found.setdefault((round, party), {})[column.field] = each
        return found


@dataclass(frozen=True, slots=True)
class PartyTable:
    """What a whole session came to for each of its parties, as a result says it.

    Attributes:
        title: What it is, for example `who was paid what`.
        columns: Metrics that are lists by party.
        parties: Metric that lists the parties.
        totals: Metrics of the session as a whole, which `about` explains.
    """

    title: str
    columns: tuple[Column, ...]
    parties: str = "parties"
    totals: tuple[Column, ...] = ()


@dataclass(frozen=True, slots=True)
class Relation:
    """Numbers of a result over another one than the round: accuracy against labels, for example.

    Attributes:
        title: What it is.
        over: Metric that lists where on the horizontal axis the values are.
        columns: Metrics that list the values, of one kind, a line each; those that a result lacks are left out.
        about: What it means, in a sentence.
    """

    title: str
    over: Column
    columns: tuple[Column, ...]
    about: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """What people look at in a session.

    Attributes:
        columns: For each role, the fields of its `round-finished` events.
        summary: The metrics of a result.
    """

    columns: Mapping[str, tuple[Column, ...]]
    summary: Summary


@dataclass(frozen=True, slots=True)
class Presentation:
    """What people look at in the sessions of a protocol.

    Attributes:
        view: What they look at, where the kind of task has no view of its own.
        views: What they look at instead, by kind of task.
        adapt: Makes of a view the one of a contract; None where it does not depend on it.
        per_round: The metrics of a result that say what each round came to for whom, where there are any.
        per_party: Those that say what the session as a whole came to for whom, where there are any.
        relations: What of them is drawn over another than the round.
        progress: What is going on within a round when an event of a kind comes, by kind; such events have the fields
            `index`, from 0, and `of`.
    """

    view: View
    views: Mapping[str, View] = field(default_factory=dict)
    adapt: Callable[[Contract, View], View] | None = None
    per_round: PerRoundTable | None = None
    per_party: PartyTable | None = None
    relations: tuple[Relation, ...] = ()
    progress: Mapping[str, str] = field(default_factory=dict)

    def of(self, contract: Contract) -> View:
        """What people look at in a session."""
        view = self.of_task(contract.task.kind)
        return view if self.adapt is None else self.adapt(contract, view)

    def of_task(self, kind: str) -> View:
        """What people look at in sessions of a kind of task."""
        return self.views.get(kind, self.view)

    def started(self, contract: Contract, role: str, peers: Sequence[str]) -> Event:
        """The event with which a session begins, for observers: it says what to look at."""
        columns: list[Json] = [asdict(each) for each in self.of(contract).columns[role]]
        fields: dict[str, Json] = {
            "protocol": contract.protocol,
            "role": role,
            "peers": [*peers],
            "rounds": contract.rounds,
            "columns": columns,
            "progress": self.progress,
        }
        return Event("session-started", 0, fields)

    def finished(self, contract: Contract, result: Mapping[str, Json]) -> Event:
        """The event with which a session ends well: the result, and which of its metrics people compare."""
        return Event("session-finished", 0, {"result": result, "summary": asdict(self.of(contract).summary)})


def score_columns(kind: str, of: str = "test") -> tuple[Column, tuple[Column, ...]]:
    """What a round's row says of a test, in tasks of a kind: the score, and what there is for each class or target.

    A round has each number of a test as a field, `test_` before its name.

    Args:
        kind: The kind of task.
        of: Whose test it is, for titles.
    """
    score, detail = score_of(kind), detail_of(kind)
    about = f"What the {'' if of == 'test' else f'{of} '}test samples say of the round's model."
    column = Column(f"test_{score.name}", f"{of} {score.title}", score.written, about)
    if detail is None:
        return column, ()
    title = detail.title if " by " in detail.title else f"{detail.title} by class"
    return column, (Column(f"test_{detail.name}", title, "shares" if detail.written == "share" else "numbers", about),)
