"""A session in which people label, between processes, and people who do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from blake3 import blake3

from comity.data import load_data
from comity.errors import ComityError, InvalidValue
from comity.node.control_client import ControlClient
from comity.node.sessions.script import Script, parse_script, session_text
from comity.protocols.peer_study.verbs.labels import Labels
from comity.simulation.processes import NodeProcess, prepare
from tests.e2e.conftest import until
from tests.protocols.peer_study.sessions import SESSIONS

SESSION = "small"
FOLLOWED_S = 300.0
"""How long a step of the session is waited for: machines are busy, and trainings of several processes go on at once."""
TIMEOUT_S = 900
"""How long a whole session may take."""


def script(*people: str, terms: str = "", guidelines: str = "", initial: int = 4) -> Script:
    """The small session with 4 and then 3 labels, in which no oracle is mistaken, and the people of some parties label."""
    begins = f"initial = {initial}\n{terms}"
    text = SESSIONS["plain"].text.replace("initial = 10", begins).replace("budget = 6", "budget = 3")
    text = text.replace("{ noise = 0.1 }", "{}")
    for party in people:
        head, mark, tail = text.partition(f"[party.{party}]")
        own = f'{{ labels = "people", guidelines = {json.dumps(guidelines)} }}'
        text = head + mark + tail.replace("peer_study = {}", f"peer_study = {own}", 1)
    return parse_script(text)


def truth(found: Script, party: str) -> dict[str, int]:
    """The labels of a party's pool, by id."""
    data = found.party[party].data
    assert data is not None
    pool = load_data(data).find("pool")
    assert pool is not None
    return dict(zip(pool.ids, pool.labels.tolist(), strict=True))


class Labelled:
    """A session that has begun.

    Args:
        nodes: Its parties.
    """

    def __init__(self, nodes: dict[str, NodeProcess]) -> None:
        self.nodes = nodes

    def call(self, party: str, call: str, **fields: Any) -> dict[str, Any]:
        """What a party's session answers its operator."""
        with ControlClient(self.nodes[party].control_url) as control:
            return control.call(SESSION, call, **fields)[0]

    def waits(self, party: str) -> list[Any]:
        """What the session waits for at a party."""
        with ControlClient(self.nodes[party].control_url) as control:
            return [*control.details(SESSION).summary.waits]

    def state(self, party: str) -> str:
        """How it stands at a party."""
        with ControlClient(self.nodes[party].control_url) as control:
            return control.details(SESSION).summary.state

    def asked(self, party: str, step: int) -> dict[str, Any]:
        """What a party's people are to label in a step, when the session waits for it."""
        shown: dict[str, Any] = {}

        def waits() -> bool:
            nonlocal shown
            try:
                with ControlClient(self.nodes[party].control_url) as control:
                    shown = Labels(control, SESSION).show()
            except InvalidValue:
                # It has not begun.
                return False
            return shown["step"] == step and any(each.reason == "labels" for each in self.waits(party))

        until(waits, f"{party} is asked in step {step}", deadline_s=FOLLOWED_S)
        return shown

    def command(self, party: str, *words: object) -> list[object]:
        """`comity annotate` as a party's operator types it."""
        return ["annotate", *words, "--session", SESSION, "--node", str(self.nodes[party].folder)]

    def refused(self, party: str, call: str, **fields: Any) -> str:
        """What an operator is told whose call is refused: one line."""
        try:
            self.call(party, call, **fields)
        except ComityError as error:
            line = str(error)
            assert "\n" not in line
            return line
        raise AssertionError("the call was answered")

    def restart(self, party: str) -> None:
        """Kills a party's node, and starts it again."""
        self.nodes[party].kill()
        self.nodes[party].start()
        self.nodes[party].wait_ready()

    def result(self, party: str) -> dict[str, Any]:
        """What the session came to at a party, when it is over."""
        until(lambda: self.state(party) not in {"running", "waiting", "stopped"}, "it is over", deadline_s=FOLLOWED_S)
        with ControlClient(self.nodes[party].control_url) as control:
            found: dict[str, Any] = json.loads(control.details(SESSION).result)
            return found

    @property
    def digest(self) -> str:
        """What it came to at all clients, as a simulation of it says it."""
        digests = [self.result(each)["digest"] for each in sorted(self.nodes) if each != "server"]
        return blake3(b"".join(map(bytes.fromhex, digests))).hexdigest()


@contextmanager
def begun(found: Script, folder: Path) -> Iterator[Labelled]:
    """The session between processes, which all clients have joined."""
    nodes = prepare(found, folder)
    try:
        for node in nodes.values():
            node.start()
        for node in nodes.values():
            node.wait_ready()
        acceptor = found.session.acceptors[0]
        with ControlClient(nodes[acceptor].control_url) as control:
            control.open(session_text(found))
        for name, node in nodes.items():
            if name != acceptor:
                with ControlClient(node.control_url) as control:
                    control.join(acceptor, SESSION)
        yield Labelled(nodes)
    finally:
        for node in nodes.values():
            node.stop()
