"""A party that every registered protocol's acceptor trusts, and that would have it serve nobody else.

By work without end, by files, by memory, by what it promises to send. What it knows of a protocol is its registration: a role
is played as it is, up to where it uploads, and with terms as great as they may be.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import psutil
import pytest

from comity import interruption
from comity.contract import Contract
from comity.errors import ComityError, PolicyRefusal
from comity.ledger.ledger import Units, in_round
from comity.node.control_client import ControlClient
from comity.node.party import LocalParty
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.room import disk_space
from comity.node.sessions.script import Script
from comity.protocol.registry import protocol
from comity.session.limits import Limits
from comity.session.outcome import Outcome
from comity.simulation.in_process import simulate
from comity.store.memory_store import MemoryStore
from comity.store.places import store_url
from comity.store.secrets import GivenSecrets
from comity.store.sql_store import SqlStore
from comity.store.store import StoredSession
from comity.tensors import Blob
from comity.transport.blobs import put_metadata
from comity.transport.peer_connection import PeerConnection
from comity.transport.status import from_rpc_error
from comity.wire.v1 import blobs_pb2
from tests.cases import PROTOCOLS, plain
from tests.e2e.conftest import until
from tests.e2e.hostile.initiators import MALLORY, Reached, Siege, Stopping, besieged, endless, with_id
from tests.e2e.hostile.parties import QUICK, refusal

pytestmark = pytest.mark.timeout(600)

DEADLINE_S = 120.0
UNIT_S = 4.0
WORK_S = 3.0
LOOK_S = 0.2
IDLE_LOOKS = 8
MANY = 40
HALF_UPLOADS = Limits().half_uploads
# One protocol in every run, whose acceptors are several and take blobs; all of them where there is time.
EACH = [
    pytest.param(
        name,
        marks=[pytest.mark.xdist_group(f"silenced-{name}"), *([] if name == "nash_bargaining" else [pytest.mark.slow])],
    )
    for name in PROTOCOLS
]

ONE_ASKS = [each for each in EACH if not protocol(str(each.values[0])).topology.is_joined]
"""Of a session that many join, its acceptor's operator says what it may take."""
RECORDS = 500_000
"""More than what is recorded of some sessions takes on disk."""


@pytest.fixture(scope="module", params=EACH)
def siege(request: pytest.FixtureRequest) -> Iterator[Siege]:
    """Acceptors with the limits that nodes have."""
    with (
        TemporaryDirectory(prefix="e2e-") as folder,
        besieged(widened(plain(request.param).script), Path(folder)) as found,
    ):
        yield found


def test_uploads_hold_no_files_open_and_little_memory(siege: Siege) -> None:
    """Whole ones, as many as are taken, and half ones, more than are taken."""
    process = psutil.Process(siege.acceptor.pid)
    with attacked(siege, "uploads") as (line, reached):
        opened, resident = process.num_fds(), process.memory_info().rss
        if reached is None:
            # It has no use for any blob, in whatever session.
            kinds = siege.definition.egress
            refused = {
                refusal(lambda kind=kind: put(line, Blob.of(b"it"), kind, in_round(1))).reason() for kind in kinds
            }  # type: ignore[misc]
            assert refused == {"UNEXPECTED_BLOB"}
            return
        blob, kind, units = reached.blob, reached.kind, reached.units
        digests = [number.to_bytes(32, "big").hex() for number in range(MANY)]
        for digest in digests:
            refusal(lambda digest=digest: put(line, blob, kind, units, digest=digest, less=1))  # type: ignore[misc]
        stat = [line._stat(blobs_pb2.BlobRef(digest=bytes.fromhex(each)), metadata=line._metadata) for each in digests]
        assert not any(each.complete for each in stat)
        assert 0 < sum(each.held > 0 for each in stat) <= HALF_UPLOADS
        # Those that name no digest before their end leave nothing where they are cut.
        for index in range(MANY):
            refusal(lambda index=index: put(line, blob, kind, units, index=index, less=1))  # type: ignore[misc]
        taken = 0
        for number in range(MANY):
            changed = bytearray(blob.data)
            changed[-4:] = bytes([number + 1, 0, 0, 0])
            try:
                put(line, Blob.of(bytes(changed)), kind, units)
                taken += 1
            except ComityError:
                # As many as may come, or what they are not.
                continue
        assert process.num_fds() < opened + 20
        assert process.memory_info().rss < resident + 2 * (HALF_UPLOADS + taken) * blob.size + 50_000_000
    until(lambda: process.num_fds() < opened + 20, "its files are closed")


@pytest.mark.slow
def test_a_training_without_end_ends_with_its_session(siege: Siege) -> None:
    """Nobody waits for it: it costs no more than a step, and an honest session is as it always is."""
    for number in range(2):
        with runaway(siege, f"runaway-{number}"):
            pass
        until(lambda: is_idle(siege), "nobody works on it any more", deadline_s=DEADLINE_S)
    with ControlClient(siege.acceptor.control_url) as control:
        assert "running" not in {each.state for each in control.sessions()}
    assert siege.run("after-runaways") == simulate(with_id(siege.script, "after-runaways"))[0].digest


@pytest.mark.slow
@pytest.mark.parametrize("name", EACH)
def test_a_unit_that_takes_too_long_fails_its_session(name: str) -> None:
    with (
        TemporaryDirectory(prefix="e2e-") as folder,
        besieged(widened(plain(name).script), Path(folder), {"unit_s": UNIT_S}) as siege,
        runaway(siege, "long") as told,
    ):
        if helps_by_training(siege):
            until(
                lambda: any("limits.unit_s" in each for each in told()) or ended_well(told()),
                "who asked is told, or its session is short",
                deadline_s=DEADLINE_S,
            )
        until(lambda: is_idle(siege), "nobody works on it any more", deadline_s=DEADLINE_S)
        if any("limits.unit_s" in each for each in told()):
            with ControlClient(siege.acceptor.control_url) as control:
                assert "running" not in {each.state for each in control.sessions()}


@pytest.mark.parametrize("name", EACH)
def test_what_one_session_may_take_no_other_is_promised(name: str) -> None:
    """Sessions of which each has room, until one has none; what all that are on may take stays within the quota."""
    script, quota = widened(plain(name).script), 4_000_000
    with (
        TemporaryDirectory(prefix="e2e-") as folder,
        besieged(script, Path(folder), max_state_bytes=quota, max_party_share=1.0) as siege,
    ):
        refused: ComityError | None = None
        for number in range(32):
            try:
                siege.join(siege.drafted(f"promised-{number}", MALLORY), MALLORY)
            except PolicyRefusal as error:
                refused = error
                break
        promised = [each.promised for each in stored_at(siege) if each.is_on]
        assert sum(promised) <= quota
        if any(promised):
            assert refused is not None
            assert "no room" in str(refused) or "max_sessions" in str(refused), refused


@pytest.mark.parametrize("room", ["max_state_bytes", "max_memory_bytes"])
@pytest.mark.parametrize("name", ONE_ASKS)
def test_what_one_party_may_take_leaves_others_their_part(name: str, room: str) -> None:
    """Of a room for six sessions a party has four, however many it asks for, and another has the next."""
    script = widened(plain(name).script)
    needed = taken_by_one(script)[room]
    if needed < 2 * RECORDS:
        pytest.skip("a session of it takes less than what is recorded of it")
    with (
        TemporaryDirectory(prefix="e2e-") as folder,
        besieged(script, Path(folder), max_party_share=0.75, **{room: 6 * needed + RECORDS}) as siege,
    ):
        for number in range(4):
            siege.join(siege.drafted(f"hoarded-{number}", MALLORY), MALLORY)
        fifth = siege.drafted("hoarded-4", MALLORY)
        refused = refusal(lambda: siege.join(fifth, MALLORY))
        assert "policy.max_party_share" in str(refused), refused
        honest = siege.initiators[0]
        siege.join(siege.drafted("beside-the-hoarder", honest), honest)


def taken_by_one(script: Script) -> dict[str, int]:
    """What a session may take at its acceptor, in bytes, by what bounds it."""
    name, (initiator, *_) = script.session.acceptors[0], sorted(script.party.keys() - set(script.session.acceptors))
    acceptor, asking = (
        LocalParty(each, script.party[each], GivenSecrets(each.encode()), MemoryStore()) for each in (name, initiator)
    )
    contract, definition = draft_contract(with_id(script, "measured"), asking, "measured")
    own, peer = acceptor.membership(definition.acceptor, contract), asking.membership(definition.initiator, contract)
    return {
        "max_state_bytes": disk_space(acceptor, contract, own, peer, definition),
        "max_memory_bytes": acceptor.memory_space(contract),
    }


def widened(script: Script) -> Script:
    """A script whose models are large: their training takes a while, and what is recorded of a session is little beside them."""
    for each in script.session.named_models.values():
        if "hidden" in each.options:
            each.options["hidden"] = 1024
    return script


def helps_by_training(siege: Siege) -> bool:
    """Whether what the acceptor does for others is a training."""
    return siege.definition.acceptor in siege.definition.trains


def stored_at(siege: Siege) -> list[StoredSession]:
    """What the acceptor keeps of its sessions."""
    with closing(SqlStore(store_url(siege.acceptor.folder / "state"), read_only=True)) as store:
        return list(store.sessions())


def put(
    line: PeerConnection,
    blob: Blob,
    kind: str,
    units: Units,
    *,
    digest: str = "",
    index: int | None = None,
    less: int = 0,
) -> None:
    """Uploads a blob, or all but its end.

    Args:
        line: The line; it quotes the session.
        blob: What.
        kind: Its egress kind.
        units: What it belongs to.
        digest: What it is called; its own name if nothing is said.
        index: The index that it is called by, in place of a digest.
        less: Bytes that are never sent.

    Raises:
        ComityError: What the acceptor answers.
    """
    beside = dict(put_metadata(blob, kind, units, 0))
    if index is not None:
        del beside["comity-digest"]
        beside["comity-index"] = str(index)
    elif digest:
        beside["comity-digest"] = digest
    pieces = iter([blob.data[: blob.size - less]])
    try:
        line._put(pieces, metadata=[*line._metadata, *beside.items()], timeout=QUICK.call_s)
    except grpc.RpcError as failure:
        raise from_rpc_error(failure) from failure


@contextmanager
def attacked(siege: Siege, id: str) -> Iterator[tuple[PeerConnection, Reached | None]]:
    """A session of Mallory's, played up to her first upload: a line that quotes it, and what she would send; None for nothing."""
    contract = siege.drafted(id, MALLORY)
    with playing(siege, contract, first=Stopping) as futures:
        error = futures[0].exception(DEADLINE_S)
        assert error is None or isinstance(error, Reached), error
        line = siege.line(MALLORY)
        line.enter(contract.session, contract.hash)
        yield line, error


@contextmanager
def runaway(siege: Siege, id: str) -> Iterator[Callable[[], list[str]]]:
    """A session with terms as great as they may be, on which the acceptor is at work, if it is one that works.

    Mallory does less than she agreed to: of all such terms, or of one that makes her own part long.

    Yields:
        What the initiators were told, as far as they have ended.
    """
    terms = endless(siege.script.session.protocol)
    own = sorted(terms, key=lambda name: siege.definition.initiator not in name) if helps_by_training(siege) else []
    for number, spared in enumerate((terms, *({name: terms[name]} for name in own)), start=1):
        looks, began = 0, worked(siege)
        contract = siege.drafted(f"{id}-{number}", MALLORY, **{term: most for term, (_, most) in terms.items()})
        little = {term: least for term, (least, _) in spared.items()}
        with playing(siege, contract, little=little) as futures:

            def told() -> list[str]:
                return [str(each.exception(0)) for each in futures if each.done()]

            while worked(siege) < began + WORK_S and len(told()) < len(futures) and looks < IDLE_LOOKS:
                looks = looks + 1 if is_idle(siege) else 0
            works = worked(siege) >= began + WORK_S or any("limits.unit_s" in each for each in told())
            if works or ended_well(told()) or number == 1 + len(own):
                assert works or not helps_by_training(siege) or ended_well(told()), told()
                yield told
                return


@contextmanager
def playing(
    siege: Siege,
    contract: Contract,
    *,
    first: type[PeerConnection] = PeerConnection,
    little: Mapping[str, Any] | None = None,
) -> Iterator[list[Future[Outcome]]]:
    """Mallory's session, and who else is in it, hers first; it is over, at the acceptors too, when the body is.

    Args:
        siege: The acceptors.
        contract: What is agreed on.
        first: What her line to the first of them carries.
        little: Terms by which the initiators play, in place of those that they agreed to.
    """
    stop = threading.Event()

    def require_wanted() -> None:
        if stop.is_set():
            raise interruption.Interrupted

    def play(name: str, own: list[PeerConnection]) -> Outcome:
        with interruption.checked(require_wanted):
            return siege.play(contract, name, own, little)

    others = siege.initiators[1:] if siege.definition.topology.is_joined else []
    lines = {
        name: siege.lines(name, PeerConnection if number else first) for number, name in enumerate([MALLORY, *others])
    }
    with ThreadPoolExecutor(len(lines)) as pool:
        try:
            yield [pool.submit(play, name, own) for name, own in lines.items()]
        finally:
            stop.set()
            siege.end(contract)
            for line in itertools.chain.from_iterable(lines.values()):
                line.close()


def ended_well(told: list[str]) -> bool:
    """Whether everybody's session is over, and nobody's failed: its greatest terms are not great."""
    return bool(told) and set(told) == {str(None)}


def worked(siege: Siege) -> float:
    """Seconds that the acceptors have worked."""
    return float(sum(sum(psutil.Process(node.pid).cpu_times()[:2]) for node in siege.nodes.values()))


def is_idle(siege: Siege) -> bool:
    """Whether the acceptors do next to nothing while this thread, which has no more of the processor than they, works."""
    before, began = worked(siege), time.thread_time()
    while time.thread_time() < began + LOOK_S:
        pass
    return worked(siege) - before < LOOK_S / 4
