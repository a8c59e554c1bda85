"""A script's parties as nodes that live apart, each with a folder of its own: containers, or machines of one lab.

Whoever makes all these folders has all keys: this is for simulations. Organisations make their own with `comity init`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tomlkit
from blake3 import blake3

from comity.errors import InvalidValue, StorageFailed
from comity.node.sessions.script import Script, session_text
from comity.simulation.processes import node_config
from comity.transport.cards import Card
from comity.transport.certificates import self_signed
from comity.transport.identity import Identity

OPERATOR = "operator"
"""The place of who drives all nodes."""

PLACE = "{place}"
"""Stands for the place in an address."""

_MARK = "prepared"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where parties go, and how they are reached there.

    Attributes:
        places: Names of places, each the name of a role, or that and a number: a party takes the first that is free and of its
            role. Empty for a place for each party, of its name.
        listen: Where acceptors listen for peers; `{place}` stands for the place.
        control: Where all listen for the operator, likewise.
    """

    places: tuple[str, ...] = ()
    listen: str = "{place}:5500"
    control: str = "{place}:5600"

    def assigned(self, script: Script) -> dict[str, str]:
        """The place of each party.

        Raises:
            InvalidValue: There are too few, or a name cannot be used.
        """
        free = list(self.places) or [*script.party]
        if OPERATOR in free or len({*free}) < len(free):
            raise InvalidValue(
                "places cannot be told apart",
                expected=f"each name once, and none that is {OPERATOR}",
                received=", ".join(free),
                action="correct --place",
            )
        taken = {}
        for party, section in script.party.items():
            fits = [
                each
                for each in free
                if not self.places or each.rpartition("-")[0] == section.role or each == section.role
            ]
            if not fits:
                wanted = sum(each.role == section.role for each in script.party.values())
                raise InvalidValue(
                    f"there is no place for {party}",
                    expected=f"{wanted} places for a {section.role}",
                    received=", ".join(self.places),
                    action="add one with --place, or take a party out of the script",
                )
            place = party if not self.places else fits[0]
            free.remove(place)
            taken[party] = place
        return taken


def prepare_places(script: Script, text: str, folder: Path, layout: Layout) -> tuple[dict[str, str], bool]:
    """Makes a folder for each party, with its configuration, key, card and the others' cards; and one for the operator.

    Args:
        script: A script with a table for each party.
        text: What it was read from.
        folder: Where the folders go, named after their places.
        layout: Where parties go.

    Returns:
        The place of each party, and whether anything was made: the same script finds everything there already.

    Raises:
        InvalidValue: The script has no parties, there are too few places, or another simulation is there.
        StorageFailed: The folders cannot be written.
    """
    if not script.party:
        raise InvalidValue(
            "the script has no parties",
            expected="[party.NAME] tables",
            received="none",
            action="comity demo --print-script has",
        )
    taken = layout.assigned(script)
    mark = folder / OPERATOR / _MARK
    digest = blake3(f"{text}\0{layout}".encode()).hexdigest()
    try:
        if mark.exists():
            _require_same(mark, digest)
            return taken, False
        _require_empty([folder / place for place in (*taken.values(), OPERATOR)])
        _make(script, folder, layout, taken)
        mark.write_text(digest)
    except OSError as error:
        raise StorageFailed(
            f"{error.filename or folder} cannot be written",
            expected="a folder for each party that this user may write to",
            received=error.strerror or error,
            action="choose another, or change its owner",
        ) from error
    return taken, True


def _make(script: Script, folder: Path, layout: Layout, taken: dict[str, str]) -> None:
    acceptors = script.session.acceptors
    peers = {name: {"address": layout.listen.replace(PLACE, taken[name])} for name in acceptors}
    cards: dict[str, bytes] = {}
    for name, place in taken.items():
        certificate, private = self_signed(name)
        home, section = folder / place, script.party[name]
        state = home / "state"
        for made in (home / "trust", home / "operators"):
            made.mkdir(parents=True, exist_ok=True)
        state.mkdir(mode=0o700)
        cards[name] = Card((certificate,), section.secrets(state).receipt_key().public_key).to_pem()
        _write(home / "key.pem", private)
        _write(home / f"{name}.pem", cards[name])
    certificate, private = self_signed(OPERATOR)
    operator, home = Card((certificate,)).to_pem(), folder / OPERATOR
    (home / "trust").mkdir(parents=True, exist_ok=True)
    _write(home / "key.pem", private)
    _write(home / f"{OPERATOR}.pem", operator)
    for name, place in taken.items():
        for other in taken.keys() - {name}:
            _write(folder / place / "trust" / f"{other}.pem", cards[other])
        _write(folder / place / "operators" / f"{OPERATOR}.pem", operator)
        _write(home / "trust" / f"{name}.pem", cards[name])
        helps = name in acceptors
        more = {
            "role": script.party[name].role,
            "control": {"listen": layout.control.replace(PLACE, place)},
            **({"listen": peers[name]["address"]} if helps else {"peers": peers}),
        }
        identity = Identity(name, Path(f"{name}.pem"), Path("key.pem"), Path("trust"))
        config = node_config(name, script.party[name], identity, **more)
        _write(folder / place / "node.toml", tomlkit.dumps(config).encode())
    nodes = {name: layout.control.replace(PLACE, place) for name, place in taken.items()}
    _write(home / "session.toml", session_text(script).encode())
    _write(home / "nodes.toml", tomlkit.dumps({"operator": ".", "nodes": nodes}).encode())


def _require_same(mark: Path, digest: str) -> None:
    if mark.read_text() != digest:
        raise InvalidValue(
            f"another simulation is prepared in {mark.parents[1]}",
            expected="the same script and places, or empty folders",
            received="another script",
            action="remove its folders, or its volumes with docker compose down --volumes",
        )


def _require_empty(homes: Sequence[Path]) -> None:
    for home in homes:
        if home.is_dir() and any(home.iterdir()):
            raise InvalidValue(
                f"{home} is in use",
                expected="an empty folder",
                received="something that was not prepared to its end",
                action="remove what is in it, or choose another",
            )


def _write(path: Path, data: bytes) -> None:
    """Writes a new file, for its owner alone."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
