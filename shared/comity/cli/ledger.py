"""`comity ledger`: what left, what came, and whether the record of it holds."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from comity.cli.tables import print_table, show_json
from comity.errors import InvalidValue, LedgerBroken, MissingFile
from comity.ledger.charges import Charge, charges_of, counted, in_words, statement_of
from comity.ledger.comparison import common_sessions, compare
from comity.ledger.exported import Exported, export, load, to_json
from comity.ledger.ledger import OWN, Chain, Direction, Entry, Units, bytes_by_kind, loaded
from comity.ledger.verification import verify
from comity.node.operating import NodeChoice
from comity.store.sql_store import SqlStore


def show_ledger(node: NodeChoice, store: str, session: str, *, as_json: bool) -> None:
    """Prints entries, bytes by kind and what was charged.

    Raises:
        MissingFile: There is no ledger.
        InvalidValue: The ledger has no such session.
        LedgerBroken: Something is unpaid or unearned.
    """
    chains = _of_session(_read(node, store), session)
    entries = _in_time(chains)
    sent, received = bytes_by_kind(entries, "sent"), bytes_by_kind(entries, "received")
    charges = charges_of(entries)
    if as_json:
        shown = [to_json(entry) for entry in entries]
        spent = [dict(zip(("session", "epsilon", "delta"), each, strict=True)) for each in _privacy(entries)]
        lists = {"entries": shown, "charges": [_charge(each) for each in charges], "privacy_spent": spent}
        show_json(_ends(chains) | lists | {"statements": _stated(entries), "sent": sent, "received": received})
        return
    print_table(_entry_table(entries))
    _print("")
    print_table(_bytes_table(entries))
    _print("")
    for table in _statement_tables(_stated(entries)):
        print_table(table)
        _print("")
    for name in dict.fromkeys(each.session for each in charges):
        _print(f"session {name}: {in_words(counted(each for each in charges if each.session == name))}")
    for name, epsilon, delta in _privacy(entries):
        _print(f"session {name}: privacy epsilon {epsilon:.3g}, delta {delta:.3g} spent")
    if total := sum(epsilon for _, epsilon, _ in _privacy(entries)):
        _print(f"privacy spent in all: epsilon {total:.3g}")
    for chain in chains:
        _print(f"{chain.name}: {_count(chain.head.length, 'entry')}, the last {chain.head.hash}")


def verify_ledger(node: NodeChoice, store: str, session: str, *, as_json: bool) -> None:
    """Checks all chains, and prints what they hold; with a session, what its chains hold.

    Raises:
        MissingFile: There is no ledger.
        InvalidValue: The ledger has no such session.
        LedgerBroken: The ledger does not hold.
    """
    chains = _read(node, store)
    verified = verify(chains)
    chosen = _of_session(chains, session)
    if session:
        verified = verify(chosen, is_whole=False)
    if as_json:
        counts = {name: getattr(verified, name) for name in ("entries", "sessions", "statements", "charged")}
        show_json({"verified": True} | _ends(chosen) | counts)
        return
    said = [f"{_count(verified.entries, 'entry')} in {_count(len(chosen), 'chain')}"]
    said += [_count(verified.statements, "statement"), in_words(verified.charged)]
    own = next(chain.head for chain in chains if chain.name == OWN)
    _print(f"verified: {', '.join(said)}; {OWN} of {_count(own.length, 'entry')} ends in {own.hash}")


def export_ledger(node: NodeChoice, store: str, session: str, peer: str, *, as_json: bool) -> None:
    """Writes the ledger to standard output, as JSON lines.

    Raises:
        MissingFile: There is no ledger.
        InvalidValue: The ledger has no such session, or the session no such peer.
    """
    chains = _of_session(_read(node, store), session)
    if peer:
        peers = sorted({chain.name.peer for chain in chains} - {""})
        chains = [chain for chain in chains if chain.name.peer == peer]
        if not chains:
            raise InvalidValue(
                "the ledger has nothing with such a party",
                expected=", ".join(peers) or "none",
                received=peer,
                action="comity ledger show lists what it has",
            )
    if as_json:
        show_json(_ends(chains) | {"entries": [to_json(entry) for chain in chains for entry in chain.entries]})
    else:
        sys.stdout.write(export(chains, is_whole=not session and not peer))


def compare_ledgers(file: Path, node: NodeChoice, store: str, session: str, *, as_json: bool) -> bool:
    """Compares the ledger with the one that the other party exported, and prints what differs.

    Returns:
        Whether they agree.

    Raises:
        MissingFile: There is no ledger, or no such file.
        InvalidValue: The file holds no exported ledger, or the two have no session in common.
        LedgerBroken: One of the two does not hold.
    """
    theirs = _load(file)
    ours = _read(node, store)
    verify(ours)
    try:
        verify(theirs.chains, is_whole=theirs.is_whole)
    except LedgerBroken as error:
        raise LedgerBroken(
            f"{file}: {error.what}",
            expected=error.expected,
            received=error.received,
            action="ask the other party to export it anew, and to verify its own",
        ) from error
    sessions = [session] if session else common_sessions(ours, theirs.chains)
    _of_session(ours, session)
    if not sessions:
        raise InvalidValue(
            f"{file} and this ledger have no session in common",
            expected=_sessions(ours) or "a session",
            received=_sessions(theirs.chains) or "none",
            action="name the right --state, or ask the other party for the ledger of that session",
        )
    differences = [each for name in sessions for each in compare(ours, theirs.chains, name)]
    if as_json:
        listed = [
            {"session": each.session, **_units(each.units), "what": each.what, "ours": each.ours, "theirs": each.theirs}
            for each in differences
        ]
        show_json({"sessions": sessions, "agree": not differences, "differences": listed})
    else:
        for difference in differences:
            _print(str(difference))
        verdict = f"{_count(len(differences), 'difference')}" if differences else "the ledgers agree"
        _print(f"{_count(len(sessions), 'session')} compared: {verdict}")
    return not differences


def _read(node: NodeChoice, url: str) -> Sequence[Chain]:
    """The chains as of one moment; a node may be at work."""
    with closing(SqlStore(url or node.store_url, read_only=True)) as store, store.transaction():
        return loaded(store.chains())


def _in_time(chains: Iterable[Chain]) -> Sequence[Entry]:
    """The entries of all chains, as they came."""
    return sorted((entry for chain in chains for entry in chain.entries), key=lambda entry: str(entry.time))


def _load(file: Path) -> Exported:
    try:
        return load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise MissingFile(
            f"{file} cannot be read",
            expected="a ledger that the other party exported",
            received=error.strerror,
            action="have it made with comity ledger export",
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidValue(
            f"{file} cannot be read",
            expected="a text in UTF-8",
            received=error.reason,
            action="have it made with comity ledger export, and sent as a file",
        ) from error


def _of_session(chains: Sequence[Chain], session: str) -> Sequence[Chain]:
    found = [chain for chain in chains if chain.name.session == session]
    if not session:
        return chains
    if not found:
        known = _sessions(chains)
        action = (
            "comity ledger show lists what it has" if known else "no session has begun here; name the right --state"
        )
        raise InvalidValue("the ledger has no such session", expected=known or "none", received=session, action=action)
    return found


def _sessions(chains: Iterable[Chain]) -> str:
    return ", ".join(dict.fromkeys(chain.name.session for chain in chains if chain.name != OWN))


def _ends(chains: Iterable[Chain]) -> dict[str, Any]:
    """Each chain's name and end."""
    return {
        "chains": [chain.name._asdict() | {"length": chain.head.length, "hash": chain.head.hash} for chain in chains]
    }


def _privacy(entries: Iterable[Entry]) -> list[tuple[str, float, float]]:
    """What each session spent of the privacy budget: its name, ε and δ."""
    bodies: list[tuple[str, Any]] = [(e.fact.session, e.fact.body) for e in entries if e.fact.matter == "privacy"]
    return [(session, float(body["epsilon"]), float(body["delta"])) for session, body in bodies]


def _charge(charge: Charge) -> dict[str, Any]:
    return {"session": charge.session, **_units(charge.units), "peer": charge.peer, "subject": charge.subject}


def _units(units: Units) -> dict[str, Any]:
    return {"unit": units.unit, "first": units.first, "count": units.count}


def _entry_table(entries: Iterable[Entry]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name, justify in (("entry", "right"), ("time (UTC)", "left"), ("session", "left"), ("units", "left")):
        table.add_column(name, justify="right" if justify == "right" else "left", no_wrap=True)
    for name in ("what", "peer", "direction", "kind", "subject"):
        table.add_column(name, no_wrap=True)
    table.add_column("bytes", justify="right", no_wrap=True)
    for entry in entries:
        fact = entry.fact
        crossing = fact.direction is not None
        subject = fact.subject if len(fact.subject) <= 20 else f"{fact.subject[:16]}…"
        units = fact.units if fact.units.unit else ""
        cells = [entry.index, entry.time[:19].replace("T", " "), fact.session, units, fact.matter, fact.peer]
        cells += [fact.direction or "", fact.kind or "", subject, f"{fact.size:,}" if crossing and fact.kind else ""]
        table.add_row(*(_cell(each) for each in cells))
    return table


def _stated(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """What statements say whose content the ledger keeps, by whom to whom."""
    stated = []
    for entry in entries:
        content = entry.fact.body.get("content")
        if entry.fact.matter == "receipt" and isinstance(content, Mapping):
            signed = statement_of(entry).statement
            own = entry.fact.direction == "sent"
            place = {"session": signed.session, **_units(signed.units), "by": signed.party}
            stated.append(place | ({"to": entry.fact.peer} if own else {}) | {"content": dict(content)})
    return stated


def _statement_tables(stated: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    """A table for each session, with a column for each number that its statements say."""
    for session in dict.fromkeys(each["session"] for each in stated):
        own = [each for each in stated if each["session"] == session]
        names = [
            name for name, value in own[0]["content"].items() if isinstance(value, int | float) and name != "round"
        ]
        table = Table("session", box=None, pad_edge=False)
        table.add_column("units", no_wrap=True)
        table.add_column("stated by", no_wrap=True)
        table.add_column("to", no_wrap=True)
        for name in names:
            table.add_column(_printable(name), justify="right", no_wrap=True)
        for each in own:
            values = [_number(each["content"].get(name)) for name in names]
            units = Units(each["unit"], each["first"], each["count"])
            place = [session, units, each["by"], each.get("to", "this party")]
            table.add_row(*map(_cell, place + values))
        yield table


def _number(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _bytes_table(entries: Sequence[Entry]) -> Table:
    table = Table("delivered", box=None, pad_edge=False)
    directions: tuple[Direction, ...] = ("sent", "received")
    totals = [bytes_by_kind(entries, direction) for direction in directions]
    for direction in directions:
        table.add_column(f"bytes {direction}", justify="right", no_wrap=True)
    for kind in sorted({kind for total in totals for kind in total}):
        table.add_row(_cell(kind), *(_cell(f"{total.get(kind, 0):,}") for total in totals))
    table.add_row("all", *(_cell(f"{sum(total.values()):,}") for total in totals), style="bold")
    return table


def _cell(value: object) -> Text:
    return Text(_printable(str(value)))


def _printable(text: str) -> str:
    # A ledger may have been tampered with, a peer's may hold anything: nothing of it is to steer the terminal.
    return "".join(each if each.isprintable() else "�" for each in text)


def _print(line: str) -> None:
    sys.stdout.write(f"{_printable(line)}\n")


def _count(number: int, name: str) -> str:
    plural = f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"
    return f"{number} {name if number == 1 else plural}"
