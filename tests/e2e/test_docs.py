"""Every verb explains itself."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Any

import pytest
import typer

from comity.cli.main import app


def _verbs(group: Any, path: str = "") -> dict[str, Any]:
    """Every verb by its words, those of groups too."""
    found = {}
    for name, command in group.commands.items():
        words = f"{path}{name}"
        found |= _verbs(command, f"{words} ") if hasattr(command, "commands") else {words: command}
    return found


VERBS = _verbs(typer.main.get_command(app))


def test_the_verbs_are_those_of_the_design() -> None:
    assert {"demo", "simulate", "run", "node", "bench"} <= set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_help_with_an_example(verb: str) -> None:
    text = VERBS[verb].help
    assert re.search(rf"^Example: `comity (demo --print-script > \S+ && comity )?{verb}\b[^`]*`$", text, re.MULTILINE)
    assert text.splitlines()[0].endswith(".")


@pytest.mark.parametrize("verb", VERBS)
def test_every_argument_and_option_is_explained(verb: str) -> None:
    unexplained = [each.name for each in VERBS[verb].params if not each.help]
    assert not unexplained


@pytest.mark.parametrize("verb", VERBS)
def test_the_example_is_accepted(verb: str) -> None:
    """Its options are ones that the verb has: what users copy must parse."""
    example = re.search(r"Example: `([^`]*)`", VERBS[verb].help)
    assert example is not None
    words = shlex.split(example[1].split("&&")[-1].split(">")[0])[1 + len(verb.split()) :]
    parse: Callable[..., Any] = VERBS[verb].make_context
    context = parse(verb, words, resilient_parsing=False)
    context.close()


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in {"node", "version", "ledger export"}])
def test_verbs_with_a_result_give_it_as_json(verb: str) -> None:
    assert any("--json" in each.opts for each in VERBS[verb].params)
