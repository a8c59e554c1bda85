"""`comity sessions`, `sessions accept`, `sessions refuse`, `show`, `cancel` and `resume`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from comity.cli.messages import fields_of
from comity.cli.tables import (
    cost_line,
    crossed_table,
    kept_line,
    per_round_table,
    print_table,
    show_comparison,
    show_json,
    show_parties,
    show_tests,
)
from comity.ledger.charges import in_words
from comity.node.operating import NodeChoice, latest
from comity.node.sessions.failures import raised
from comity.protocol.registry import protocol
from comity.wire.v1 import control_pb2 as pb

_STYLES = {
    "running": "green",
    "waiting": "cyan",
    "stopped": "yellow",
    "failed": "red",
    "cancelled": "dim",
    "refused": "red",
}


def list_sessions(node: NodeChoice, *, as_json: bool) -> None:
    """Lists a node's sessions, oldest first."""
    with node.read() as reader:
        sessions = reader.sessions()
    if as_json:
        show_json({"sessions": [fields_of(each) for each in sessions]})
        return
    if not sessions:
        print("no sessions yet; comity run SCRIPT, or comity open SCRIPT, begins one")  # noqa: T201
        return
    print_sessions(sessions)


def list_everywhere(nodes: Path, *, as_json: bool) -> None:
    """Lists the sessions of several nodes."""
    from comity.cli.several_nodes import connected

    with connected(nodes) as clients:
        found = {party: client.sessions() for party, client in clients.items()}
    if as_json:
        show_json({"nodes": {party: [fields_of(each) for each in sessions] for party, sessions in found.items()}})
        return
    for party, sessions in found.items():
        print(f"{party}: {len(sessions)} sessions")  # noqa: T201
        if sessions:
            print_sessions(sessions)


def print_sessions(sessions: Sequence[pb.SessionSummary]) -> None:
    """Prints sessions, a line each, and what they wait for."""
    table = Table("session", "protocol", "role", "with", "state", "rounds", "begun (UTC)", box=None, pad_edge=False)
    reasons = any(each.why for each in sessions)
    if reasons:
        table.add_column("why")
    for each in sessions:
        rounds = f"{each.rounds_finished}/{each.rounds}"
        begun = f"{each.begun.ToDatetime():%Y-%m-%d %H:%M}"
        state = f"[{_STYLES[each.state]}]{each.state}" if each.state in _STYLES else each.state
        why = [Text(each.why)] if reasons else []
        table.add_row(each.session, each.protocol, each.role, ", ".join(each.peers), state, rounds, begun, *why)
    print_table(table)
    for each in sessions:
        for waiting in each.waits:
            print(f"{each.session} waits for {waiting.waits_for}; {waiting.ends_with}")  # noqa: T201


def show_session(session: str, node: NodeChoice, *, as_json: bool) -> None:
    """Shows one session: its state, its contract, what crossed and what it ended with."""
    with node.read() as reader:
        details = reader.details(session or latest(reader))
    contract = json.loads(details.contract)
    result = json.loads(details.result) if details.result else None
    if as_json:
        crossed = {"bytes_sent": _by_name(details.bytes_sent), "bytes_received": _by_name(details.bytes_received)}
        charged = {"contract_hash": details.contract_hash, "charged": dict(details.charged)}
        show_json(fields_of(details.summary) | charged | crossed | {"contract": contract, "result": result})
        return
    console = Console(highlight=False, soft_wrap=True)
    summary = details.summary
    _show_head(console, details, contract, result)
    if result and "reason" in result:
        # Why it ended says all of it.
        result = None
    table = crossed_table(details.bytes_sent, details.bytes_received)
    if table.row_count:
        console.print()
        print_table(table)
    presentation = protocol(summary.protocol).presentation
    per_round = presentation.per_round
    if result and result.get("compared"):
        show_comparison(result["compared"])
        result = {name: each for name, each in result.items() if name != "compared"}
    if result and "metrics" in result:
        show_tests(presentation.of_task(contract["task"]["kind"]).summary, result["metrics"])
        show_parties(presentation.per_party, result["metrics"])
    if per_round is not None and result and "metrics" in result:
        console.print(f"\n{per_round.title}")
        print_table(per_round_table(per_round, result["metrics"]))
        stated = {each.field for each in per_round.columns}
        result = {**result, "metrics": {name: each for name, each in result["metrics"].items() if name not in stated}}
    for title, value in (("contract", contract), ("result", result)):
        if value:
            console.print(f"\n{title}")
            text = json.dumps(value, indent=2)
            console.print(
                Syntax(text, "json", background_color="default") if console.is_terminal else text, markup=False
            )


def _show_head(
    console: Console, details: pb.SessionDetails, contract: Mapping[str, Any], result: Mapping[str, Any] | None
) -> None:
    """Prints what a session is, and how it stands."""
    summary = details.summary
    console.print(f"session {summary.session}: {summary.protocol}, {summary.role} with {', '.join(summary.peers)}")
    console.print(f"state   {summary.state}, {summary.rounds_finished} of {summary.rounds} rounds finished")
    for waiting in summary.waits:
        since = f"{waiting.since.ToDatetime():%Y-%m-%d %H:%M}"
        console.print(f"waits   for {waiting.waits_for}, since {since}; {waiting.ends_with}")
    if result and "reason" in result:
        _show_why(console, result, summary.session)
    console.print(f"begun   {summary.begun.ToDatetime():%Y-%m-%d %H:%M:%S} UTC, {in_words(details.charged)}")
    console.print(f"hash    {details.contract_hash}")
    if contract.get("price") is not None:
        console.print(f"costs   {_cost(result, summary.session)}", markup=False)


def _cost(result: Mapping[str, Any] | None, session: str) -> str:
    """What a session with a price costs, where that is known without adding it up."""
    owed = (result or {}).get("cost")
    return cost_line(owed) if owed else f"comity statement {session} says who owes what so far"


def _show_why(console: Console, result: Mapping[str, Any], session: str) -> None:
    """Prints why a session ended before its time, and what it left all the same."""
    console.print(f"why     {raised(result)}", markup=False)
    if kept := result.get("kept"):
        console.print(f"left    {kept_line(kept)}, in sessions/{session} of its state_dir", markup=False)


def _by_name(totals: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(totals.items()))


def cancel_session(session: str, node: NodeChoice, *, as_json: bool) -> None:
    """Ends a session before its time."""
    with node.connect() as control:
        told = control.cancel(session)
        details = control.details(session)
        folder = Path(control.describe().state_dir) / "sessions" / session
    result = json.loads(details.result) if details.result else {}
    kept = result.get("kept")
    if as_json:
        charged: dict[str, object] = {"charged": dict(details.charged), "kept": kept}
        show_json({"session": session, "state": details.summary.state, "peer_told": told, **charged})
        return
    other = "the other party is told" if told else "the other party could not be told; its operator can cancel it too"
    if details.summary.state == "finished":
        # It had done its work, and waited for the operator's word.
        print(f"session {session} is finished, with its result; {in_words(details.charged)}")  # noqa: T201
    else:
        print(f"session {session} is cancelled; {other}; {in_words(details.charged)}")  # noqa: T201
    if kept is not None:
        print(f"{kept_line(kept)}, in {folder}")  # noqa: T201


def resume_session(session: str, node: NodeChoice, *, as_json: bool) -> None:
    """Goes on with a session that stopped."""
    with node.connect() as control:
        session = session or latest(control)
        control.resume(session)
    if as_json:
        show_json({"session": session, "state": "running"})
        return
    print(f"session {session} goes on; comity watch {session}{node.option} follows it")  # noqa: T201


def accept_session(session: str, node: NodeChoice, *, as_json: bool) -> None:
    """Agrees to a proposal that waits for an operator."""
    with node.connect() as control:
        control.accept(session)
    if as_json:
        show_json({"session": session, "state": "running"})
        return
    print(f"session {session} is accepted; it begins when the other party asks again")  # noqa: T201


def refuse_session(session: str, reason: str, node: NodeChoice, *, as_json: bool) -> None:
    """Refuses a proposal that waits for an operator."""
    with node.connect() as control:
        control.refuse(session, reason)
    if as_json:
        show_json({"session": session, "state": "refused", "reason": reason})
        return
    print(f"session {session} is refused; the other party is told when it asks again")  # noqa: T201
