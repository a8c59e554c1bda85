"""Calls outside the caller's own session, and bytes that are no messages."""

from __future__ import annotations

from collections.abc import Iterable

import grpc
import pytest

from comity import errors
from comity.contract import Contract
from comity.ledger.ledger import in_round
from comity.node.sessions.initiator import draft_contract
from comity.transport import blobs, sessions
from comity.transport.identity import CONTRACT_KEY, SESSION_KEY
from comity.transport.peer_connection import PeerConnection
from comity.transport.status import from_rpc_error
from tests.e2e.hostile.parties import PARALLEL_ROUNDS, QUICK, assert_clear, refusal
from tests.e2e.protocols.assisted_learning.attacked.attacks import METHODS, PLAY, Attack


def send(
    connection: PeerConnection, path: str, kind: str, payload: bytes, metadata: Iterable[tuple[str, str | bytes]] = ()
) -> object:
    """Sends bytes to a method, as they are."""
    method = getattr(connection.channel, kind)(path, None, None)
    request = iter([payload]) if kind.startswith("stream") else payload
    answer = method(request, metadata=tuple(metadata), timeout=QUICK.call_s)
    return list(answer) if kind.endswith("stream") else answer


@pytest.mark.parametrize("path", METHODS)
@pytest.mark.usefixtures("during")
def test_a_session_that_is_not_the_callers(path: str, line: PeerConnection) -> None:
    kind, message = METHODS[path]
    parallel = simulate_contract("parallel", PARALLEL_ROUNDS)
    for quoted, received in (
        ((), "received none"),
        ([(SESSION_KEY, "nobody's"), (CONTRACT_KEY, "0" * 64)], "nobody's"),
        # The honest learner's own, to the letter.
        ([(SESSION_KEY, "parallel"), (CONTRACT_KEY, parallel.hash)], "parallel"),
    ):
        error = refusal(lambda quoted=quoted: send(line, path, kind, message.SerializeToString(), quoted))  # type: ignore[misc]
        assert_clear(error, errors.UnknownSession, "a session of mallory", received, "propose it first")


def simulate_contract(id: str, rounds: int) -> Contract:
    script = PLAY.script(id, rounds=rounds)
    return draft_contract(script, PLAY.asking(script), id)[0]


@pytest.mark.usefixtures("during")
def test_ending_tells_nobody_whether_a_session_exists(line: PeerConnection) -> None:
    """To a stranger another's session and one that never was are the same."""

    def end(session: str) -> object:
        metadata = ((SESSION_KEY, session), (CONTRACT_KEY, "0" * 64))
        try:
            return send(line, "/comity.wire.v1.Sessions/End", "unary_unary", b"", metadata)
        except grpc.RpcError as failure:
            return type(from_rpc_error(failure))

    assert end("parallel") == end("never-was")


@pytest.mark.parametrize("path", METHODS)
def test_another_contract(path: str, attack: Attack) -> None:
    kind, message = METHODS[path]
    quoted = [(SESSION_KEY, attack.contract.session), (CONTRACT_KEY, "ab" * 32)]
    error = refusal(lambda: send(attack.connection, path, kind, message.SerializeToString(), quoted))
    assert_clear(error, errors.ContractMismatch, attack.contract.hash, "ab" * 32)


GARBAGE = (b"\xff" * 64, b"\x0a\xff\xff\xff\xff\x0f", bytes(range(1, 200)))


@pytest.mark.parametrize(
    "path", [*(f"/{sessions.SERVICE}/{name}" for name in ("Propose", "End", "Describe")), *METHODS]
)
def test_garbage_instead_of_a_message(path: str, attack: Attack) -> None:
    kind = METHODS[path][0] if path in METHODS else "unary_unary"
    blob = attack.blob
    beside = blobs.put_metadata(blob, "checkpoint", in_round(1), 0)
    for payload in GARBAGE:
        with pytest.raises(grpc.RpcError) as caught:
            send(attack.connection, path, kind, payload, [*attack.connection._metadata, *beside])
        assert caught.value.code() not in {grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED}
        assert "\n" not in str(from_rpc_error(caught.value))
    attack.begin()


@pytest.mark.usefixtures("during")
def test_methods_that_peers_do_not_have(line: PeerConnection) -> None:
    for path in ("/comity.wire.v1.Control/Describe", "/comity.wire.v1.Control/Run", "/comity.wire.v1.Blobs/Delete"):
        with pytest.raises(grpc.RpcError) as caught:
            send(line, path, "unary_unary", b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_more_metadata_than_anybody_needs(attack: Attack) -> None:
    metadata = [*attack.connection._metadata, ("comity-note", "x" * 200_000)]
    with pytest.raises(grpc.RpcError) as caught:
        send(attack.connection, "/comity.wire.v1.Blobs/Stat", "unary_unary", b"", metadata)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
