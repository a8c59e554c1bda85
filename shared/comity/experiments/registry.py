"""Every figure and table that can be run, by name."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from pkgutil import resolve_name
from typing import Any

from comity.experiments.reproduction import Experiment
from comity.experiments.studies import all_studies, unknown


def experiments() -> dict[str, Experiment[Any]]:
    """All experiments by name, in the order of the papers; of two of one name the first."""
    return _found()[0]


def _found() -> tuple[dict[str, Experiment[Any]], list[str]]:
    """The experiments, and a line for each place where there are none that can be imported."""
    found: dict[str, Experiment[Any]] = {}
    broken = []
    for studies in all_studies():
        for place in studies.experiments:
            try:
                here: Sequence[Experiment[Any]] = resolve_name(place)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a package does, the others work
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                broken.append(f"the experiments at {place} are left out: {reason}")
                continue
            for each in here:
                found.setdefault(each.name, each)
    return dict(sorted(found.items(), key=lambda item: _place(item[0]))), broken


def chosen(patterns: list[str]) -> list[Experiment[Any]]:
    """The experiments of these names; `PROTOCOL/table-*` means several.

    Raises:
        InvalidValue: There is none of a name.
    """
    known, broken = _found()
    names: dict[str, None] = {}
    for pattern in patterns:
        plain = pattern.replace("_", "-").casefold()
        matching = [name for name in known if fnmatch(name.replace("_", "-"), plain)]
        if not matching:
            advice = "; ".join(["see comity reproduce --list", *broken])
            raise unknown("experiment", pattern, known, expected="a figure or a table", action=advice)
        names |= dict.fromkeys(matching)
    return [known[name] for name in names]


def _place(name: str) -> tuple[str, str, int]:
    kind, _, number = name.rpartition("-")
    return (kind.partition("/")[0], kind, int(number)) if number.isdecimal() else (kind.partition("/")[0], name, 0)
