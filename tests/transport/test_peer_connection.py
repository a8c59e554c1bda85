"""A line to a peer: what was cut goes on, a peer that comes back is found, and what cannot help is not repeated."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
import stamina.instrumentation
import torch

from comity.blobs.incoming import Incoming
from comity.blobs.session_blobs import Expectation, SessionBlobs
from comity.contract import Contract, Membership
from comity.errors import (
    BlobCorrupted,
    BlobSizeMismatch,
    ComityError,
    DeadlineExceeded,
    MalformedMessage,
    NodeDraining,
    PeerUnreachable,
    PolicyRefusal,
    TensorMismatch,
    UnexpectedBlob,
    UnknownBlob,
)
from comity.ledger.ledger import Units, in_round
from comity.ledger.receipts import Signer
from comity.session.contexts import PeerContext, SessionContext
from comity.session.events import ignore
from comity.session.gate import EgressGate
from comity.session.policy import Policy
from comity.session.receipt_book import ReceiptBook
from comity.session.waiting import Waits
from comity.store.journal import Journal
from comity.store.memory_store import MemoryStore
from comity.tensors import Blob, Layout, delta
from comity.tensors.delta import Encoding
from comity.transport import blobs
from comity.transport.blobs import CHUNK
from comity.transport.peer_connection import PeerConnection
from comity.transport.retry import RetryPolicy
from comity.wire.v1 import sessions_pb2, sessions_pb2_grpc

DEADLINE_S = 10.0
STATE = {"w": torch.arange(6 * CHUNK // 4, dtype=torch.float32)}
LAYOUT = Layout.of(STATE)
BLOB = LAYOUT.pack(STATE)
NEXT = LAYOUT.pack(
    {"w": STATE["w"] * (1 + 0.01 * torch.rand(STATE["w"].shape, generator=torch.Generator().manual_seed(0)))}
)
DELTA = len(delta.encode(NEXT.data, BLOB.data))


class Idle:
    """A role without work."""

    def advance(self) -> bool:
        return False


class Watched(SessionBlobs):
    """Blobs that remember from where uploads went on."""

    def __init__(self) -> None:
        super().__init__()
        self.offsets: list[int] = []
        self.kept = threading.Event()
        self.came = 0

    def receive(self, kind: Any, units: Units, digest: bytes, size: int, offset: int, *encoding: Any) -> Incoming:
        incoming = super().receive(kind, units, digest, size, offset, *encoding)
        self.offsets.append(offset)
        return incoming

    def put_back(self, incoming: Incoming) -> None:
        super().put_back(incoming)
        self.came = incoming.held
        self.kept.set()


@dataclass(frozen=True)
class Peer:
    """The hospital's end of a session that waits for blobs of round 1."""

    contract: Contract
    store: MemoryStore = field(default_factory=MemoryStore)
    blobs: Watched = field(default_factory=Watched)

    @property
    def context(self) -> PeerContext:
        own, peer = (
            Membership(party=party, role=role, samples=10, receipt_key="0" * 64)
            for party, role in (("hospital", "teacher"), ("clinic", "student"))
        )
        gate = EgressGate(self.contract, Policy(egress=self.contract.egress), self.store, "clinic")
        receipt_book = ReceiptBook(Signer.from_seed(bytes(32), "hospital"), self.store, self.contract, peer)
        journal, waits = Journal(self.store, self.contract.session), Waits(self.store, self.contract.session)
        place = SessionContext(self.contract, own, None, self.blobs, journal, ignore, waits)
        return PeerContext(place, peer, self.blobs, gate, receipt_book)


@pytest.fixture
def peer(make_contract: Callable[..., Contract]) -> Peer:
    peer = Peer(make_contract())
    peer.blobs.expect(Expectation("vote", in_round(1), LAYOUT.size, 2, LAYOUT.verify, deltas=True))
    return peer


@pytest.fixture
def address(serve: Callable[..., Any], peer: Peer) -> str:
    return serve((peer.context, Idle())).address


def nothing(size: int) -> None:
    """What is asked before a blob leaves."""


def put(connection: PeerConnection, blob: Blob = BLOB) -> None:
    connection.put(blob, "vote", in_round(1), before=nothing)


@pytest.fixture
def retried() -> Iterator[threading.Event]:
    """Is set when an attempt failed and is to be repeated."""
    event = threading.Event()
    before = stamina.instrumentation.get_on_retry_hooks()
    stamina.instrumentation.set_on_retry_hooks([lambda details: event.set()])
    yield event
    stamina.instrumentation.set_on_retry_hooks(before)


@pytest.fixture
def seen(peer: Peer, retried: threading.Event) -> threading.Event:
    """Whoever tries again does so once the other side has seen the cut; earlier, it would hear that nothing has come."""
    before = stamina.instrumentation.get_on_retry_hooks()

    def wait(details: object) -> None:
        peer.blobs.kept.wait(DEADLINE_S)

    # Put back as it was by `retried`.
    stamina.instrumentation.set_on_retry_hooks([*before, wait])
    return retried


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Is set when a piece is kept by whoever receives: grpc drops what a cut finds on its way, which may be all of it."""
    event = threading.Event()
    write = Incoming.write

    def told(incoming: Incoming, piece: bytes | memoryview) -> None:
        write(incoming, piece)
        event.set()

    monkeypatch.setattr(Incoming, "write", told)
    return event


def test_a_blob_arrives_whole_and_once(connect: Callable[..., PeerConnection], peer: Peer, address: str) -> None:
    connection = connect(address, contract=peer.contract)
    put(connection)
    put(connection)
    assert peer.blobs.offsets == [0]
    assert bytes(peer.blobs.get(BLOB.digest).data) == bytes(BLOB.data)
    (entry,) = peer.store.entries()
    crossing = entry.fact
    assert (crossing.direction, crossing.kind, crossing.units) == ("received", "vote", in_round(1))
    assert (crossing.subject, crossing.size) == (BLOB.hex, BLOB.size)


def test_a_published_blob_is_had(connect: Callable[..., PeerConnection], peer: Peer, address: str) -> None:
    peer.blobs.publish(peer.blobs.add(BLOB).digest, "vote", in_round(1))
    connection = connect(address, contract=peer.contract)
    got = connection.get(BLOB.digest, LAYOUT.size, LAYOUT.verify)
    assert got == BLOB
    assert [entry.fact.direction for entry in peer.store.entries()] == ["sent"]


def test_an_upload_that_was_cut_goes_on_where_it_ended(
    connect: Callable[..., PeerConnection], cut: Callable[..., Any], peer: Peer, address: str, seen: threading.Event
) -> None:
    proxy = cut(address, after=BLOB.size // 2, upstream=True)
    put(connect(proxy.address, contract=peer.contract))
    assert seen.is_set()
    assert bytes(peer.blobs.get(BLOB.digest).data) == bytes(BLOB.data)
    first, *_, last = peer.blobs.offsets
    # grpc drops what a cut finds on its way to the receiver: that may be all of it.
    assert (first, last) == (0, peer.blobs.came)
    assert last < BLOB.size
    assert last == 0 or proxy.asked[-1] < BLOB.size


def test_a_download_that_was_cut_goes_on_where_it_ended(
    connect: Callable[..., PeerConnection],
    cut: Callable[..., Any],
    peer: Peer,
    address: str,
    retried: threading.Event,
    kept: threading.Event,
) -> None:
    peer.blobs.publish(peer.blobs.add(BLOB).digest, "vote", in_round(1))
    proxy = cut(address, after=BLOB.size // 2, upstream=False, once=kept)
    connection = connect(proxy.address, contract=peer.contract)
    assert connection.get(BLOB.digest, LAYOUT.size, LAYOUT.verify) == BLOB
    assert retried.is_set()
    assert CHUNK < proxy.answered[-1] < BLOB.size
    assert sum(proxy.answered) < 1.6 * BLOB.size


def test_a_peer_that_comes_back_is_found(
    connect: Callable[..., PeerConnection],
    serve: Callable[..., Any],
    peer: Peer,
    free_address: str,
    retried: threading.Event,
) -> None:
    connection = connect(free_address, contract=peer.contract)
    with ThreadPoolExecutor(1) as pool:
        putting = pool.submit(put, connection)
        assert retried.wait(DEADLINE_S)
        serve((peer.context, Idle()), address=free_address)
        putting.result(DEADLINE_S)
    assert BLOB.digest in peer.blobs


def test_a_call_is_repeated_while_a_node_is_going_down(
    connect: Callable[..., PeerConnection],
    echo: Callable[..., Any],
    method: Callable[..., Any],
    retried: threading.Event,
) -> None:
    def behave(request: bytes, context: grpc.ServicerContext) -> bytes:
        if not retried.is_set():
            raise NodeDraining("the node is stopping")
        return b"back"

    connection = connect(echo(behave).address)
    assert connection.call(method(connection.channel), b"") == b"back"


def test_a_refusal_is_not_repeated(
    connect: Callable[..., PeerConnection],
    echo: Callable[..., Any],
    method: Callable[..., Any],
    retried: threading.Event,
) -> None:
    calls = []

    def behave(request: bytes, context: grpc.ServicerContext) -> bytes:
        calls.append(request)
        raise PolicyRefusal("no")

    connection = connect(echo(behave).address)
    with pytest.raises(PolicyRefusal):
        connection.call(method(connection.channel), b"")
    assert len(calls) == 1
    assert not retried.is_set()


def test_a_peer_that_takes_too_long_is_given_up(
    connect: Callable[..., PeerConnection], echo: Callable[..., Any], method: Callable[..., Any]
) -> None:
    release = threading.Event()

    def behave(request: bytes, context: grpc.ServicerContext) -> bytes:
        release.wait(DEADLINE_S)
        return b""

    connection = connect(echo(behave).address, retry=RetryPolicy(call_s=0.1, retry_s=0.0))
    with pytest.raises(DeadlineExceeded):
        connection.call(method(connection.channel), b"")
    release.set()


def test_what_the_gate_keeps_never_leaves(connect: Callable[..., PeerConnection], peer: Peer, address: str) -> None:
    def refuse(size: int) -> None:
        raise PolicyRefusal("policy.egress keeps vote from leaving")

    connection = connect(address, contract=peer.contract)
    with pytest.raises(PolicyRefusal):
        connection.put(BLOB, "vote", in_round(1), before=refuse)
    assert not peer.blobs.offsets


def test_blobs_that_do_not_fit_are_refused_and_leave_the_session_as_it_was(
    connect: Callable[..., PeerConnection], peer: Peer, address: str
) -> None:
    connection = connect(address, contract=peer.contract)
    small = Layout.of({"w": torch.zeros(3)}).pack({"w": torch.zeros(3)})
    renamed = {"v": STATE["w"]}
    with pytest.raises(BlobSizeMismatch):
        put(connection, small)
    with pytest.raises(TensorMismatch, match="tensor w is missing"):
        put(connection, Layout.of(renamed).pack(renamed))
    with pytest.raises(BlobCorrupted):
        put(connection, Blob(bytes(32), BLOB.data))
    with pytest.raises(UnexpectedBlob, match="received vote of round 2"):
        connection.put(BLOB, "vote", in_round(2), before=nothing)
    put(connection)
    assert BLOB.digest in peer.blobs


def test_a_blob_longer_than_announced_is_refused(
    connect: Callable[..., PeerConnection], peer: Peer, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = connect(address, contract=peer.contract)
    with monkeypatch.context() as patch:
        patch.setattr("comity.transport.peer_connection.chunks", lambda blob, offset: iter([blob.data, blob.data]))
        with pytest.raises(BlobSizeMismatch, match="runs past"):
            put(connection)
    put(connection)
    assert BLOB.digest in peer.blobs


def test_what_a_peer_gives_is_checked(connect: Callable[..., PeerConnection], peer: Peer, address: str) -> None:
    connection = connect(address, contract=peer.contract)
    with pytest.raises(UnknownBlob):
        connection.get(BLOB.digest, LAYOUT.size, LAYOUT.verify)
    peer.blobs.publish(peer.blobs.add(Blob(bytes(32), BLOB.data)).digest, "vote", in_round(1))
    with pytest.raises(BlobCorrupted):
        connection.get(bytes(32), LAYOUT.size, LAYOUT.verify)
    peer.blobs.publish(peer.blobs.add(BLOB).digest, "vote", in_round(1))
    with pytest.raises(BlobSizeMismatch):
        connection.get(BLOB.digest, LAYOUT.size - 1, LAYOUT.verify)
    with pytest.raises(TensorMismatch):
        connection.get(BLOB.digest, LAYOUT.size, Layout.of({"v": STATE["w"]}).verify)


def test_a_closed_line_makes_no_stub(connect: Callable[..., PeerConnection]) -> None:
    # grpc itself ends the process where a method is added to a closed channel.
    connection = connect("127.0.0.1:1")
    connection.close()
    with pytest.raises(PeerUnreachable, match="closed here"):
        connection.stub(sessions_pb2_grpc.SessionsStub)


def test_a_call_on_a_line_that_was_closed_is_not_tried_again(
    connect: Callable[..., PeerConnection], peer: Peer, address: str
) -> None:
    """Who closes it has another thread's session stop, not break."""
    connection = connect(address, contract=peer.contract)
    stub = connection.stub(sessions_pb2_grpc.SessionsStub)
    put(connection)
    connection.close()
    with pytest.raises(PeerUnreachable, match="closed here"):
        connection.call(stub.Describe, sessions_pb2.DescribePeerRequest())
    with pytest.raises(PeerUnreachable, match="closed here"):
        put(connection)


def test_a_line_that_is_closed_while_it_tries_again_tries_no_more(
    connect: Callable[..., PeerConnection], free_address: str, retried: threading.Event
) -> None:
    connection = connect(free_address, retry=RetryPolicy(retry_s=600))
    stub = connection.stub(sessions_pb2_grpc.SessionsStub)
    with ThreadPoolExecutor(1) as pool:
        calling = pool.submit(connection.call, stub.Describe, sessions_pb2.DescribePeerRequest())
        assert retried.wait(DEADLINE_S)
        connection.close()
        with pytest.raises(PeerUnreachable, match="closed here"):
            calling.result(2 * DEADLINE_S)


def put_next(connection: PeerConnection) -> None:
    connection.put(NEXT, "vote", in_round(1), before=nothing, base=BLOB)


def test_a_blob_arrives_as_what_changed_and_counts_as_much(
    connect: Callable[..., PeerConnection], peer: Peer, address: str
) -> None:
    connection = connect(address, contract=peer.contract)
    put(connection)
    left: list[int] = []
    for _ in range(2):
        connection.put(NEXT, "vote", in_round(1), before=left.append, base=BLOB)
    assert left == [DELTA]
    assert 0.8 * NEXT.size > DELTA
    assert bytes(peer.blobs.get(NEXT.digest).data) == bytes(NEXT.data)
    whole, changed = (entry.fact for entry in peer.store.entries())
    assert (whole.size, changed.subject, changed.size) == (BLOB.size, NEXT.hex, DELTA)


def test_an_upload_of_what_changed_goes_on_where_it_was_cut(
    connect: Callable[..., PeerConnection], cut: Callable[..., Any], peer: Peer, address: str, seen: threading.Event
) -> None:
    peer.blobs.add(BLOB)
    proxy = cut(address, after=DELTA // 2, upstream=True)
    put_next(connect(proxy.address, contract=peer.contract))
    assert seen.is_set()
    assert bytes(peer.blobs.get(NEXT.digest).data) == bytes(NEXT.data)
    first, *_, last = peer.blobs.offsets
    assert (first, last) == (0, peer.blobs.came)
    assert last < DELTA
    assert sum(proxy.asked) < 1.6 * DELTA


def test_a_download_of_what_changed_goes_on_where_it_was_cut(
    connect: Callable[..., PeerConnection],
    cut: Callable[..., Any],
    peer: Peer,
    address: str,
    retried: threading.Event,
    kept: threading.Event,
) -> None:
    for blob in (BLOB, NEXT):
        peer.blobs.publish(peer.blobs.add(blob).digest, "vote", in_round(1))
    proxy = cut(address, after=DELTA // 2, upstream=False, once=kept)
    connection = connect(proxy.address, contract=peer.contract)
    came: list[int] = []
    assert connection.get(NEXT.digest, LAYOUT.size, LAYOUT.verify, after=came.append, base=BLOB) == NEXT
    assert retried.is_set()
    assert came == [DELTA]
    assert CHUNK < proxy.answered[-1] < DELTA
    assert [entry.fact.size for entry in peer.store.entries()] == [DELTA]


def test_what_was_begun_in_another_form_begins_anew(
    connect: Callable[..., PeerConnection], peer: Peer, address: str
) -> None:
    peer.blobs.add(BLOB)
    begun = peer.blobs.receive("vote", in_round(1), NEXT.digest, NEXT.size, 0)
    begun.write(NEXT.data[:CHUNK])
    peer.blobs.put_back(begun)
    connection = connect(address, contract=peer.contract)
    put_next(connection)
    assert peer.blobs.offsets == [0, 0]
    assert bytes(peer.blobs.get(NEXT.digest).data) == bytes(NEXT.data)


def test_a_download_that_comes_in_another_form_begins_anew(
    connect: Callable[..., PeerConnection],
    cut: Callable[..., Any],
    peer: Peer,
    address: str,
    kept: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for blob in (BLOB, NEXT):
        peer.blobs.publish(peer.blobs.add(blob).digest, "vote", in_round(1))
    forms = iter([delta.shortest(NEXT, BLOB), *[(NEXT, None)] * 3])
    monkeypatch.setattr("comity.transport.blobs.shortest", lambda blob, base: next(forms))
    proxy = cut(address, after=DELTA // 2, upstream=False, once=kept)
    connection = connect(proxy.address, contract=peer.contract)
    came: list[int] = []
    assert connection.get(NEXT.digest, LAYOUT.size, LAYOUT.verify, after=came.append, base=BLOB) == NEXT
    assert came == [NEXT.size]


def test_what_changed_comes_only_where_it_was_agreed_on(
    connect: Callable[..., PeerConnection], peer: Peer, address: str
) -> None:
    peer.blobs.add(BLOB)
    peer.blobs.expect(Expectation("vote", in_round(1), LAYOUT.size, 2, LAYOUT.verify))
    with pytest.raises(UnexpectedBlob, match=f"expected its own bytes, received an encoding against {BLOB.hex}"):
        put_next(connect(address, contract=peer.contract))


def test_a_base_must_be_held_and_a_gift(connect: Callable[..., PeerConnection], peer: Peer, address: str) -> None:
    connection = connect(address, contract=peer.contract)
    with pytest.raises(UnknownBlob, match=BLOB.hex):
        put_next(connection)
    # What changed since a blob would tell it to whoever asks.
    peer.blobs.add(BLOB)
    peer.blobs.publish(peer.blobs.add(NEXT).digest, "vote", in_round(1))
    with pytest.raises(UnknownBlob, match=BLOB.hex):
        connection.get(NEXT.digest, LAYOUT.size, LAYOUT.verify, base=BLOB)
    assert not peer.store.entries()


def test_encodings_that_do_not_fit_are_refused_and_leave_the_session_as_it_was(
    connect: Callable[..., PeerConnection], peer: Peer, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = connect(address, contract=peer.contract)
    put(connection)

    def sends(data: bytes) -> None:
        sent = Blob.of(data)
        monkeypatch.setattr(
            "comity.transport.peer_connection.shortest", lambda blob, base: (sent, Encoding(sent.digest, base.digest))
        )

    sends(bytes(NEXT.size + 1))
    with pytest.raises(BlobSizeMismatch, match=f"at most {NEXT.size} bytes"):
        put_next(connection)
    sends(bytes(100))
    with pytest.raises(TensorMismatch, match="encoding"):
        put_next(connection)
    sends(delta.encode(BLOB.data, BLOB.data))
    with pytest.raises(BlobCorrupted, match=f"expected {NEXT.hex}"):
        put_next(connection)
    monkeypatch.undo()
    put_next(connection)
    assert NEXT.digest in peer.blobs


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"comity-size": str(NEXT.size + 1)}, BlobSizeMismatch),
        ({"comity-size": "-1"}, MalformedMessage),
        ({"comity-size": "7"}, BlobSizeMismatch),
        ({"comity-encoding": "ab"}, MalformedMessage),
        ({"comity-base": NEXT.hex}, UnknownBlob),
        ({"comity-encoding": "00" * 32}, BlobCorrupted),
    ],
)
def test_what_a_peer_announces_is_checked(
    connect: Callable[..., PeerConnection],
    peer: Peer,
    address: str,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, str],
    error: type[ComityError],
) -> None:
    for blob in (BLOB, NEXT):
        peer.blobs.publish(peer.blobs.add(blob).digest, "vote", in_round(1))
    sent, encoding = delta.shortest(NEXT, BLOB)
    assert encoding is not None
    fields = {
        "comity-size": str(sent.size),
        "comity-encoding": encoding.digest.hex(),
        "comity-base": encoding.base.hex(),
    }
    honest = blobs.coming
    monkeypatch.setattr(
        "comity.transport.peer_connection.coming",
        lambda _, before, size, base: honest((fields | change).items(), before, size, base),
    )
    connection = connect(address, contract=peer.contract)
    with pytest.raises(error):
        connection.get(NEXT.digest, LAYOUT.size, LAYOUT.verify, base=BLOB)
