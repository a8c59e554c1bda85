"""`comity ledger`: what left, what came, and whether the record of it holds."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from comity.cli.tables import print_table, show_json
from comity.errors import InvalidValue, LedgerBroken, MissingFile
from comity.ledger.charges import Charge, statement_of
from comity.ledger.comparison import common_sessions, compare
from comity.ledger.exported import Exported, export, load, to_json
from comity.ledger.ledger import Direction, Entry, Head, bytes_by_kind
from comity.ledger.verification import rounds_charged, verify
from comity.store.sql_store import SqlStore, store_url


def show_ledger(state: Path, store: str, session: str, *, as_json: bool) -> None:
    """Prints entries, bytes by kind and the rounds that were charged.

    Raises:
        MissingFile: There is no ledger.
        InvalidValue: The ledger has no such session.
        LedgerBroken: A round is unpaid or unearned.
    """
    entries, head = _read(state, store)
    entries = _of_session(entries, session)
    sent, received = bytes_by_kind(entries, "sent"), bytes_by_kind(entries, "received")
    if as_json:
        shown = [to_json(entry) for entry in entries]
        charges = [_charge(each) for each in rounds_charged(entries)]
        spent = [dict(zip(("session", "epsilon", "delta"), each, strict=True)) for each in _privacy(entries)]
        lists = {"entries": shown, "rounds_charged": charges, "privacy_spent": spent, "statements": _stated(entries)}
        show_json(_head(head) | lists | {"sent": sent, "received": received})
        return
    print_table(_entry_table(entries))
    _print("")
    print_table(_bytes_table(entries))
    _print("")
    for table in _statement_tables(_stated(entries)):
        print_table(table)
        _print("")
    charged = Counter(each.session for each in rounds_charged(entries))
    for name, rounds in charged.items():
        _print(f"session {name}: {_count(rounds, 'round')} charged")
    for name, epsilon, delta in _privacy(entries):
        _print(f"session {name}: privacy epsilon {epsilon:.3g}, delta {delta:.3g} spent")
    if total := sum(epsilon for _, epsilon, _ in _privacy(entries)):
        _print(f"privacy spent in all: epsilon {total:.3g}")
    _print(f"{len(entries)} of {_count(head.length, 'entry')}; the chain ends in {head.hash}")


def verify_ledger(state: Path, store: str, session: str, *, as_json: bool) -> None:
    """Checks the whole chain, and prints what it holds; with a session, what it holds of that.

    Raises:
        MissingFile: There is no ledger.
        InvalidValue: The ledger has no such session.
        LedgerBroken: The ledger does not hold.
    """
    entries, head = _read(state, store)
    verified = verify(entries, head)
    chosen = _of_session(entries, session)
    charges = rounds_charged(chosen)
    signed = sum(entry.fact.matter == "receipt" for entry in chosen)
    if as_json:
        counts = {"entries": len(chosen), "statements": signed, "rounds_charged": len(charges)}
        show_json(_head(head) | {"verified": True, "sessions": 1 if session else verified.sessions} | counts)
        return
    counted = [_count(len(chosen), "entry"), _count(signed, "statement"), f"{_count(len(charges), 'round')} charged"]
    _print(f"verified: {', '.join(counted)}; the chain of {_count(head.length, 'entry')} ends in {head.hash}")


def export_ledger(state: Path, store: str, session: str, *, as_json: bool) -> None:
    """Writes the ledger to standard output, as JSON lines.

    Raises:
        MissingFile: There is no ledger.
        InvalidValue: The ledger has no such session.
    """
    entries, head = _read(state, store)
    chosen = _of_session(entries, session)
    if as_json:
        show_json(_head(head) | {"entries": [to_json(entry) for entry in chosen]})
    else:
        sys.stdout.write(export(entries, head, session=session or None))


def compare_ledgers(file: Path, state: Path, store: str, session: str, *, as_json: bool) -> bool:
    """Compares the ledger with the one that the other party exported, and prints what differs.

    Returns:
        Whether they agree.

    Raises:
        MissingFile: There is no ledger, or no such file.
        InvalidValue: The file holds no exported ledger, or the two have no session in common.
        LedgerBroken: One of the two does not hold.
    """
    theirs = _load(file)
    entries, head = _read(state, store)
    verify(entries, head)
    try:
        verify(theirs.lines, theirs.head)
    except LedgerBroken as error:
        raise LedgerBroken(
            f"{file}: {error.what}",
            expected=error.expected,
            received=error.received,
            action="ask the other party to export it anew, and to verify its own",
        ) from error
    sessions = [session] if session else common_sessions(entries, theirs.lines)
    _of_session(entries, session)
    if not sessions:
        theirs_are = ", ".join(dict.fromkeys(line.fact.session for line in theirs.lines if isinstance(line, Entry)))
        raise InvalidValue(
            f"{file} and this ledger have no session in common",
            expected=", ".join(dict.fromkeys(entry.fact.session for entry in entries)) or "a session",
            received=theirs_are or "none",
            action="name the right --state, or ask the other party for the ledger of that session",
        )
    differences = [each for name in sessions for each in compare(entries, theirs.lines, name)]
    if as_json:
        listed = [
            {name: getattr(each, name) for name in ("session", "round", "what", "ours", "theirs")}
            for each in differences
        ]
        show_json({"sessions": sessions, "agree": not differences, "differences": listed})
    else:
        for difference in differences:
            _print(str(difference))
        verdict = f"{_count(len(differences), 'difference')}" if differences else "the ledgers agree"
        _print(f"{_count(len(sessions), 'session')} compared: {verdict}")
    return not differences


def _read(state: Path, url: str) -> tuple[Sequence[Entry], Head]:
    """The entries and the head as of one moment; a node may be at work."""
    with closing(SqlStore(url or store_url(state), read_only=True)) as store, store.transaction():
        return list(store.entries()), store.head()


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


def _of_session(entries: Sequence[Entry], session: str) -> Sequence[Entry]:
    found = [entry for entry in entries if entry.fact.session == session]
    if not session:
        return entries
    if not found:
        known = ", ".join(dict.fromkeys(entry.fact.session for entry in entries))
        action = (
            "comity ledger show lists what it has" if known else "no session has begun here; name the right --state"
        )
        raise InvalidValue("the ledger has no such session", expected=known or "none", received=session, action=action)
    return found


def _head(head: Head) -> dict[str, Any]:
    return {"length": head.length, "hash": head.hash}


def _privacy(entries: Iterable[Entry]) -> list[tuple[str, float, float]]:
    """What each session spent of the privacy budget: its name, ε and δ."""
    bodies: list[tuple[str, Any]] = [(e.fact.session, e.fact.body) for e in entries if e.fact.matter == "privacy"]
    return [(session, float(body["epsilon"]), float(body["delta"])) for session, body in bodies]


def _charge(charge: Charge) -> dict[str, Any]:
    return {"session": charge.session, "round": charge.round, "peer": charge.peer, "subject": charge.subject}


def _entry_table(entries: Iterable[Entry]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name, justify in (("entry", "right"), ("time (UTC)", "left"), ("session", "left"), ("round", "right")):
        table.add_column(name, justify="right" if justify == "right" else "left", no_wrap=True)
    for name in ("what", "peer", "direction", "kind", "subject"):
        table.add_column(name, no_wrap=True)
    table.add_column("bytes", justify="right", no_wrap=True)
    for entry in entries:
        fact = entry.fact
        crossing = fact.direction is not None
        subject = fact.subject if len(fact.subject) <= 20 else f"{fact.subject[:16]}…"
        cells = [entry.index, entry.time[:19].replace("T", " "), fact.session, fact.round or "", fact.matter, fact.peer]
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
            place = {"session": signed.session, "round": signed.round, "by": signed.party}
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
        table.add_column("round", justify="right", no_wrap=True)
        table.add_column("stated by", no_wrap=True)
        table.add_column("to", no_wrap=True)
        for name in names:
            table.add_column(_printable(name), justify="right", no_wrap=True)
        for each in own:
            values = [_number(each["content"].get(name)) for name in names]
            place = [session, each["round"], each["by"], each.get("to", "this party")]
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
    for kind in dict.fromkeys(kind for total in totals for kind in total):
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
