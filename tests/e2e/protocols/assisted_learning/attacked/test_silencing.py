"""Trusted parties that would have a node serve nobody else: by work, by files, by what they promise to send."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from comity.contract import ModelSpec
from comity.errors import PolicyRefusal, SessionFailed
from comity.node.control_client import ControlClient
from comity.transport import sessions
from comity.transport.negotiation import encode_proposal
from comity.transport.peer_connection import PeerConnection
from comity.wire.v1 import blobs_pb2
from tests.e2e.conftest import opened_site
from tests.e2e.hostile.parties import DEADLINE_S, NUMBERS, QUICK, Target, data, refusal
from tests.e2e.protocols.assisted_learning.attacked.attacks import PLAY, Attack, agreed

UNIT_S = 5.0
SILENCE_S = 3.0
LOOK_S = 0.2
ENDLESS = {"iterations": 2**32 - 1, "sampling_period": 2**31 - 1}


@pytest.fixture(scope="module")
def provider() -> Iterator[Target]:
    """A daemon of its own, whose units of work are short, with little memory, which does not wait for long."""
    policy = {
        "parties": ["learner", "mallory"],
        "max_sessions_a_party": 2,
        "max_memory_bytes": 100_000_000,
        # For one session of 200 models, and some of a few.
        "max_state_bytes": 1_900_000,
        "max_party_share": 1.0,
    }
    shown = {"data": data("provider"), "privacy": {"preset": "public"}}
    config = {"secret": "provider's", "policy": policy, "listen": "127.0.0.1:0", **shown}
    with opened_site() as site:
        node = site.launch("provider", "provider", limits={"unit_s": UNIT_S}, **config)
        yield Target(node, node.wait_ready(), *(site.identity(name) for name in ("learner", "mallory", "stranger")))


@pytest.fixture
def line(provider: Target) -> Iterator[PeerConnection]:
    with PeerConnection(provider.mallory, "provider", provider.address, QUICK) as connection:
        yield connection


def session(line: PeerConnection, **terms: Any) -> AbstractContextManager[Attack]:
    """A session of Mallory's with terms of her choice."""
    contract, _ = PLAY.mallorys(f"w-{next(NUMBERS)}")
    return agreed(line, contract.session, terms=contract.terms.model_copy(update=terms))


def until(condition: Any, what: str) -> None:
    ends = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < ends, what
        time.sleep(0.05)


def worked(pid: int) -> float:
    """Seconds that a process has worked."""
    return float(sum(psutil.Process(pid).cpu_times()[:2]))


def is_idle(pid: int) -> bool:
    """Whether a process does next to nothing while this thread, which has no more of the processor than it, works."""
    before, began = worked(pid), time.thread_time()
    while time.thread_time() < began + LOOK_S:
        pass
    return worked(pid) - before < LOOK_S / 4


def test_a_training_ends_with_its_session(provider: Target) -> None:
    """2³²-1 iterations that nobody waits for cost no more than a batch; an honest session is as it always is."""
    pid = provider.process.pid
    for _ in range(4):
        with (
            PeerConnection(provider.mallory, "provider", provider.address, QUICK) as line,
            session(line, **ENDLESS) as attack,
        ):
            before = worked(pid)
            attack.begin()
            attack.close()
            until(lambda before=before: worked(pid) > before + LOOK_S, "the provider trains")
    until(lambda: is_idle(pid), "nobody trains any more")
    assert PLAY.run_honestly(provider, "after-runaways").digest


def test_a_training_that_takes_too_long_fails_its_session(provider: Target, line: PeerConnection) -> None:
    with session(line, **ENDLESS) as attack:
        attack.begin()
        attack.close()
        until(lambda: isinstance(refusal(attack.watch), SessionFailed), "the session fails")
        assert "limits.unit_s" in str(refusal(attack.watch))
    until(lambda: is_idle(provider.process.pid), "nobody trains any more")


def test_checkpoints_that_are_kept_hold_no_files_open(provider: Target, line: PeerConnection) -> None:
    most = 40
    with session(line, iterations=200, sampling_period=1) as attack:
        before = psutil.Process(provider.process.pid).num_fds()
        state = attack.state
        for number in range(most):
            next(iter(state.values())).view(-1)[0] = float(number)
            assert attack.put(attack.layout.pack(state).data).complete
        assert psutil.Process(provider.process.pid).num_fds() < before + 20
        with ControlClient(provider.process.control_url) as control:
            assert control.describe().pid == provider.process.pid


def test_half_uploads_are_few(provider: Target, line: PeerConnection) -> None:
    """What has come of all but the latest is gone: there is memory for so many, not for as many as anybody begins."""
    with session(line, iterations=200, sampling_period=1) as attack:
        size, begun = attack.blob.size, [number.to_bytes(32, "big").hex() for number in range(40)]
        for digest in begun:
            refusal(lambda digest=digest: attack.put(bytes(size - 1), digest=digest, size=size))  # type: ignore[misc]
        held = [attack.connection._stat(_reference(each), metadata=attack.connection._metadata).held for each in begun]
        assert 0 < sum(each > 0 for each in held) <= 8
        assert held[-1] == size - 1


def test_one_party_has_only_so_many_sessions(provider: Target) -> None:
    with ExitStack() as stack:
        for _ in range(2):
            line = stack.enter_context(PeerConnection(provider.mallory, "provider", provider.address, QUICK))
            stack.enter_context(session(line))
        third = stack.enter_context(PeerConnection(provider.mallory, "provider", provider.address, QUICK))
        with pytest.raises(PolicyRefusal, match="policy.max_sessions_a_party") as caught, session(third):
            pass
        assert caught.value.received == "one more"
        assert PLAY.run_honestly(provider, "beside-two").digest


def test_what_one_session_may_still_take_no_other_is_promised(provider: Target, line: PeerConnection) -> None:
    with session(line, iterations=200, sampling_period=1):
        with PeerConnection(provider.mallory, "provider", provider.address, QUICK) as second:
            begun = session(second, iterations=200, sampling_period=1)
            with pytest.raises(PolicyRefusal, match="has no room for the session") as caught, begun:
                pass
        assert caught.value.received == "less"
        assert PLAY.run_honestly(provider, "beside-a-large-one").digest


def test_models_for_which_there_is_no_memory_are_not_built(provider: Target, line: PeerConnection) -> None:
    process = psutil.Process(provider.process.pid)
    before, began = process.memory_info().rss, time.monotonic()
    # Four gigabytes, which would take some time to fill.
    large = ModelSpec(name="mlp", options={"hidden": 8192, "hidden_layers": 16}, signature="0" * 64)
    proposal = PLAY.proposal(models={"model": large})
    with pytest.raises(PolicyRefusal, match="has no memory for the session"):
        sessions.propose(line, proposal)
    assert time.monotonic() - began < 5.0
    assert process.memory_info().rss < before + 50_000_000


@pytest.mark.parametrize(
    ("bound", "said"), [("max_silence_s", "does not call any more"), ("max_duration_s", "is not valid any more")]
)
def test_a_session_whose_initiator_never_comes_back_is_ended(
    provider: Target, line: PeerConnection, bound: str, said: str
) -> None:
    contract, party = PLAY.mallorys(f"w-{next(NUMBERS)}", **{bound: SILENCE_S})
    proposal = encode_proposal(contract, party.membership("learner"), party.signer, PLAY.definition)
    assert sessions.propose(line, proposal) is not None
    with ControlClient(provider.process.control_url) as control:
        assert control.details(contract.session).summary.state == "running"
        until(lambda: control.details(contract.session).summary.state == "failed", "it is ended")
        assert said in control.details(contract.session).result


def test_a_node_opens_what_files_it_may_and_keeps_them_to_itself(provider: Target) -> None:
    soft, hard = psutil.Process(provider.process.pid).rlimit(psutil.RLIMIT_NOFILE)
    assert soft == hard
    # From the moment in which its socket is bound, before anybody could restrict it.
    assert "Umask:\t0077" in Path(f"/proc/{provider.process.pid}/status").read_text()
    state = provider.process.folder / "state"
    kept = [state, *state.rglob("*")]
    assert state / "control.sock" in kept
    assert [str(each) for each in kept if each.lstat().st_mode & 0o077] == []


def _reference(digest: str) -> Any:
    return blobs_pb2.BlobRef(digest=bytes.fromhex(digest))
