"""Switches that a command does not know beforehand: those of a demo."""

from __future__ import annotations

from collections.abc import Sequence

from comity.errors import UsageError
from comity.experiments.studies import demo_named, demos
from comity.suggestions import did_you_mean


def taken_apart(words: Sequence[str], options: Sequence[str]) -> tuple[str, list[str]]:
    """The demo that is named, and what else is asked of it.

    Args:
        words: All that no option of the command took.
        options: The command's own options.

    Raises:
        UsageError: There is a word too many, or an option that neither the command nor the demo has.
    """
    asked = [each for each in words if each.startswith("-")]
    _require_among(asked, [f"--{switch}" for each in demos().values() for switch in each.switches], options)
    names = [each for each in words if each and not each.startswith("-")]
    if len(names) > 1:
        raise UsageError("one demo is shown at a time", expected="one name", received=" ".join(names))
    name = names[0] if names else ""
    if asked:
        _require_among(asked, [f"--{switch}" for switch in demo_named(name)[1].switches], options)
    return name, [each.removeprefix("--") for each in asked]


def _require_among(asked: Sequence[str], switches: Sequence[str], options: Sequence[str]) -> None:
    for each in asked:
        if each not in switches:
            known = [*switches, *(option for option in options if option.startswith("--"))]
            raise UsageError(
                f"No such option: {each}",
                expected=", ".join(switches) or "no switch of the demo's own",
                received=each,
                action=did_you_mean(each, known, "comity demo --help lists the options"),
            )
