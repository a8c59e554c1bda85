"""Sessions as Python says them: a protocol with terms, or a script as a file, a text or a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comity.contract import Terms
from comity.errors import InvalidValue, MissingFile
from comity.node.sessions.script import Script, parse_script
from comity.node.validation import validated
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.registry import protocol, protocols

ScriptLike = Script | Mapping[str, Any] | Path | str
"""A script: itself, a table with `session`, a file, or TOML."""


def is_script(value: object) -> bool:
    """Whether somebody means a script, and not the name of a protocol."""
    return not isinstance(value, str) or "\n" in value or value.endswith(".toml")


def script_of(value: ScriptLike) -> Script:
    """A script, however it is said.

    Raises:
        UsageError: It is none.
    """
    match value:
        case Script():
            return value
        case Mapping():
            return validated(Script, value, "the script")
        case str() if "\n" in value:
            return parse_script(value)
        case str() | Path():
            path = Path(value)
            if not path.is_file():
                raise MissingFile(f"{path} cannot be read", expected="a script in TOML", received="no such file")
            return parse_script(path.read_text(encoding="utf-8"), str(path))
    raise InvalidValue(
        "the session cannot be used",
        expected="the name of a protocol, or a script: a table with `session`, a path or TOML",
        received=type(value).__name__,
    )


def terms_of(definition: ProtocolDefinition, given: Terms | Mapping[str, Any] | None) -> dict[str, Any]:
    """A protocol's terms as a script has them.

    Raises:
        UsageError: They are another protocol's, or no terms.
    """
    if isinstance(given, Terms):
        if not isinstance(given, definition.terms):
            raise InvalidValue(
                f"the terms are not {definition.name}'s",
                expected=definition.terms.__name__,
                received=type(given).__name__,
                action=f"use {definition.terms.__module__}.{definition.terms.__name__}, or a dict",
            )
        return given.model_dump(mode="json", exclude_unset=True)
    if given is not None and not isinstance(given, Mapping):
        raise InvalidValue(
            "the terms cannot be used", expected="a dict, or the protocol's terms", received=type(given).__name__
        )
    # Here, so that what is wrong with them is said before any data are read.
    validated(definition.terms, dict(given or {}), f"the terms of {definition.name}")
    return dict(given or {})


def terms(protocol_name: str, /, **values: Any) -> Terms:
    """Terms of a protocol; what is left out has its default.

    Args:
        protocol_name: The protocol.
        **values: Its terms, as its README and its terms class explain them.

    Raises:
        UnsupportedProtocol: There is no such protocol.
        UsageError: A value cannot be used.
    """
    definition = protocol(protocol_name)
    return validated(definition.terms, values, f"the terms of {definition.name}")


def protocol_of(given: Terms) -> ProtocolDefinition:
    """The protocol whose terms these are.

    Raises:
        InvalidValue: There is none.
    """
    for each in protocols():
        if isinstance(given, each.terms):
            return each
    raise InvalidValue("the terms are no protocol's", expected="terms of a protocol", received=type(given).__name__)


def session_script(
    definition: str | ProtocolDefinition,
    given: Terms | Mapping[str, Any] | None,
    *,
    acceptors: list[str],
    rounds: int,
    seed: int,
    **rest: Any,
) -> Script:
    """A script without parties.

    Args:
        definition: The protocol.
        given: Its terms.
        acceptors: Who helps.
        rounds: Rounds to buy.
        seed: Seed of everything public.
        **rest: More of `[session]`; what is None is left out.

    Raises:
        UsageError: A value cannot be used.
    """
    found = protocol(definition) if isinstance(definition, str) else definition
    session = {
        "protocol": found.name,
        "acceptors": acceptors,
        "rounds": rounds,
        "seed": seed,
        "terms": terms_of(found, given),
        **{name: value for name, value in rest.items() if value is not None},
    }
    return validated(Script, {"session": session}, "the session")
