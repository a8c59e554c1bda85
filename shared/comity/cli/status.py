"""`comity status` and `comity health`."""

from __future__ import annotations

import re

from rich.table import Table

from comity.cli.messages import fields_of
from comity.cli.sessions import print_sessions
from comity.cli.tables import crossed_table, print_table, show_json
from comity.node.operating import NodeChoice
from comity.report.numbers import duration, size
from comity.wire.v1 import control_pb2 as pb

_HASH = 12
"""Characters of a hash that are shown."""
_DIGEST = re.compile("[0-9a-f]{64}")


def show_status(node: NodeChoice, *, as_json: bool) -> None:
    """Shows one picture of a node."""
    with node.connect() as control:
        status = control.status()
    if as_json:
        show_json(fields_of(status))
        return
    described = status.node
    _say(f"{described.party}, {described.role}, comity {described.version}, up {duration(status.uptime_s)}")
    _say(f"address   {described.address or 'none: it does not listen'}")
    if status.page:
        _say(f"page      {status.page}")
    if status.metrics:
        _say(f"metrics   http://{status.metrics}/metrics")
    _say(f"protocols {', '.join(described.protocols)}")
    quota = f" of {size(status.disk.quota)}" if status.disk.HasField("quota") else ""
    room = f"{size(status.disk.used)} used, {size(status.disk.promised)} promised, {size(status.disk.free)} free"
    _say(f"disk      {room}{quota}")
    limit = f" of {status.privacy.limit:g}" if status.privacy.HasField("limit") else ", no limit"
    _say(f"privacy   epsilon {status.privacy.spent:.3g} spent{limit}")
    _say(f"sessions  {status.counted} of {status.max_sessions} at a time, {sum(status.queues.values())} requests wait")
    if status.sessions:
        _say("")
        print_sessions(status.sessions)
    crossed = crossed_table(status.bytes_sent, status.bytes_received)
    if crossed.row_count:
        _say("")
        print_table(crossed)
    if status.tail:
        entries = "1 entry" if status.entries == 1 else f"the last {len(status.tail)} of {status.entries} entries"
        _say(f"\nledger: {entries}")
        print_table(_tail(status))


def show_health(node: NodeChoice, *, as_json: bool) -> int:
    """Says whether a node serves; returns the exit code."""
    with node.connect() as control:
        serving = control.serving()
    if as_json:
        show_json({"serving": serving})
    else:
        _say("the node serves" if serving else "the node does not serve: it is starting, or about to stop")
    return 0 if serving else 1


def reload_node(node: NodeChoice, *, as_json: bool) -> None:
    """Has a node read its configuration again, and says what came of it."""
    with node.connect() as control:
        found = control.reload()
    if as_json:
        show_json(fields_of(found))
        return
    _say(f"in force  {', '.join(found.applied) or 'nothing that differs'}")
    _say(f"trusted   {', '.join(found.trusted) or 'nobody by a card of its own'}")
    if found.restart:
        _say(f"waits for a restart: {', '.join(found.restart)}")


def _tail(status: pb.NodeStatus) -> Table:
    table = Table("time (UTC)", "session", "with", "what", "", "bytes", "hash", box=None, pad_edge=False)
    for each in status.tail:
        what = " ".join(part for part in (each.matter, each.direction, each.kind) if part)
        time = f"{each.time.ToDatetime():%m-%d %H:%M:%S}"
        bytes_ = size(each.size) if each.size else ""
        table.add_row(time, each.session, each.peer, what, _subject(each.subject), bytes_, each.hash[:_HASH])
    return table


def _subject(subject: str) -> str:
    """What an entry is about; a digest is cut as hashes are."""
    return subject[:_HASH] if _DIGEST.fullmatch(subject) else subject


def _say(text: str) -> None:
    print(text)  # noqa: T201
