"""Configuration values into typed objects; what does not fit is one clear line."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from comity.errors import InvalidValue, MissingFile, UnknownKey, UsageError, of_system
from comity.suggestions import did_you_mean

Model = TypeVar("Model", bound=BaseModel)


def read_toml(path: Path) -> dict[str, Any]:
    """Reads a TOML file.

    Raises:
        MissingFile: It is not there, or is a folder.
        InvalidValue: It is no TOML.
    """
    return parse_toml(read_text(path), str(path))


def read_text(path: Path, expected: str = "a TOML file", action: str = "check the path") -> str:
    """The text of a TOML file, without the mark that some editors begin it with.

    Args:
        path: The file.
        expected: What it is to be, for errors.
        action: What to do where it is not there, for errors.

    Raises:
        MissingFile: It is not there, or is a folder.
        InvalidValue: It is no text, or cannot be read.
    """
    try:
        if not path.is_file():
            received = "a folder" if path.is_dir() else "nothing"
            raise MissingFile(f"{path} cannot be read", expected=expected, received=received, action=action)
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidValue(
            f"{path} cannot be read",
            expected="TOML in UTF-8",
            received=error.reason,
            action="save it in UTF-8; an editor or PowerShell may have made it UTF-16",
        ) from error
    except OSError as error:
        raise of_system(error) or error from error


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """Reads TOML.

    Args:
        text: The text.
        source: What to call it in errors.

    Raises:
        InvalidValue: It is no TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        action = "correct it at that place; texts stand in quotes"
        raise InvalidValue(f"{source} is no TOML", expected="TOML", received=error, action=action) from error
    except (RecursionError, ValueError) as error:
        # It is nested too deep, or has a number of thousands of digits.
        received = "tables or lists that are nested too deep" if isinstance(error, RecursionError) else error
        action = "correct it: make it flatter, with smaller numbers"
        raise InvalidValue(f"{source} cannot be used", expected="TOML", received=received, action=action) from error


def validated(model: type[Model], values: Mapping[str, Any], source: str) -> Model:
    """Checks values against a model.

    Args:
        model: What they should be.
        values: The values.
        source: Where they come from, to say so in errors.

    Raises:
        UnknownKey: There is a key that nothing reads; names the nearest that something does.
        InvalidValue: A value is missing, of the wrong kind or out of range.
    """
    try:
        return model(**values)
    except ValidationError as error:
        raise explained(model, error, source) from error


_OF_A_NAME = "[key]"
"""What pydantic puts behind the name in a table that is at fault itself, rather than its value."""

_HIDDEN = {"secret", "store", "key"}
"""Settings whose value no error repeats: it is secret, or somebody may have put what is secret in its place."""


def explained(
    model: type[BaseModel], error: ValidationError, source: str, *, environment: str | None = None
) -> UsageError:
    """The first thing that is wrong, unknown keys before others: a misspelt key also shows as a missing one.

    Args:
        model: What the values should be.
        error: What pydantic found.
        source: Where the values come from.
        environment: Prefix of the environment variables that go over them; None for none.
    """
    found = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    # The alternatives that a setting has are no part of where it stands.
    found["loc"] = tuple(part for part in found["loc"] if not str(part).startswith("("))
    place = ".".join(str(part) for part in found["loc"])
    if environment is not None:
        variable = environment + "__".join(str(part) for part in found["loc"]).upper()
        source = f"{variable} in the environment" if variable in os.environ else source
    if found["type"] == "extra_forbidden":
        known = list(_beside(model, found["loc"]))
        action = did_you_mean(found["loc"][-1], known, "remove it")
        return UnknownKey(
            f"{source}: unknown key {place}",
            expected=f"one of {', '.join(sorted(known))}",
            received=found["loc"][-1],
            action=action,
        )
    if found["type"] == "missing":
        key = str(found["loc"][-1])
        examples = _beside(model, found["loc"]).get(key, {}).get("examples", [])
        expected = ", ".join([f"a value for {place}", *(f"for example {_example(key, each)}" for each in examples)])
        return InvalidValue(
            f"{source}: {place} is missing", expected=expected, received="nothing", action=f"set {place}"
        )
    if found["loc"] and found["loc"][-1] == _OF_A_NAME:
        table = ".".join(str(part) for part in found["loc"][:-2])
        return InvalidValue(
            f"{source}: {table} has a name that it does not take",
            expected=found["msg"].removeprefix("Input should be "),
            received=repr(found["loc"][-2])[:120],
            action="correct the name, or remove it",
        )
    received = repr(found["input"])
    if _HIDDEN & set(found["loc"]) or "-----BEGIN" in received:
        received = "a value that is not shown"
    return InvalidValue(
        f"{source}: {place} cannot be used" if place else f"{source} cannot be used",
        # Of our own checks, which pydantic announces as errors in a value.
        expected=found["msg"].removeprefix("Value error, ").removeprefix("Input should be "),
        received=received[:120],
        action=f"correct {place}" if place else "correct what does not go together",
    )


def _example(key: str, value: Any) -> str:
    """A setting as a line of TOML."""
    if isinstance(value, dict):
        ((name, inner),) = value.items()
        return _example(f"{key}.{name}", inner)
    return f"{key} = {json.dumps(value)}"


def _beside(model: type[BaseModel], location: Iterable[int | str]) -> dict[str, Any]:
    """The keys that are known where something is wrong, with the schema of each."""
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    current = [schema]
    for part in list(location)[:-1]:
        inner = []
        for each in current:
            for resolved in _resolved(each, definitions):
                properties = resolved.get("properties", {})
                if part in properties:
                    inner.append(properties[part])
                elif isinstance(resolved.get("additionalProperties"), dict):
                    inner.append(resolved["additionalProperties"])
                elif "patternProperties" in resolved:
                    inner.extend(resolved["patternProperties"].values())
                elif resolved.get("properties", {}).get("name", {}).get("const") == part:
                    inner.append(resolved)
        current = inner
    found: dict[str, Any] = {}
    for each in current:
        for resolved in _resolved(each, definitions):
            # The first alternative is the usual one.
            found = {**resolved.get("properties", {}), **found}
    return found


def _resolved(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A schema with its reference or its alternatives followed."""
    if "$ref" in schema:
        return _resolved(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    alternatives = schema.get("anyOf", []) + schema.get("oneOf", [])
    if alternatives:
        return [resolved for each in alternatives for resolved in _resolved(each, definitions)]
    return [schema]
