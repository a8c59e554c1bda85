"""What a benchmark found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Self

from comity.contract import Json


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was measured.

    Attributes:
        label: What it is.
        median: Median over the repetitions, or the one value there is.
        unit: Unit of the median.
        ratio: Median over that of its baseline, where it has one.
        baseline: Label of the row that it is compared with.
    """

    label: str
    median: float
    unit: str
    ratio: float | None = None
    baseline: str = ""

    def over(self, baseline: Row) -> Row:
        """The same row, compared with a baseline of the same unit."""
        return Row(self.label, self.median, self.unit, self.median / baseline.median, baseline.label)


@dataclass(frozen=True, slots=True)
class Target:
    """What a ratio should be.

    Attributes:
        what: What is asked for.
        required: The bound, as text.
        got: What was measured.
        met: Whether it is within the bound.
    """

    what: str
    required: str
    got: float
    met: bool

    @classmethod
    def at_least(cls, what: str, bound: float, got: float) -> Self:
        """A target with a lower bound."""
        return cls(what, f">= {bound:g}", got, got >= bound)

    @classmethod
    def at_most(cls, what: str, bound: float, got: float) -> Self:
        """A target with an upper bound."""
        return cls(what, f"<= {bound:g}", got, got <= bound)


@dataclass(frozen=True)
class Report:
    """What a benchmark found.

    Attributes:
        name: The benchmark.
        machine: Where it ran, see `comity.bench.machine`.
        rows: What was measured.
        targets: What was asked for.
    """

    name: str
    machine: Mapping[str, str]
    rows: Sequence[Row]
    targets: Sequence[Target]

    def to_json(self) -> dict[str, Json]:
        """The report as a JSON object."""
        rows: list[Json] = [asdict(row) for row in self.rows]
        targets: list[Json] = [asdict(target) for target in self.targets]
        return {"name": self.name, "machine": dict(self.machine), "rows": rows, "targets": targets}

    def lines(self) -> list[str]:
        """The report as plain text."""
        return list(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.name} on {', '.join(f'{key} {value}' for key, value in self.machine.items())}"
        width = max((len(row.label) for row in self.rows), default=0)
        for row in self.rows:
            compared = "" if row.ratio is None else f"  {row.ratio:6.3f} of {row.baseline}"
            yield f"  {row.label:<{width}}  {row.median:10.4g} {row.unit:<6}{compared}".rstrip()
        for target in self.targets:
            verdict = "met" if target.met else "missed"
            yield f"  target {verdict}: {target.what} {target.required}, got {target.got:.3g}"
