"""`comity bench`."""

from __future__ import annotations

from comity.bench import known, run
from comity.cli.tables import show_json
from comity.errors import InvalidValue
from comity.suggestions import did_you_mean


def run_benchmarks(names: list[str], *, every: bool, quick: bool, as_json: bool) -> None:
    """Runs benchmarks and prints what they measured; without names, lists them.

    Raises:
        InvalidValue: There is no benchmark of a name.
    """
    found = known()
    chosen = list(found) if every else names
    for name in chosen:
        if name not in found:
            action = did_you_mean(name, found, "name one of these")
            raise InvalidValue("no such benchmark", expected=", ".join(found), received=name, action=action)
    if not chosen:
        print("\n".join(f"{name:<12} {each.measures}" for name, each in found.items()))  # noqa: T201
    reports = []
    for name in chosen:
        report = run(name, quick=quick)
        reports.append(report.to_json())
        if not as_json:
            print("\n".join(report.lines()))  # noqa: T201
    if as_json:
        show_json({"benchmarks": reports})
