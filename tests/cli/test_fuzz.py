"""Whatever is typed or configured, a person sees a line and an exit code, and no traceback."""

from __future__ import annotations

import json
import math
import os
import tomllib
import types
import typing
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
import tomlkit
import typer
from pydantic import BaseModel

from comity.cli.main import main
from comity.cli.verbs.app import app
from comity.errors import ComityError
from comity.node.config import NodeConfig, load_config
from comity.node.preflight import Context
from comity.node.preflight.checks import CHECKS
from comity.node.preflight.rows import of_error
from comity.node.sessions.script import Script, parse_script

assert main

WORDS = [
    "",
    "nope",
    "-1",
    "nan",
    "ünï-€-😀",
    "a" * 4000,
    "%s%n",
    "a\nb\x1b[2J",
    "[bold]x[/nope]",
    "50%20off",
    "x@y",
    "@",
    "unix:",
]
"""What may be typed for anything."""

EACH = 4
"""How many of them are tried for each parameter, in turn: each is tried at many."""

LONG = {"demo", "bench", "reproduce", "simulate"}
"""Verbs that work for long where what they are given is right: they get what is wrong alone."""


def verbs() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every verb of the command's own, and its parameters."""

    def walk(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
        inner = getattr(command, "commands", {})
        for name, each in inner.items():
            yield from walk(each, (*words, name))
        if words and not (inner and not command.invoke_without_command):
            yield words, command

    yield from walk(typer.main.get_command(app), ())


def files(folder: Path) -> list[Path]:
    """Files of which none is what any verb wants, a folder, and nothing."""
    contents = {
        "empty": b"",
        "binary": bytes(range(256)),
        "latin-1": "# é\nparty = 'ü'\n".encode("latin-1"),
        "utf-16": "party = 'x'\n".encode("utf-16"),
        "bom": b"\xef\xbb\xbfparty = 1\n",
        "deep": b"a = " + b"[" * 3000,
        "other": b"[session]\nprotocol = 3\n[party]\nx = 1\n",
        "json": b'{"a": 1}\n[]\n"x"\n',
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "loop").symlink_to(folder / "loop")
    return [*(folder / name for name in contents), folder, folder / "loop", folder / "none", folder / "empty" / "below"]


def arguments_of(verb: Any, folder: Path) -> Iterator[list[str]]:
    """Command lines of a verb: each of its parameters with each of the values, the others left out or plausible."""
    words = cycle([*WORDS, *map(str, files(folder))])
    needed = [each for each in verb.params if each.param_type_name == "argument" and each.required]
    options = [each for each in verb.params if each.param_type_name == "option" and each.name != "help"]
    plain = [str(folder / "other") for _ in needed]
    for at in range(len([each for each in verb.params if each.param_type_name == "argument"])):
        for word in islice(words, EACH):
            given = (plain + ["nope"] * (at + 1))[: max(at + 1, len(needed))]
            given[at] = word
            yield ["--", *given]
    for each in options:
        flag = each.opts[0]
        if each.is_flag:
            yield [flag, "--", *plain]
            continue
        for word in islice(words, EACH):
            yield [f"{flag}={word}", "--", *plain]


def told(done: Any) -> str | None:
    """What is wrong with how a command ended; None for nothing."""
    for text in (done.out, done.error):
        if "Traceback" in text or "should not happen" in text or "this check itself failed" in text:
            return text[-600:]
    if done.code not in {0, 1, 2, 3}:
        return f"exit code {done.code}"
    return None if done.code == 0 or done.error or done.out else "nothing is said"


@pytest.mark.parametrize(
    ("words", "verb"), list(verbs()), ids=lambda each: " ".join(each) if isinstance(each, tuple) else ""
)
def test_whatever_is_typed_is_answered(
    words: tuple[str, ...],
    verb: Any,
    typed: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMITY_DATA", "")
    monkeypatch.setattr(os, "execv", lambda *_: (_ for _ in ()).throw(SystemExit(0)))
    folder = tmp_path / "given"
    folder.mkdir()
    wrong = []
    for given in arguments_of(verb, folder):
        if words[0] in LONG and (
            given[0] in {"--all", "--list", "--quick", "--json", "--print-script"} or given == ["--", ""]
        ):
            continue
        if words[0] == "demo" and given[0] != "--" and not given[0].startswith(("--seed", "--sessions")):
            continue
        done = typed(*words, *given)
        if (found := told(done)) is not None:
            wrong.append((given[0][:60], found))
    assert not wrong, wrong[:5]


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252"])
@pytest.mark.parametrize(
    "command", ["--help", "check --help", "check", "sessions", "nope-ü", "models nöpe", "protocols"]
)
def test_a_terminal_of_another_encoding_is_no_mistake(
    worked: Path, typed: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, command: str, encoding: str
) -> None:
    monkeypatch.chdir(worked)
    assert told(typed(*command.split(), encoding=encoding)) is None


def test_with_json_an_error_is_an_object(typed: Callable[..., Any], tmp_path: Path) -> None:
    done = typed("show", "--node", tmp_path, "--json")
    assert json.loads(done.out)["error"] == "MISSING_FILE"
    assert done.code == 2


def test_what_nobody_thought_of_is_a_line_and_a_file(
    typed: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("at postgresql://me:password@host/db,\n-----BEGIN PRIVATE KEY-----\nabc")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("COMITY_NODE_SECRET", "rosebud")
    monkeypatch.setattr("comity.cli.catalogue.show_tasks", fail)
    done = typed("tasks", "rosebud", "--json")
    assert done.code == 1
    (file,) = tmp_path.glob("comity-crash-*.txt")
    assert file.stat().st_mode & 0o777 == 0o600
    assert done.error.count("\n") == 1
    assert str(file) in done.error
    assert json.loads(done.out)["crash_file"] == str(file)
    text = file.read_text(encoding="utf-8")
    assert "ZeroDivisionError" in text
    assert "torch 2" in text
    for secret in ("password", "abc", "rosebud"):
        assert secret not in text + done.error + done.out
    typed("tasks")
    assert len(list(tmp_path.glob("comity-crash-*.txt"))) == 1


# --- Configurations -------------------------------------------------------------------------------------------------------

VALUES: list[Any] = [
    "", "x", "~nobody/x", "a" * 5000, "50%20off#x?y", "::1:5500", "\u202e", -1, 0, 10**25, 0.5, 1e308, math.nan, -math.inf,
    True, [], ["x", 1], {}, {"x": {"y": 1}}, tomllib.loads("a = 1979-05-27T07:32:00Z")["a"],
]  # fmt: skip


def settings(
    model: type[BaseModel], place: tuple[str, ...] = (), seen: tuple[type, ...] = ()
) -> Iterator[tuple[str, ...]]:
    """Where each value of a configuration stands."""
    for name, field in model.model_fields.items():
        here = (*place, name)
        yield here
        for inner in models_in(field.annotation):
            if inner not in seen:
                below = (*here, "x") if "dict" in str(field.annotation) else here
                yield from settings(inner, below, (*seen, model))


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in a type."""
    if (
        isinstance(annotation, type)
        and not isinstance(annotation, types.GenericAlias)
        and issubclass(annotation, BaseModel)
    ):
        yield annotation
    for each in typing.get_args(annotation):
        yield from models_in(each)


def with_value(values: dict[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A configuration with another value at a place."""
    found = dict(values)
    if len(place) == 1:
        found[place[0]] = value
    else:
        inner = found.get(place[0])
        found[place[0]] = with_value(inner if isinstance(inner, dict) else {}, place[1:], value)
    return found


def test_whatever_is_configured_is_answered(worked: Path) -> None:
    path = worked / "node.toml"
    right = tomllib.loads(path.read_text(encoding="utf-8"))
    light = list(CHECKS)[: list(CHECKS).index("protocols")]
    wrong = []
    values = cycle(VALUES)
    for place in dict.fromkeys(settings(NodeConfig)):
        for value in islice(values, 7):
            path.write_text(tomlkit.dumps(with_value(right, place, value)), encoding="utf-8")
            what = f"{'.'.join(place)} = {value!r}"[:80]
            try:
                load_config(NodeConfig, path)
            except ComityError as error:
                if len(str(error).splitlines()) != 1:
                    wrong.append((what, str(error)))
                continue
            except Exception as error:  # noqa: BLE001 - what is looked for
                wrong.append((what, repr(error)))
                continue
            wrong += [(what, found) for found in failed_checks(path, light)]
    assert not wrong, wrong[:8]


def failed_checks(path: Path, names: list[str]) -> Iterator[str]:
    """The checks that fail by themselves with a configuration."""
    context = Context(path)
    for name in names:
        try:
            list(resolve_name(f"comity.node.preflight.{CHECKS[name]}")(context))
        except Exception as error:  # noqa: BLE001 - what is looked for
            if "this check itself failed" in of_error(name, error).action:
                yield f"{name}: {error!r}"


def test_whatever_a_script_says_is_answered(typed: Callable[..., Any]) -> None:
    right = tomllib.loads(typed("demo", "--print-script").out)
    wrong = []
    places = [tuple("clinic" if each == "x" else each for each in place) for place in settings(Script)]
    values = cycle(VALUES)
    for place in dict.fromkeys(places):
        for value in islice(values, 7):
            text = tomlkit.dumps(with_value(right, place, value))
            try:
                parse_script(text, "s.toml")
            except ComityError:
                continue
            except Exception as error:  # noqa: BLE001 - what is looked for
                wrong.append((f"{'.'.join(place)} = {value!r}"[:80], repr(error)))
    assert not wrong, wrong[:8]
