"""Whether the node reaches its peers."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta

from comity import version
from comity.errors import CertificateRejected, ComityError, InvalidValue, RemoteFailure, UsageError
from comity.ledger.chain import utc_now
from comity.node.preflight.context import Context
from comity.node.preflight.rows import NotChecked, Row, of_error
from comity.protocol.registry import protocols_for
from comity.transport.addresses import split_address
from comity.transport.description import Description, describe
from comity.transport.peer_connection import PeerConnection
from comity.transport.retry import CONNECT_S, PREFLIGHT

_AT_A_TIME = 16

SKEW_WARNED = timedelta(seconds=5)
"""How far two clocks may be apart before it is worth a look: logs and ledgers of two parties are read side by side."""

SKEW_MOST = timedelta(seconds=60)
"""How far they may be apart: certificates and deadlines are judged by both."""


def check_peers(context: Context) -> Iterator[Row]:
    """Every peer that the node asks can be reached, accepts it, speaks its protocols and has its time."""
    peers = context.config.peers
    if not context.asks:
        yield Row("peers", "skipped", f"none: the {context.role} listens, and opens no connections")
        return
    if not peers:
        raise InvalidValue(
            "there is no peer to ask",
            expected="[peers.NAME] with an address",
            received="nothing",
            action="configure whom the node asks",
        )
    # One that does not answer does not keep the others waiting.
    with ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="preflight") as pool:
        for rows in pool.map(lambda name: list(_peer(context, name, peers[name].address)), peers):
            yield from rows


def _peer(context: Context, party: str, address: str) -> Iterator[Row]:
    """A peer's rows; what cannot be looked at since the one before failed is left out."""
    check = f"peer {party}"
    try:
        host, port = split_address(address)
    except ComityError as error:
        yield of_error(f"{check}: address", error)
        return
    found = _connect(check, host, port)
    yield found
    if found.verdict == "failed":
        return
    try:
        answer = _ask(context, party, address)
    except RemoteFailure as error:
        if "UNIMPLEMENTED" not in (error.received or ""):
            yield of_error(f"{check}: answer", error, "peer")
            return
        action = "have its operator upgrade comity"
        yield Row(f"{check}: version", "warning", "a version that does not describe itself", action, "peer")
    except Exception as error:  # noqa: BLE001 - the other peers have rows as well
        name = "certificate" if isinstance(error, CertificateRejected) else "answer"
        yield of_error(f"{check}: {name}", error, "peer")
    else:
        how = "each accepts the other's" if context.identity.is_secure else "none: plaintext on loopback"
        yield Row(f"{check}: certificate", "passed", how)
        yield _versions(check, answer.said)
        yield _protocols(context, check, answer.said)
        yield _clock(check, answer)


def _connect(check: str, host: str, port: int) -> Row:
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        action = "correct the address in [peers], or ask who keeps the name"
        return Row(f"{check}: network", "failed", f"{host} is no name that resolves: {error.strerror}", action, "peer")
    resolved = ", ".join(dict.fromkeys(str(each[4][0]) for each in places))
    began = time.monotonic()
    try:
        socket.create_connection((host, port), timeout=CONNECT_S).close()
    except OSError as error:
        found = f"nothing answers at {host}:{port} ({resolved}): {error.strerror or error}"
        action = "check that its node runs, its port, and the firewalls between"
        return Row(f"{check}: network", "failed", found, action, "peer")
    return Row(
        f"{check}: network", "passed", f"{host}:{port} ({resolved}) in {1e3 * (time.monotonic() - began):.0f} ms"
    )


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a peer said of itself, and how far its clock is ahead of ours, give or take half of the round trip."""

    said: Description
    ahead: timedelta
    uncertain: timedelta


def _ask(context: Context, party: str, address: str) -> _Answer:
    call_s = min(PREFLIGHT.call_s, context.config.retry.call_s)
    try:
        connection = PeerConnection(context.identity, party, address, PREFLIGHT.model_copy(update={"call_s": call_s}))
    except UsageError as error:
        raise NotChecked("this node's own certificate, key or trust cannot be used") from error
    with connection:
        # The first call also connects, which would count as the way there alone.
        describe(connection)
        asked, began = utc_now(), time.monotonic()
        said = describe(connection)
        half = timedelta(seconds=time.monotonic() - began) / 2
    return _Answer(said, said.time - (asked + half), half)


def _versions(check: str, said: Description) -> Row:
    own = version()
    if said.version == own:
        return Row(f"{check}: version", "passed", f"{own} on both sides")
    found = f"{own} here, {said.version} there"
    return Row(f"{check}: version", "warning", found, "run the same version on both sides", "peer")


def _protocols(context: Context, check: str, said: Description) -> Row:
    name = f"{check}: protocols"
    own = [each for each in protocols_for(context.role) if each.initiator == context.role]
    common = [each for each in own if each.acceptor == said.role and said.protocols.get(each.name) == each.version]
    if common:
        return Row(name, "passed", f"in common: {', '.join(f'{each.name} {each.version}' for each in common)}")
    here = ", ".join(f"{each.name} {each.version} with a {each.acceptor}" for each in own)
    there = ", ".join(f"{each} {number}" for each, number in said.protocols.items()) or "none"
    action = "run the same version of comity on both sides, or ask another node"
    found = f"none in common: {here} here; there a {said.role} with {there}"
    return Row(name, "failed", found, action, "peer")


def _clock(check: str, answer: _Answer) -> Row:
    # What the way may account for is no skew.
    skew = max(abs(answer.ahead) - answer.uncertain, timedelta())
    direction = "ahead of" if answer.ahead > timedelta() else "behind"
    found = (
        f"{abs(answer.ahead).total_seconds():.2f} s {direction} ours, give or take "
        f"{answer.uncertain.total_seconds():.2f} s; warned over {SKEW_WARNED.seconds} s, "
        f"at most {SKEW_MOST.seconds} s"
    )
    if skew <= SKEW_WARNED:
        return Row(f"{check}: clock", "passed", found)
    action = "have both machines set their clocks by NTP"
    return Row(f"{check}: clock", "failed" if skew > SKEW_MOST else "warning", found, action, "peer")
