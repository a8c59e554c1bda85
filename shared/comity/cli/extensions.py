"""Verbs that protocols add to the command."""

from __future__ import annotations

import sys

import typer
from typer.models import CommandInfo

from comity.protocol.extensions import Verb, loaded
from comity.protocol.registry import protocols

_PANEL = "What protocols add"


def add_verbs(app: typer.Typer, arguments: list[str]) -> None:
    """Adds the verbs of protocols to the command.

    A verb's function is imported when it is typed; where verbs are listed, what the protocol says of it is enough.

    Args:
        app: The command, with its own verbs.
        arguments: What was typed.
    """
    own = {_name(each) for each in app.registered_commands} | {str(each.name) for each in app.registered_groups}
    typed = [each for each in arguments if not each.startswith("-")]
    if typed[:1] and typed[0] in own:
        return
    groups: dict[str, typer.Typer] = {}
    for definition in protocols():
        for verb in definition.extensions.verbs:
            first, _, second = verb.name.partition(" ")
            if first in own:
                sys.stderr.write(
                    f"comity: the verb {first} of protocol {definition.name} is left out: there is one of that name\n"
                )
                continue
            group = app
            if second:
                if first not in groups:
                    groups[first] = typer.Typer(help=f"What {definition.name} adds.", no_args_is_help=True)
                    app.add_typer(groups[first], name=first, rich_help_panel=_PANEL)
                group = groups[first]
            _add(group, verb, second or first, is_typed=typed[:1] == [first])


def _add(group: typer.Typer, verb: Verb, name: str, *, is_typed: bool) -> None:
    function = loaded(verb.run) if is_typed else _listed
    group.command(name, help=function.__doc__ if is_typed else verb.help, rich_help_panel=_PANEL)(function)


def _listed() -> None:
    """Stands for a verb where verbs are listed."""


def _name(command: CommandInfo) -> str:
    return command.name or (command.callback.__name__.replace("_", "-") if command.callback is not None else "")
