"""A ledger as a text that another party can check: JSON lines, each chain after a line with its head.

What belongs to other sessions than the one that is exported is left out, and the node's own chain, which names them all,
with it: the chains of a session hold by themselves, and the heads that its statements quote can be found in them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from comity.contract import canonical
from comity.errors import InvalidValue
from comity.ledger.ledger import Chain, ChainName, Entry, Fact, Head, Units

FORMAT = 2
"""Version of the format."""

_MOST = 2**63
"""No ledger has a number from here on: a store cannot keep it."""


@dataclass(frozen=True)
class Exported:
    """A ledger that was exported.

    Attributes:
        chains: Its chains.
        is_whole: Whether they are all, the node's own among them.
    """

    chains: Sequence[Chain]
    is_whole: bool


def export(chains: Iterable[Chain], *, is_whole: bool) -> str:
    """Writes a ledger, or some of its chains.

    Args:
        chains: The chains.
        is_whole: Whether they are all.
    """
    return "".join(f"{canonical(line).decode()}\n" for line in _lines(chains, is_whole))


def _lines(chains: Iterable[Chain], is_whole: bool) -> Iterator[object]:
    yield {"comity_ledger": FORMAT, "whole": is_whole}
    for chain in chains:
        name, head = chain.name, chain.head
        yield {"chain": {"session": name.session, "peer": name.peer}, "length": head.length, "hash": head.hash}
        yield from map(to_json, chain.entries)


def to_json(entry: Entry) -> dict[str, Any]:
    """An entry as a JSON object."""
    fact = entry.fact
    return {
        "index": entry.index,
        "matter": fact.matter,
        "session": fact.session,
        "unit": fact.units.unit,
        "first": fact.units.first,
        "count": fact.units.count,
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
            action="comity ledger export writes one; both sides need the same version of comity",
        )
    _require(1, objects[0], _FILE)
    chains: list[Chain] = []
    entries: list[Entry] = []
    for number, value in enumerate(objects[1:], start=2):
        if "chain" in value:
            entries = []
            chains.append(_chain(number, value, entries))
        elif chains:
            entries.append(_entry(number, value))
        else:
            raise _unreadable(number, "a chain's name and head", ", ".join(value))
    return Exported(chains, objects[0]["whole"])


_HALF = "\\ud"
"""How JSON spells halves of a character, of which two make one; nothing of one half can be hashed."""
_FILE: Mapping[str, tuple[type, ...]] = {"comity_ledger": (int,), "whole": (bool,)}
_CHAIN: Mapping[str, tuple[type, ...]] = {"chain": (dict,), "length": (int,), "hash": (str,)}
_NAME: Mapping[str, tuple[type, ...]] = {"session": (str,), "peer": (str,)}
_ENTRY: Mapping[str, tuple[type, ...]] = {
    "index": (int,),
    "matter": (str,),
    "session": (str,),
    "unit": (str,),
    "first": (int,),
    "count": (int,),
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
    if _HALF in line.lower():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise _unreadable(number, "text", "half a character") from error
    return value


def _chain(number: int, value: dict[str, Any], entries: list[Entry]) -> Chain:
    _require(number, value, _CHAIN)
    _require(number, value["chain"], _NAME)
    return Chain(ChainName(**value["chain"]), Head(value["length"], value["hash"]), entries)


def _entry(number: int, value: dict[str, Any]) -> Entry:
    _require(number, value, _ENTRY)
    fact = Fact(
        value["matter"],
        value["session"],
        Units(value["unit"], value["first"], value["count"]),
        **{name: value[name] for name in ("peer", "direction", "kind", "subject", "size", "body")},
    )
    return Entry(value["index"], fact, value["time"], value["previous"], value["hash"])


def _require(number: int, value: Mapping[str, Any], fields: Mapping[str, tuple[type, ...]]) -> None:
    if value.keys() != fields.keys():
        raise _unreadable(number, f"the keys {', '.join(fields)}", ", ".join(value))
    for name, kinds in fields.items():
        if type(value[name]) not in kinds:
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise _unreadable(number, f"{name} of type {wanted}", type(value[name]).__name__)
        if type(value[name]) is int and not 0 <= value[name] < _MOST:
            # What is added up from them is to be a number that can be written.
            raise _unreadable(number, f"{name} from 0 to 2**63 - 1", "another number")


def _unreadable(number: int, expected: str, received: str) -> InvalidValue:
    return InvalidValue(f"line {number} of the ledger cannot be read", expected=expected, received=received[:80])
