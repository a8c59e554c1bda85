"""`comity init`."""

from __future__ import annotations

import sys
from pathlib import Path
from shlex import quote

from comity.cli.tables import show_json
from comity.errors import InvalidValue
from comity.node.setup.init import OPERATOR, Initial, NodeChoices, make_node, make_operator
from comity.transport.cards import spelled


def initialize(folder: Path, choices: NodeChoices, *, as_json: bool) -> None:
    """Writes a node's, or an operator's, first files and says what comes next.

    Raises:
        UsageError: A choice cannot be used, or something is there already.
    """
    if choices.role == OPERATOR:
        if choices.listen or choices.peers or choices.allow or choices.control:
            raise InvalidValue(
                "an operator has no node",
                expected="--party alone",
                received="--listen, --peer, --allow or --control",
                action="leave them out",
            )
        made = make_operator(folder, choices.party)
        steps = _operators_steps(folder, choices.party, made)
    else:
        made = make_node(folder, choices)
        steps = _steps(folder, choices, made)
    if as_json:
        show_json(
            {
                "role": choices.role,
                "party": choices.party,
                "files": [str(path) for path in made.files],
                "card": str(made.card),
                "fingerprint": spelled(made.fingerprint),
                "receipt_key": made.receipt_key,
                "next": steps,
            }
        )
        return
    lines = [f"wrote {', '.join(str(path) for path in made.files)}", f"fingerprint {spelled(made.fingerprint)}", ""]
    lines += [f"{number}. {step}" for number, step in enumerate(steps, start=1)]
    sys.stdout.write("\n".join(lines) + "\n")


def parse_peers(given: list[str]) -> dict[str, str]:
    """Addresses by party, from `NAME=HOST:PORT`.

    Raises:
        InvalidValue: One is of another form, or a name comes twice.
    """
    peers: dict[str, str] = {}
    for each in given:
        name, equals, address = each.partition("=")
        if not equals or not address or name in peers:
            received = f"{name} twice" if name in peers else each
            raise InvalidValue(
                "--peer cannot be used",
                expected="NAME=HOST:PORT, once a name",
                received=received,
                action="write it like hospital=hospital.example.org:5500",
            )
        peers[name] = address
    return peers


def _steps(folder: Path, choices: NodeChoices, made: Initial) -> list[str]:
    at = "" if folder == Path() else f" --node {quote(str(folder))}"
    others = list(dict.fromkeys([*(choices.peers or {}), *choices.allow])) or ["PARTY"]
    unknown = " --address HOST:PORT" if made.asks and not choices.peers else ""
    adds = [f"comity trust add {each} {each}.pem{unknown}{at}" for each in others]
    steps = [
        f"send {made.card} to the parties you work with; nothing in it is secret, and key.pem stays here",
        f"take their cards: {'; '.join(adds)}",
        "compare fingerprints with them by telephone",
        f"comity check{at}",
        f"comity node {choices.role}{at}",
    ]
    verb = "run" if made.asks else "open"
    begin = [f"comity {verb} {quote(str(each))}{at}" for each in made.scripts]
    return [*steps, " or ".join(begin)] if begin else steps


def _operators_steps(folder: Path, party: str, made: Initial) -> list[str]:
    at = "" if folder == Path() else f" --node {quote(str(folder))}"
    return [
        f"bring {made.card} to the nodes you are to drive; there: comity trust add {party} {made.card.name} --operator",
        f"take the nodes' cards: comity trust add PARTY PARTY.pem{at}",
    ]
