"""Every figure and table that can be run, by name."""

from __future__ import annotations

import difflib
from fnmatch import fnmatch
from pkgutil import resolve_name
from typing import Any

from comity.errors import InvalidValue
from comity.experiments.reproduction import Experiment
from comity.experiments.studies import all_studies


def experiments() -> dict[str, Experiment[Any]]:
    """All experiments by name, in the order of the papers."""
    found: dict[str, Experiment[Any]] = {}
    for studies in all_studies():
        for place in studies.experiments:
            found |= {each.name: each for each in resolve_name(place)}
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
            near = difflib.get_close_matches(pattern, known, n=1)
            action = f"did you mean {near[0]}?" if near else "see comity reproduce --list"
            raise InvalidValue("no such experiment", expected="a figure or a table", received=pattern, action=action)
        names |= dict.fromkeys(matching)
    return [known[name] for name in names]


def _place(name: str) -> tuple[str, str, int]:
    kind, _, number = name.rpartition("-")
    return (kind.partition("/")[0], kind, int(number)) if number.isdecimal() else (kind.partition("/")[0], name, 0)
