"""What a protocol brings to be tried and measured with: demos, baselines, figures and tables, benchmarks, points to die at.

The entry-point group `comity.studies` names them, one entry for each protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pkgutil import resolve_name
from typing import Any, TypeVar

from comity.errors import InvalidValue
from comity.suggestions import did_you_mean

GROUP = "comity.studies"
_OWN = "comity"

Named = TypeVar("Named")


@dataclass(frozen=True, slots=True)
class Demo:
    """A session on data that come with the installation.

    Attributes:
        script: `package.module:NAME` of the function that makes its script of a seed.
        guarded: Likewise, of one with samples enough for a leak guard; empty for none.
        sessions: How many sessions it runs, one after the other, with seeds that follow.
        kill: Where `--kill` strikes, `point:n`: in the middle of a round.
        switches: What else can be asked of it, and what each does; `--NAME` passes `NAME=True` to `script`.
    """

    script: str
    guarded: str = ""
    sessions: int = 1
    kill: str = "commit:50"
    switches: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Something that is claimed about speed.

    Attributes:
        measures: What it measures, against what.
        run: `package.module:NAME` of the function that measures; takes `quick`, and returns a report.
    """

    measures: str
    run: str


@dataclass(frozen=True, slots=True)
class Studies:
    """What a protocol brings to be tried and measured with.

    Attributes:
        protocol: The protocol's name.
        demos: Its demos by name, the first one first.
        baselines: `package.module:NAME` of the function that trains, on a script's own parties, what the protocol is
            compared with, and adds it to a session's metrics; empty for none.
        experiments: `package.module:NAME` of each list of figures and tables.
        benchmarks: Its benchmarks, by name.
        faults: Beside the points that every session passes, those at which a node of a role can be killed, by role; with
            the highest number of the point that is worth choosing.
    """

    protocol: str
    demos: Mapping[str, Demo] = field(default_factory=dict)
    baselines: str = ""
    experiments: tuple[str, ...] = ()
    benchmarks: Mapping[str, Benchmark] = field(default_factory=dict)
    faults: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def all_studies() -> tuple[Studies, ...]:
    """What all protocols bring; this project's own first. What cannot be imported is left out; see `left_out`."""
    return _found()[0]


def left_out() -> tuple[str, ...]:
    """What cannot be imported, a line for each package."""
    return _found()[1]


@cache
def _found() -> tuple[tuple[Studies, ...], tuple[str, ...]]:
    found, broken = [], []
    for point in sorted(entry_points(group=GROUP), key=lambda each: (_package(each) != _OWN, each.name)):
        try:
            studies = point.load()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever somebody else's package does, the others work
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            broken.append(f"the studies {point.name} of package {_package(point)} are left out: {reason}")
            continue
        if isinstance(studies, Studies):
            found.append(studies)
        else:
            broken.append(f"the studies {point.name} of package {_package(point)} are left out: no Studies")
    return tuple(found), tuple(broken)


def studies_of(protocol: str) -> Studies:
    """What a protocol brings; nothing where it brings nothing."""
    return next((each for each in all_studies() if each.protocol == protocol), Studies(protocol))


def demos() -> dict[str, Demo]:
    """All demos by name, the default first; of two of one name the first."""
    return _first(item for each in all_studies() for item in each.demos.items())


def demo_named(name: str) -> tuple[str, Demo]:
    """A demo by its name, with hyphens or underscores; the first where none is named.

    Raises:
        InvalidValue: There is none.
    """
    known = demos()
    wanted = name.replace("_", "-") or next(iter(known), "")
    if wanted not in known:
        raise unknown("demo", name, known)
    return wanted, known[wanted]


def benchmarks() -> dict[str, Benchmark]:
    """The benchmarks of all protocols, by name; of two of one name the first."""
    return _first(item for each in all_studies() for item in each.benchmarks.items())


def _first(items: Iterable[tuple[str, Named]]) -> dict[str, Named]:
    """What has a name; a package takes none from those before it."""
    found: dict[str, Named] = {}
    for name, each in items:
        found.setdefault(name, each)
    return found


def loaded(place: str) -> Callable[..., Any]:
    """The function at a place that studies name."""
    found: Callable[..., Any] = resolve_name(place)
    return found


def unknown(
    kind: str, name: str, known: Iterable[str], *, expected: str = "", action: str = "name one of these"
) -> InvalidValue:
    """The error of who names a demo, an experiment or a benchmark that there is not; it tells of packages left out.

    Args:
        kind: What was named.
        name: What it was called.
        known: The names that there are.
        expected: What to say instead of all of them.
        action: What to do where none of them is near.
    """
    names = list(known)
    advice = did_you_mean(name, names, action)
    return InvalidValue(
        f"no such {kind}",
        expected=expected or ", ".join(names),
        received=name,
        action="; ".join([advice, *left_out()]),
    )


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.module.partition(".")[0]
