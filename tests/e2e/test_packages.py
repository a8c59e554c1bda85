"""Protocols of packages that nothing of the library knows, between daemons, and what operators see of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from teacher_votes.services import LABELS, REVIEW
from teacher_votes.v1 import review_pb2, services_pb2

from comity.cli.progress import SessionProgress
from comity.cli.run import drive
from comity.errors import InvalidValue, PolicyRefusal, UnknownParty
from comity.experiments import demo_script
from comity.node.control_client import ControlClient
from comity.node.sessions.script import Script, parse_script, session_text
from comity.simulation.processes import NodeProcess, running
from comity.transport.identity import Identity
from comity.transport.peer_connection import PeerConnection
from comity.transport.retry import RetryPolicy
from tests.cases import plain
from tests.e2e.conftest import until
from tests.e2e.test_control_port import free_port


@pytest.mark.parametrize("demo", ["federated-count", "teacher-votes", "vote-pool"])
def test_its_demo_runs(demo: str, typed: Any, tmp_path: Path) -> None:
    shown = typed.json("demo", demo, "--seed", 5, cwd=tmp_path)
    assert shown["ledger_verified"]
    assert len(shown["processes"]) == len(parse_script(demo_script(demo, 5)).party)


def test_who_cannot_join_is_waited_for_by_nobody(short_path: Path) -> None:
    script = plain("vote_pool").script
    bob = script.party["bob"]
    refusing = bob.model_copy(update={"policy": bob.policy.model_copy(update={"egress": ("contract",)})})
    script = script.model_copy(update={"party": {**script.party, "bob": refusing}})
    with running(script, short_path) as nodes, ExitStack() as stack:
        clients = {name: stack.enter_context(ControlClient(node.control_url)) for name, node in nodes.items()}
        with pytest.raises(PolicyRefusal, match=r"bob's policy.egress refuses the session"):
            drive(script, clients, stack.enter_context(SessionProgress(quiet=True)))


@dataclass
class Reviewed:
    """Teachers of whom one has its votes reviewed, and a student that serves its labels."""

    script: Script
    nodes: dict[str, NodeProcess]
    labels: str
    review: str

    def identity(self, party: str) -> Identity:
        """A party's, as its node has it."""
        tls = self.nodes[party].folder / "tls"
        return Identity(party, tls / "certificate.pem", tls / "key.pem", tls / "trust.pem")

    def release(self, party: str, session: str) -> None:
        """Lets a teacher's votes leave, as a party that the teacher trusts."""
        retry = RetryPolicy(call_s=10.0, retry_s=0.0)
        with PeerConnection(self.identity(party), "lab", self.review, retry) as connection:
            release = connection.unary(f"/{REVIEW}/Release", review_pb2.ReleaseReply)
            connection.call(release, review_pb2.ReleaseRequest(session=session))


@pytest.fixture(params=[False])
def reviewed(request: pytest.FixtureRequest) -> Iterator[Reviewed]:
    labels, review, confirm = (f"127.0.0.1:{free_port()}" for _ in range(3))
    script = parse_script(
        plain("teacher_votes").text.replace("rounds = 3", "rounds = 2")
        + f"""
        [party.clinic.protocols.teacher-votes]
        labels = {{ listen = "{labels}" }}
        wait_s = 1.0
        {f'confirm = {{ listen = "{confirm}" }}' if request.param else ""}
        [party.lab.protocols.teacher-votes]
        review = {{ listen = "{review}" }}
        """
    )
    with TemporaryDirectory(prefix="e2e-") as folder, running(script, Path(folder)) as nodes:
        yield Reviewed(script, nodes, labels, review)


def test_votes_wait_for_a_person_and_labels_are_served(reviewed: Reviewed, typed: Any, tmp_path: Path) -> None:
    session, clinic, lab = str(reviewed.script.session.id), reviewed.nodes["clinic"], reviewed.nodes["lab"]
    with ControlClient(lab.control_url) as theirs, ControlClient(clinic.control_url) as control:
        text = session_text(reviewed.script)
        # Whoever could not hear the answer asks again, and means the same session.
        assert [control.run(text), control.run(text)] == [session, session]
        with pytest.raises(InvalidValue, match="id is taken"):
            control.run(text.replace("rounds = 2", "rounds = 3"))
        for round in (1, 2):

            def waits() -> bool:
                return [each.state for each in theirs.sessions() if each.session == session] == ["waiting"]

            until(waits, f"the votes of round {round} wait")
            with pytest.raises(UnknownParty, match="the service is not for others"):
                reviewed.release("clinic", session)
            config = lab.folder / "node.toml"
            released = typed.json("votes", "release", session, "--config", config, cwd=tmp_path)
            assert released == {"session": session, "round": round}
        *_, last = control.watch(session)
        assert last.kind == "session-finished"
        with pytest.raises(InvalidValue, match="that session is finished"):
            control.run(text)
        result: Any = last.fields["result"]
    # An application of the student's asks at an address of the student's own.
    with PeerConnection(
        reviewed.identity("hospital"), "clinic", reviewed.labels, RetryPolicy(call_s=10.0, retry_s=0.0)
    ) as connection:
        get = connection.unary(f"/{LABELS}/Get", services_pb2.GetReply)
        served = [
            connection.call(get, services_pb2.GetRequest(session=session, request=each)).label for each in range(16)
        ]
        assert served == result["metrics"]["labels"]
        with pytest.raises(InvalidValue):
            connection.call(get, services_pb2.GetRequest(session=session, request=16))
    audited = typed.json("audit", "agreement", session, "--state", clinic.folder / "state", cwd=tmp_path)
    assert set(audited["found"]) == {"hospital", "lab", "office"}


@pytest.mark.parametrize("reviewed", [True], indirect=True)
def test_a_party_that_asks_waits_for_a_person_too(reviewed: Reviewed, typed: Any, tmp_path: Path) -> None:
    """Also over a restart; and one whose session is cancelled waits for nobody."""
    session, clinic, lab = str(reviewed.script.session.id), reviewed.nodes["clinic"], reviewed.nodes["lab"]

    def waits(node: NodeProcess, subject: str) -> None:
        def does() -> bool:
            with ControlClient(node.control_url) as control:
                return [wait.subject for each in control.sessions() for wait in each.waits] == [subject]

        until(does, f"{node.party} waits for round {subject}")

    def told(verb: str, node: NodeProcess) -> dict[str, Any]:
        return dict(typed.json("votes", verb, session, "--config", node.folder / "node.toml", cwd=tmp_path))

    with ControlClient(clinic.control_url) as control:
        control.run(session_text(reviewed.script))
    waits(lab, "1")
    assert told("release", lab)["round"] == 1
    waits(clinic, "1")
    clinic.kill()
    clinic.start()
    clinic.wait_ready()
    # What it waits for is kept; whom to tell is known once the session goes on.
    until(lambda: told("learn", clinic)["round"] == 1, "the student learns")
    waits(lab, "2")
    assert told("release", lab)["round"] == 2
    waits(clinic, "2")
    with ControlClient(clinic.control_url) as control:
        assert control.cancel(session)
        assert [(each.state, each.rounds_finished) for each in control.sessions()] == [("cancelled", 1)]
    assert told("learn", clinic)["round"] == 2, "whoever looks late does no harm"


def test_a_session_goes_on_without_a_teacher_that_was_killed(reviewed: Reviewed, typed: Any, tmp_path: Path) -> None:
    session = str(reviewed.script.session.id)
    clinic, lab, office = (reviewed.nodes[name] for name in ("clinic", "lab", "office"))
    with ControlClient(lab.control_url) as theirs, ControlClient(clinic.control_url) as control:
        control.run(session_text(reviewed.script))

        def votes(round: int) -> bool:
            return [wait.subject for each in theirs.sessions() for wait in each.waits] == [str(round)]

        for round in (1, 2):
            until(lambda number=round: votes(number), f"the votes of round {round} wait")  # type: ignore[misc]
            if round == 1:
                office.kill()
            typed.json("votes", "release", session, "--config", lab.folder / "node.toml", cwd=tmp_path)
        # It is back before the session can end: everybody hears of that.
        assert next(each for each in control.watch(session) if (each.kind, each.round) == ("round-finished", 2))
        office.start()
        office.wait_ready()
        *_, last = control.watch(session)
    result: Any = last.fields["result"]
    assert last.kind == "session-finished"
    assert [votes is None for votes in result["metrics"]["votes"][1]] == [False, False, True]
    assert typed.json("ledger", "verify", "--state", clinic.folder / "state", cwd=tmp_path)["verified"]
