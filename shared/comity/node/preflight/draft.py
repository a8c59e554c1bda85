"""What the peers of a script's session say of it."""

from __future__ import annotations

from collections.abc import Iterator

from comity.errors import ComityError, UsageError
from comity.node.party import LocalParty
from comity.node.preflight.context import Context
from comity.node.preflight.rows import NotChecked, Row, of_error
from comity.node.preflight.work import Drafted, drafted
from comity.node.sessions.drafts import would_agree
from comity.store.memory_store import MemoryStore
from comity.transport.peer_connection import PeerConnection
from comity.transport.retry import DRAFT


def check_draft(context: Context) -> Iterator[Row]:
    """Every acceptor of a script's session would agree to it."""
    if context.script is None:
        return
    try:
        session = drafted(context)
    except ComityError as error:
        raise NotChecked("the script cannot be used: another row says why") from error
    if session.contract.is_open or session.own.role != session.definition.initiator:
        return
    party = _signing(context)
    for name in session.contract.acceptors:
        check = f"peer {name}: session"
        try:
            yield _asked(context, check, session, party, name)
        except Exception as error:  # noqa: BLE001 - the other peers have rows as well
            yield of_error(check, error, "peer")


def _asked(context: Context, check: str, session: Drafted, party: LocalParty, name: str) -> Row:
    address = context.config.peers[name].address
    try:
        connection = PeerConnection(context.identity, name, address, DRAFT)
    except UsageError as error:
        raise NotChecked("this node's own certificate, key or trust cannot be used") from error
    with connection:
        reply = would_agree(session.contract, session.definition, party, connection)
    rounds = f"{session.contract.rounds} rounds of {session.definition.name}"
    would = f"would have its operator decide on {rounds}" if reply.asks_operator else f"would agree to {rounds}"
    if reply.lacks_weights:
        size = sum(session.contract.weights_sent.values()) / 1e6
        found = f"{would}, and gets the weights to begin with ({size:.1f} MB at most), since it lacks them; task and terms fit"
        return Row(check, "passed", found)
    return Row(check, "passed", f"{would}; model, task and terms fit")


def _signing(context: Context) -> LocalParty:
    """The party with the key that its card states, where it has one already."""
    config = context.config
    if config.secret is None and not (config.state_dir / "secret").is_file():
        raise NotChecked(
            "this node has no secret yet, which its receipt key comes from: comity init or a start makes it"
        )
    return LocalParty(config.party, config, config.secrets(config.state_dir), MemoryStore())
