"""`comity protocols`, `models`, `data` and `tasks`: what there is, built in and installed."""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.text import Text

from comity.cli.tables import show_json
from comity.errors import ComityError, InvalidValue
from comity.suggestions import did_you_mean

_OWN = "comity"
_ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n {5,}.*)*)", re.MULTILINE)


def show_protocols(name: str, *, as_json: bool) -> None:
    """Lists the protocols, with the terms of their sessions.

    Raises:
        InvalidValue: There is none of that name.
    """
    from comity.protocol.registry import protocols, unusable

    packages = _packages("comity.protocols")
    rows: list[dict[str, Any]] = [
        {
            "name": _hyphens(each.name),
            "version": each.version,
            "package": packages.get(_hyphens(each.name), _OWN),
            "initiator": each.initiator,
            "acceptor": each.acceptor,
            "crosses": list(each.egress),
            "models": list(each.models),
            "tasks": list(each.tasks),
            "terms": _fields(each.terms),
            "settings": _fields(kind) if (kind := each.extensions.settings_type()) is not None else [],
        }
        for each in protocols()
    ]
    rows = _named(rows, name, "protocol")
    if as_json:
        left_out = [{"name": each.name, "package": each.package, "why": each.what} for each in unusable()]
        show_json({"protocols": rows, "left_out": left_out})
        return
    for row in rows:
        _title(f"{row['name']}, version {row['version']}, {_package(row)}")
        _line(f"a {row['initiator']} asks, a {row['acceptor']} accepts; crosses: {', '.join(row['crosses'])}")
        tasks = ", ".join(row["tasks"]) or "any"
        _line(f"models: {', '.join(row['models']) or 'none'}; tasks: {tasks}")
        if name:
            _options("[session.terms] in a script", row["terms"])
            _options(f"[protocols.{row['name']}] in node.toml", row["settings"])
    if not name:
        _line("comity protocols NAME lists a protocol's terms and settings")
    for each in unusable():
        _line(str(each))


def show_models(name: str, *, as_json: bool) -> None:
    """Lists the models, with their options.

    Raises:
        InvalidValue: There is none of that name.
    """
    from comity.models import names

    packages = _packages("comity.models")
    listed = [{"name": each, "package": packages.get(each, _OWN)} for each in names()]
    chosen = _named(listed, name, "model")
    rows = [row | _model(str(row["name"])) for row in chosen]
    others = {
        "torchvision:NAME": "a classifier of torchvision's, or a model of masks, without weights",
        "[models] in node.toml": "your own: python:MODULE:FACTORY, timm:NAME, hf:FOLDER",
    }
    if as_json:
        show_json({"models": rows, "others": others})
        return
    for row in rows:
        _title(f"{row['name']}, {_package(row)}")
        if row["what"]:
            _line(row["what"])
        _options("session.model.options", row["options"])
    if not name:
        for form, what in others.items():
            _line(f"{form}: {what}")


def show_data(name: str, *, as_json: bool) -> None:
    """Lists the sources of data, with their settings.

    Raises:
        InvalidValue: There is none of that name.
    """
    from comity.data.config import SOURCES, DataConfig, PartitionConfig
    from comity.environments.config import EnvironmentConfig

    rows: list[dict[str, Any]] = [
        {"name": form, "package": _OWN, "what": what, "settings": _fields(DataConfig)[1:]}
        for form, what in SOURCES.items()
    ]
    from comity.data.added import added_sources

    rows += [
        {
            "name": each,
            "package": target.partition(":")[0],
            "what": "of an installed package",
            "settings": _fields(DataConfig)[1:],
        }
        for each, target in added_sources().items()
    ]
    games = "environments of Gymnasium, for reinforcement learning"
    rows.append({"name": "gymnasium:<id>", "package": _OWN, "what": games, "settings": _fields(EnvironmentConfig)[1:]})
    rows = _named(rows, name, "data source", spelled=lambda form: form.partition(":")[0])
    partitions = {
        kind.model_fields["name"].annotation.__args__[0]: _fields(kind)[1:] for kind in _members(PartitionConfig)
    }
    if as_json:
        show_json({"data": rows, "partitions": partitions})
        return
    for row in rows:
        _title(f"{row['name']}: {row['what']}")
        if name:
            _options("[data] in node.toml", row["settings"])
    if not name:
        _line("comity data NAME lists a source's settings")
        _title("partitions, for experiments that cut one data set up: [data.partition] in node.toml")
        for kind, fields in partitions.items():
            _line(f"{kind}: {', '.join(each['name'] for each in fields)}")


def show_tasks(name: str, *, as_json: bool) -> None:
    """Lists the kinds of task.

    Raises:
        InvalidValue: There is none of that name.
    """
    from comity.tasks import kind_names, task_kind

    packages = _packages("comity.tasks")
    listed = _named(
        [{"name": each, "package": packages.get(each, _OWN)} for each in kind_names()], name, "kind of task"
    )
    rows = []
    for row in listed:
        try:
            kind = task_kind(str(row["name"]))
        except ComityError as error:
            rows.append(row | {"head": None, "what": str(error)})
        else:
            rows.append(
                row | {"head": kind.head or None, "what": _first_line(sys.modules[type(kind).__module__].__doc__)}
            )
    if as_json:
        show_json({"tasks": rows})
        return
    for row in rows:
        _title(f"{row['name']}, {_package(row)}")
        _line(str(row["what"]))


def _model(name: str) -> dict[str, Any]:
    """What a model is, and the options of its factory."""
    from comity.models.catalogue import targets
    from comity.models.own import imported

    try:
        factory = imported(name, targets()[name], "repair or remove the package that adds it")
    except ComityError as error:
        return {"what": str(error), "options": []}
    options = [
        {
            "name": each.name,
            "type": str(each.annotation),
            "what": "",
            "default": None if each.default is each.empty else each.default,
            "required": each.default is each.empty,
        }
        for each in list(inspect.signature(factory).parameters.values())[2:]
        if each.kind is not each.VAR_KEYWORD
    ]
    return {"what": _first_line(factory.__doc__), "options": options}


def _fields(kind: type[BaseModel]) -> list[dict[str, Any]]:
    """The settings of a class: name, type, default, whether it has to be given, what it is, and those of a table in it."""
    said = _said_of(kind)
    rows = []
    for name, field in kind.model_fields.items():
        table = _table_in(field.annotation)
        row = {
            "name": name,
            "type": "a table" if table or field.discriminator is not None else _spelled(field.annotation),
            "default": None if field.is_required() else _plain(field.get_default(call_default_factory=True)),
            "required": field.is_required(),
            "what": said.get(name, ""),
        }
        rows.append(row | ({"fields": _fields(table)} if table else {}))
    return rows


def _table_in(annotation: Any) -> type[BaseModel] | None:
    """The class of a setting that is a table, or may be one."""
    union = typing.get_origin(annotation) in {typing.Union, types.UnionType}
    kinds = typing.get_args(annotation) if union else (annotation,)
    tables = [each for each in kinds if isinstance(each, type) and issubclass(each, BaseModel)]
    return tables[0] if len(tables) == 1 else None


def _spelled(annotation: Any) -> str:
    """A type as a user of a configuration file says it: `adam | sgd`, `float`, `list[str]`."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _spelled(inner[0])
    if origin is typing.Literal:
        return " | ".join(map(str, inner))
    if origin in {typing.Union, types.UnionType}:
        return " | ".join(dict.fromkeys(_spelled(each) for each in inner if each is not type(None)))
    if origin is not None:
        of = [_spelled(each) for each in inner if each is not ...]
        return f"{'table' if origin is dict else 'list'}[{', '.join(of)}]"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "a table"
    return "path" if annotation is Path else str(getattr(annotation, "__name__", annotation))


def _said_of(kind: type[BaseModel]) -> dict[str, str]:
    """What the docstring of a class says of its attributes; that of a class before those of its bases."""
    said: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        part = inspect.cleandoc(each.__doc__ or "").partition("Attributes:\n")[2].partition("\n\n")[0]
        for match in _ATTRIBUTE.finditer(part):
            said[match[1]] = " ".join(match[2].split())
    return said


def _plain(value: object) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _members(union: Any) -> Sequence[Any]:
    return list(union.__origin__.__args__)


def _packages(group: str) -> dict[str, str]:
    """The package that adds each name."""
    return {_hyphens(each.name): _of(each) for each in entry_points(group=group)}


def _of(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.module.partition(".")[0]


def _named(rows: list[dict[str, Any]], name: str, what: str, spelled: Any = lambda each: each) -> list[dict[str, Any]]:
    """All rows, or the one of a name, with hyphens or underscores."""
    if not name:
        return rows
    wanted = _hyphens(name).casefold()
    found = [row for row in rows if _hyphens(spelled(str(row["name"]))).casefold() == wanted]
    if not found:
        known = [spelled(str(row["name"])) for row in rows]
        raise InvalidValue(
            f"no such {what}",
            expected=", ".join(known),
            received=name,
            action=did_you_mean(name, known, "name one of these, or none for all"),
        )
    return found


def _hyphens(name: str) -> str:
    return name.replace("_", "-")


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]


def _package(row: Mapping[str, Any]) -> str:
    return "built in" if row["package"] == _OWN else f"of the package {row['package']}"


def _title(text: str) -> None:
    Console(highlight=False, soft_wrap=True).print(Text(text, style="bold"))


def _line(text: str) -> None:
    Console(highlight=False, soft_wrap=True).print(Text(f"  {text}"))


def _options(where: str, options: Sequence[Mapping[str, Any]], within: str = "") -> None:
    if not within:
        if not options:
            return
        _line(f"{where}:")
    for each in options:
        default = (
            "required" if each["required"] else "optional" if each["default"] is None else f"default {each['default']}"
        )
        _line(f"  {within}{each['name']}  ({each['type']}, {default})  {each['what']}".rstrip())
        if "fields" in each:
            _options(where, each["fields"], f"{within}{each['name']}.")
