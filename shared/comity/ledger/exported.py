"""A ledger as a text that another party can check: JSON lines, the head first.

What belongs to other sessions than the one that is exported is shown as positions and hashes alone: the chain holds
them, and the quoted heads can be found in it, while the reader learns nothing of what was done with others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from comity.contract import canonical
from comity.errors import InvalidValue
from comity.ledger.ledger import Entry, Fact, Head

FORMAT = 1
"""Version of the format."""


@dataclass(frozen=True, slots=True)
class Link:
    """An entry of which only the place in the chain is shown.

    Attributes:
        index: Position in the chain, from 0.
        hash: Hash of the entry.
    """

    index: int
    hash: str


Line = Entry | Link


@dataclass(frozen=True)
class Exported:
    """A ledger that was exported.

    Attributes:
        lines: Its entries in order.
        head: The end of its chain.
    """

    lines: Sequence[Line]
    head: Head


def export(entries: Iterable[Entry], head: Head, *, session: str | None = None) -> str:
    """Writes a ledger.

    Args:
        entries: All of its entries.
        head: The end of the chain.
        session: Show the entries of this session alone; of the others, their place in the chain.
    """
    lines: list[object] = [{"comity_ledger": FORMAT, "length": head.length, "hash": head.hash}]
    for entry in entries:
        hidden = session is not None and entry.fact.session != session
        lines.append({"index": entry.index, "hash": entry.hash} if hidden else to_json(entry))
    return "".join(f"{canonical(line).decode()}\n" for line in lines)


def to_json(entry: Entry) -> dict[str, Any]:
    """An entry as a JSON object."""
    fact = entry.fact
    return {
        "index": entry.index,
        "matter": fact.matter,
        "session": fact.session,
        "round": fact.round,
        "peer": fact.peer,
        "direction": fact.direction,
        "kind": fact.kind,
        "subject": fact.subject,
        "size": fact.size,
        "body": fact.body,
        "time": entry.time,
        "previous": entry.previous,
        "hash": entry.hash,
    }


def load(text: str) -> Exported:
    """Reads what `export` wrote. Whether it holds is `verify`'s to say.

    Raises:
        InvalidValue: It is something else.
    """
    # Not splitlines(): within a text there may stand what it takes for the end of a line.
    lines = text.removesuffix("\n").split("\n")
    objects = [_object(number, line) for number, line in enumerate(lines, start=1)]
    if objects[0].get("comity_ledger") != FORMAT:
        raise InvalidValue(
            "this is no exported ledger",
            expected=f'a first line with "comity_ledger": {FORMAT}',
            received=lines[0][:80],
            action="comity ledger export writes one",
        )
    _require(1, objects[0], _HEAD)
    head = Head(objects[0]["length"], objects[0]["hash"])
    return Exported([_line(number, each) for number, each in enumerate(objects[1:], start=2)], head)


_HEAD: Mapping[str, tuple[type, ...]] = {"comity_ledger": (int,), "length": (int,), "hash": (str,)}
_LINK: Mapping[str, tuple[type, ...]] = {"index": (int,), "hash": (str,)}
_ENTRY: Mapping[str, tuple[type, ...]] = {
    "index": (int,),
    "matter": (str,),
    "session": (str,),
    "round": (int,),
    "peer": (str,),
    "direction": (str, type(None)),
    "kind": (str, type(None)),
    "subject": (str,),
    "size": (int,),
    "body": (dict,),
    "time": (str,),
    "previous": (str,),
    "hash": (str,),
}


def _object(number: int, line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _unreadable(number, "a JSON object", line or "nothing") from error
    if not isinstance(value, dict):
        raise _unreadable(number, "a JSON object", line)
    return value


def _line(number: int, value: dict[str, Any]) -> Line:
    if len(value) == len(_LINK):
        _require(number, value, _LINK)
        return Link(**value)
    _require(number, value, _ENTRY)
    fact = Fact(**{name: value[name] for name in _ENTRY if name not in {"index", "time", "previous", "hash"}})
    return Entry(value["index"], fact, value["time"], value["previous"], value["hash"])


def _require(number: int, value: Mapping[str, Any], fields: Mapping[str, tuple[type, ...]]) -> None:
    if value.keys() != fields.keys():
        raise _unreadable(number, f"the keys {', '.join(fields)}", ", ".join(value))
    for name, kinds in fields.items():
        if type(value[name]) not in kinds:
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise _unreadable(number, f"{name} of type {wanted}", type(value[name]).__name__)


def _unreadable(number: int, expected: str, received: str) -> InvalidValue:
    return InvalidValue(f"line {number} of the ledger cannot be read", expected=expected, received=received[:80])
