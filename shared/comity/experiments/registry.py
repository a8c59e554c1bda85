"""Every figure and table that can be run, by name."""

from __future__ import annotations

from fnmatch import fnmatch
from pkgutil import resolve_name
from typing import Any

from comity.experiments.reproduction import Experiment
from comity.experiments.studies import all_studies, unknown


def experiments() -> dict[str, Experiment[Any]]:
    """All experiments by name, in the order of the papers; of two of one name the first."""
    found: dict[str, Experiment[Any]] = {}
    for studies in all_studies():
        for place in studies.experiments:
            for each in resolve_name(place):
                found.setdefault(each.name, each)
    return dict(sorted(found.items(), key=lambda item: _place(item[0])))


def chosen(patterns: list[str]) -> list[Experiment[Any]]:
    """The experiments of these names; `PROTOCOL/table-*` means several.

    Raises:
        InvalidValue: There is none of a name.
    """
    known = experiments()
    names: dict[str, None] = {}
    for pattern in patterns:
        matching = [name for name in known if fnmatch(name, pattern)]
        if not matching:
            raise unknown(
                "experiment", pattern, known, expected="a figure or a table", action="see comity reproduce --list"
            )
        names |= dict.fromkeys(matching)
    return [known[name] for name in names]


def _place(name: str) -> tuple[str, str, int]:
    kind, _, number = name.rpartition("-")
    return (kind.partition("/")[0], kind, int(number)) if number.isdecimal() else (kind.partition("/")[0], name, 0)
