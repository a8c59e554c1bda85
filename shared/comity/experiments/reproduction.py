"""What an experiment is, how one is run, and what it leaves: metrics, a picture, a comparison with the paper."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

from comity.errors import InvalidValue
from comity.experiments.datasets import Datasets

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Scale = Literal["smoke", "digits", "small", "paper"]
"""`smoke` shows in a second that an experiment works; `digits` says something of scikit-learn's handwritten digits, or of the
paper's own games, within 10 minutes on two cores; `small` has real MNIST, and takes minutes on a CPU; `paper` has the
paper's own sizes."""
SCALES: tuple[Scale, ...] = ("smoke", "digits", "small", "paper")
Verdict = Literal["supported", "not supported", "not testable at this scale"]
Metrics = Mapping[str, Any]
"""What was measured, as a JSON object."""


class Setup(Hashable, Protocol):
    """What an experiment runs at a scale: a frozen dataclass."""

    @property
    def measured_on(self) -> tuple[str, ...]:
        """The data, as people call them."""


Settings = TypeVar("Settings", bound=Setup)


@dataclass(frozen=True, slots=True)
class Claim:
    """Something that the paper says.

    Attributes:
        text: What it says.
        holds: Whether the metrics bear it out; None where they do not tell.
        scales: Where it can be tested at all.
    """

    text: str
    holds: Callable[[Metrics], bool | None]
    scales: tuple[Scale, ...] = ("digits", "small", "paper")

    def verdict(self, metrics: Metrics, scale: Scale) -> Verdict:
        """What a run at a scale says about it."""
        holds = self.holds(metrics) if scale in self.scales else None
        if holds is None:
            return "not testable at this scale"
        return "supported" if holds else "not supported"


@dataclass(frozen=True, slots=True)
class Printed:
    """A number that the paper prints.

    Attributes:
        label: What it is, in the words of `path` where those say it.
        path: Where the metrics have it, in the same unit: keys from the outside in.
        value: What the paper prints.
    """

    label: str
    path: tuple[str, ...]
    value: float

    def beside(self, metrics: Metrics, stand_ins: Mapping[str, str] = MappingProxyType({})) -> Row:
        """The number beside what was measured in its place.

        Args:
            metrics: What was measured.
            stand_ins: What the metrics have in place of the paper's, by the path's keys.
        """
        found: Any = metrics
        here = self.label
        for key in self.path:
            name = stand_ins.get(key, key)
            here = here.replace(key, name)
            found = found.get(name) if isinstance(found, Mapping) else None
        return (
            Row(self.label, self.value, "", None) if found is None else Row(self.label, self.value, here, float(found))
        )


@dataclass(frozen=True, slots=True)
class Row:
    """A number that the paper prints, and its counterpart.

    Attributes:
        label: What it is in the paper.
        paper: What the paper prints.
        here: What was measured in its place; empty where nothing was.
        measured: What came out; None where nothing was measured.
    """

    label: str
    paper: float
    here: str
    measured: float | None


@dataclass(frozen=True)
class ExperimentContext:
    """Where experiments run.

    Attributes:
        datasets: Where data come from.
        say: Told what is going on.
    """

    datasets: Datasets
    say: Callable[[str], None] = lambda _: None
    _measured: dict[Hashable, Metrics] = field(default_factory=dict)

    def once(self, measure: Callable[[Any, ExperimentContext], Metrics], settings: Hashable) -> Metrics:
        """What a measurement gives; what several figures show is measured once."""
        key = (measure, settings)
        if key not in self._measured:
            self._measured[key] = measure(settings, self)
        return self._measured[key]


@dataclass(frozen=True)
class Experiment(Generic[Settings]):
    """A figure or a table of a paper.

    Attributes:
        name: `protocol/figure`, for example `…/table-1`.
        shows: What it shows, after its number in the paper.
        scales: Settings for each scale that it has; `small` is for what needs images.
        substitute: What smaller scales have in place of the paper's data, models and sizes.
        measure: Trains and measures.
        draw: Draws the metrics.
        claims: What of the paper it tests.
        printed: Numbers that the paper prints.
        stand_ins: What smaller scales measure in place of the paper's, by the keys of the paper's numbers.
        small: What `small` has, where `substitute` with its data for the digits does not say it.
    """

    name: str
    shows: str
    scales: Mapping[Scale, Settings]
    substitute: str
    measure: Callable[[Settings, ExperimentContext], Metrics]
    draw: Callable[[Metrics, Figure], None]
    claims: Sequence[Claim]
    printed: Sequence[Printed] = ()
    stand_ins: Mapping[str, str] = field(default_factory=dict)
    small: str = ""

    def instead(self, scale: Scale) -> str:
        """What a scale has in place of the paper's; empty for the paper's own."""
        if scale == "paper":
            return ""
        if scale != "small":
            return self.substitute
        return self.small or f"{self.substitute}; and {self._data(scale)}, more of it, for the digits"

    def stands_in(self, scale: Scale) -> dict[str, str]:
        """What a scale measures in place of the paper's, by the keys of the paper's numbers."""
        if scale == "paper":
            return {}
        if scale != "small":
            return dict(self.stand_ins)
        return {key: each.replace("digits", self._data(scale)) for key, each in self.stand_ins.items()}

    def _data(self, scale: Scale) -> str:
        """The data of a scale, as people call them."""
        return " and ".join(self.scales[scale].measured_on)


@dataclass(frozen=True)
class Reproduction:
    """What came of an experiment.

    Attributes:
        experiment: Its name.
        scale: Its scale.
        settings: Its settings, seeds among them.
        measured_on: The data.
        instead: What the scale has in place of the paper's; empty for the paper's own.
        metrics: What was measured.
        verdicts: What that says about each claim, by its text.
        rows: The paper's numbers and their counterparts.
        seconds: Wall time of the measurement.
    """

    experiment: str
    scale: Scale
    settings: Mapping[str, Any]
    measured_on: Sequence[str]
    instead: str
    metrics: Metrics
    verdicts: Mapping[str, Verdict]
    rows: Sequence[Row]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Everything as a JSON object."""
        return asdict(self)

    def comparison(self) -> str:
        """The claims and the paper's numbers beside the measured ones, as Markdown."""
        lines = ["| claim | at this scale |", "|---|---|"]
        lines += [f"| {text} | {verdict} |" for text, verdict in self.verdicts.items()]
        if self.rows:
            lines += ["", "| in the paper | | measured here | |", "|---|---|---|---|"]
            lines += [
                f"| {row.label} | {row.paper:g} | {row.here or '–'} | "
                f"{'–' if row.measured is None else format(row.measured, '.3g')} |"
                for row in self.rows
            ]
        return "\n".join(lines) + "\n"


def reproduce(experiment: Experiment[Any], scale: Scale, context: ExperimentContext) -> Reproduction:
    """Runs an experiment.

    Raises:
        InvalidValue: It has no such scale.
        ComityError: Its data are not there, or a session failed.
    """
    if scale not in experiment.scales:
        action = "choose one of these"
        raise InvalidValue(
            f"{experiment.name} has no such scale",
            expected=", ".join(experiment.scales),
            received=scale,
            action=action,
        )
    settings = experiment.scales[scale]
    began = time.monotonic()
    metrics = context.once(experiment.measure, settings)
    return Reproduction(
        experiment.name,
        scale,
        asdict(settings),
        settings.measured_on,
        experiment.instead(scale),
        metrics,
        {claim.text: claim.verdict(metrics, scale) for claim in experiment.claims},
        [each.beside(metrics, experiment.stands_in(scale)) for each in experiment.printed],
        time.monotonic() - began,
    )


def write(experiment: Experiment[Any], result: Reproduction, folder: Path, machine: Mapping[str, str]) -> list[Path]:
    """Writes `metrics.json`, `comparison.md`, and the picture as `figure.svg` and `figure.png`; returns their paths.

    Raises:
        InvalidValue: matplotlib is not installed.
    """
    from comity.experiments.charts import save  # noqa: PLC0415  # an extra

    folder.mkdir(parents=True, exist_ok=True)
    made = {"made": datetime.now(UTC).isoformat(timespec="seconds"), "machine": dict(machine)}
    (folder / "metrics.json").write_text(json.dumps(result.to_json() | made, indent=1) + "\n", encoding="utf-8")
    data = "; ".join(result.measured_on)
    head = (
        f"# {experiment.name}\n\n{experiment.shows}\n\nScale {result.scale}, {result.seconds:.0f} s. Data: {data}.\n\n"
    )
    head += f"At this scale: {result.instead}.\n\n" if result.instead else ""
    (folder / "comparison.md").write_text(head + result.comparison(), encoding="utf-8")
    title = f"{experiment.name}, scale {result.scale}: {data}"
    pictures = save(lambda figure: experiment.draw(result.metrics, figure), folder / "figure", title)
    return [folder / "metrics.json", folder / "comparison.md", *pictures]
