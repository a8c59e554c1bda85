"""A party's own settings of protocols: `[protocols.NAME]` of its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from comity.errors import InvalidValue, UnknownKey, UnsupportedProtocol
from comity.node.validation import validated
from comity.protocol.registry import protocol, protocol_names, spelled
from comity.suggestions import did_you_mean


def settings_of_all(values: Mapping[str, Any]) -> dict[str, BaseModel]:
    """Settings as the protocols have them, by the protocols' names.

    Args:
        values: Settings by name, with hyphens or underscores.

    Raises:
        UnknownKey: There is no such protocol, or no such setting of it.
        InvalidValue: A value cannot be used, or a protocol has settings twice.
    """
    found: dict[str, BaseModel] = {}
    for given, setting in values.items():
        name = spelled(given)
        if name in found:
            raise InvalidValue(
                f"[protocols] names {name} twice", expected="one table", received=given, action="make one of the two"
            )
        try:
            found[name] = _settings(given, name, setting)
        except UnsupportedProtocol:
            # Its package does not work, which is said where a node starts: the others need not wait for its repair.
            continue
    return found


def defaults(kind: type[BaseModel], name: str) -> BaseModel:
    """Settings of a protocol for which a party has no table.

    Raises:
        InvalidValue: One of them has no default.
    """
    return validated(kind, {}, f"protocols.{name.replace('_', '-')}")


def _settings(given: str, name: str, values: object) -> BaseModel:
    known = protocol_names()
    if name not in known:
        hyphened = [each.replace("_", "-") for each in known]
        action = did_you_mean(name, hyphened, "remove it, or install the package")
        expected = ", ".join(hyphened)
        raise UnknownKey(f"unknown key protocols.{given}", expected=expected, received=given, action=action)
    kind = protocol(name).extensions.settings_type()
    if kind is None:
        raise UnknownKey(
            f"{name} has no settings", expected="nothing", received=f"protocols.{given}", action="remove it"
        )
    if isinstance(values, kind):
        return values
    if not isinstance(values, dict):
        raise InvalidValue(
            f"protocols.{given} cannot be used",
            expected="a table",
            received=values,
            action=f"write [protocols.{given}]",
        )
    return validated(kind, values, f"protocols.{given}")
