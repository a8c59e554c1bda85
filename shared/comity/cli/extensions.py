"""Verbs that protocols add; what needs torch is imported when a verb is run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from comity.protocol.extensions import Verb

_PANEL = "Of one protocol"
_OWN = "comity-"
_PROTOCOLS, _VERBS = "[comity.protocols]", "[comity.verbs]"


class VerbGroup(TyperGroup):
    """The `comity` command with the verbs of protocols beside its own."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Its own verbs, and those of protocols."""
        if not _are_there_any():
            return super().list_commands(ctx)
        from comity.protocol.registry import unusable

        for line in [*(str(each) for each in unusable()), *self._sorted_out()[1]]:
            sys.stderr.write(f"comity: {line}\n")
        return [*super().list_commands(ctx), *self._added()]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A verb by its name; the command's own go before those of protocols."""
        own = super().get_command(ctx, cmd_name)
        return own if own is not None else self._added().get(cmd_name)

    def _added(self) -> dict[str, TyperCommand | TyperGroup]:
        """What protocols add, by the first word."""
        found: dict[str, list[Verb]] = {}
        for verb in self._sorted_out()[0]:
            found.setdefault(verb.name.partition(" ")[0], []).append(verb)
        return {name: _command(name, verbs) for name, verbs in sorted(found.items())}

    def _sorted_out(self) -> tuple[list[Verb], list[str]]:
        """The verbs that protocols add, and a line for each that is left out, since its name is taken."""
        from comity.protocol.registry import protocols

        owners: dict[str, str] = dict.fromkeys(self.commands, "comity itself")
        verbs: dict[str, Verb] = {}
        lines = []
        for definition in protocols():
            for verb in definition.extensions.verbs:
                first, _, rest = verb.name.partition(" ")
                taken = owners.get(first, definition.name) != definition.name or verb.name in verbs
                # A first word is a verb, or what several have in common.
                mixed = first in verbs if rest else first in owners
                if taken or mixed:
                    owner = owners[first]
                    lines.append(f"the verb {verb.name} of {definition.name} is left out: {owner} has one")
                else:
                    owners[first], verbs[verb.name] = definition.name, verb
        return list(verbs.values()), lines


def _are_there_any() -> bool:
    """Whether some package adds protocols, or this one's add verbs: what they are takes longer to find out than help does.

    This project's own protocols that have verbs are named in the entry-point group `comity.verbs` too.
    """
    for folder in sys.path:
        for file in Path(folder or ".").glob("*.dist-info/entry_points.txt"):
            text = file.read_text(encoding="utf-8", errors="replace")
            if _VERBS in text or (_PROTOCOLS in text and not file.parent.name.startswith(_OWN)):
                return True
    return False


def _command(first: str, verbs: Sequence[Verb]) -> TyperCommand | TyperGroup:
    """One verb, or a group of those that begin with a word."""
    if len(verbs) == 1 and verbs[0].name == first:
        return _LazyVerb(first, verbs[0])
    help_text = verbs[0].help if len(verbs) == 1 else f"{len(verbs)} verbs."
    group = TyperGroup(name=first, help=help_text, rich_help_panel=_PANEL)
    for verb in verbs:
        name = verb.name.partition(" ")[2]
        group.add_command(_LazyVerb(name, verb), name)
    return group


class _LazyVerb(TyperCommand):
    """A verb whose function is imported when it is run, or its own help is asked for."""

    def __init__(self, name: str, verb: Verb) -> None:
        super().__init__(name, help=verb.help, rich_help_panel=_PANEL)
        self._verb = verb

    def whole(self) -> Any:
        """The function's own command, with its options."""
        from comity.protocol.extensions import loaded

        app = typer.Typer(pretty_exceptions_enable=False)
        app.command(self.name, help=self._verb.help)(loaded(self._verb.run))
        return typer.main.get_command(app)

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """The context of the function's own command."""
        return self.whole().make_context(*args, **kwargs)
