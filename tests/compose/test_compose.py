"""Every protocol between containers: killed in mid-round, the same digest as in one process, and nothing but TLS in between.

Wants Docker, Compose and tcpdump, and root for the latter: `make test-compose`.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
import tomlkit

from comity.experiments.studies import demos
from comity.node.sessions.script import Script, parse_script
from comity.protocol.registry import protocol
from tests.cases import plain
from tests.compose.conftest import Times
from tests.compose.pcap import is_tls, read_capture
from tests.compose.stack import DEPLOY, PLACES, Stack, docker, named

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1200)]

PROTOCOLS = sorted(point.name for point in distribution("comity").entry_points if point.group == "comity.protocols")
"""What the image has: this project's own."""
_FEWEST_ROUNDS, _MOST_ROUNDS = 12, 40
"""So that a node can be killed when the first round is over, and the test is over soon."""


def fitted(text: str) -> str:
    """A script with no more acceptors than compose.yaml has places for, and without baselines, which take long."""
    script = tomlkit.parse(text).unwrap()
    definition = protocol(script["session"]["protocol"])
    surplus = script["session"]["acceptors"][PLACES[definition.acceptor] :]
    script["session"]["acceptors"] = script["session"]["acceptors"][: PLACES[definition.acceptor]]
    script["session"]["rounds"] = min(max(script["session"]["rounds"], _FEWEST_ROUNDS), _MOST_ROUNDS)
    for party in surplus:
        del script["party"][party]
    script["simulation"] = {"threads": 1}
    return tomlkit.dumps(script)


def example(name: str) -> str:
    """A protocol's demo, which takes some seconds; its session in small, where it has none."""
    found = next((demo for demo in demos().values() if _protocol_of(demo.script) == name), None)
    return fitted(str(resolve_name(found.script)(0)) if found is not None else plain(name).text)


def _protocol_of(maker: str) -> str:
    return parse_script(str(resolve_name(maker)(0))).session.protocol


@dataclass(frozen=True)
class Casting:
    """Who is where.

    Attributes:
        places: Places of the parties, by party.
        victim: A place whose node may be killed: the operator follows another.
    """

    places: dict[str, str]
    victim: str


def cast(script: Script) -> Casting:
    places: dict[str, str] = {}
    for party, section in script.party.items():
        number = 1 + sum(script.party[each].role == section.role for each in places)
        places[party] = named(section.role, number)
    joined = protocol(script.session.protocol).topology.is_joined
    others = [party for party in script.party if (party in script.session.acceptors) != joined]
    return Casting(places, places[others[-1]])


def run_and_interrupt(stack: Stack, interrupt: Callable[[], None]) -> dict[str, Any]:
    """Runs the session, and does something to it when a round is over and the next goes on; returns the result."""
    running = stack.begin_session()
    try:
        assert running.stdout is not None
        first = running.stdout.readline()
        assert json.loads(first or "{}").get("round") == 1, running.communicate()
        interrupt()
        rest, errors = running.communicate(timeout=600)
    finally:
        running.kill()
    assert running.returncode == 0, errors[-3000:]
    result: dict[str, Any] = json.loads(rest.strip().splitlines()[-1])
    return result


def run_and_kill(stack: Stack, victim: str) -> dict[str, Any]:
    """Runs the session, kills a node in the middle of a round and starts it again; returns the result."""
    # Asked before there is haste: Compose takes a second or more for it.
    container = stack.container(victim)

    def kill() -> None:
        docker("kill", "--signal", "KILL", container)
        stands = docker("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", container).strip()
        assert stands == "exited 137"
        docker("start", container)

    return run_and_interrupt(stack, kill)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_session_between_containers(name: str, image: str, times: Times, tmp_path: Path) -> None:
    text = example(name)
    script = parse_script(text)
    (tmp_path / "script.toml").write_text(text)
    # Mounted into containers of another user.
    tmp_path.chmod(0o755)
    casting = cast(script)
    stack = Stack(tmp_path, "script.toml", more={"COMITY_IMAGE": image})
    whole = f"{name}: {len(casting.places)} nodes, {script.session.rounds} rounds, all of it"
    with times.of(whole), stack.up(list(casting.places.values())):
        with stack.captured(tmp_path / "wan.pcap"), times.of(f"{name}: a session, {casting.victim} killed in it"):
            result = run_and_kill(stack, casting.victim)
        assert result["ledger_verified"]
        listed = stack.json("sessions", "--nodes", "/node/nodes.toml")["nodes"]
        assert {each["state"] for sessions in listed.values() for each in sessions} == {"finished"}
        assert set(listed) == set(casting.places)
        for place in casting.places.values():
            stack.await_health(place)
        alone = stack.json("simulate", "/scripts/script.toml")
        assert result["digest"] == alone["digest"]
        assert result["bytes_sent"] == alone["bytes_sent"]
    capture = read_capture(tmp_path / "wan.pcap")
    assert not capture.others, "something that is no TCP crossed"
    assert not capture.holes
    assert capture.streams
    assert all(is_tls(each) for each in capture.streams.values()), "something that is no TLS crossed"
    crossed = sum(map(len, capture.streams.values()))
    assert crossed > sum(result["bytes_sent"].values()), "the session went another way"
    times.note(f"           {name}: {len(capture.streams) // 2} connections, {crossed / 1e6:.1f} MB, all of it TLS")


def test_a_container_that_runs_out_of_memory(image: str, times: Times, tmp_path: Path) -> None:
    """The system kills the node for its container's memory; Docker starts it again, and it says what to do."""
    name = PROTOCOLS[0]
    text = example(name)
    (tmp_path / "script.toml").write_text(text)
    tmp_path.chmod(0o755)
    casting = cast(parse_script(text))
    stack = Stack(tmp_path, "script.toml", more={"COMITY_IMAGE": image})
    with stack.up(list(casting.places.values())):
        container = stack.container(casting.victim)

        def fill() -> None:
            # A file in memory counts as the container's, and of its processes the node is the largest. Who writes the file
            # ends with the container, so that its exit code says nothing.
            docker("update", "--memory", "1g", "--memory-swap", "1g", container)
            writer = ["docker", "exec", container, "sh", "-c", "head -c 2G /dev/zero > /tmp/filled"]
            subprocess.run(writer, capture_output=True, check=False)

        with times.of(f"{name}: a session, {casting.victim} out of memory in it"):
            result = run_and_interrupt(stack, fill)
        assert stack.inspect(casting.victim, "{{.RestartCount}}") == "1"
        said = [
            line
            for line in stack.compose("logs", "--no-color", casting.victim).stdout.splitlines()
            if "node-was-killed" in line
        ]
        assert len(said) == 1
        assert "lower policy.max_memory_bytes" in said[0]
        assert result["digest"] == stack.json("simulate", "/scripts/script.toml")["digest"]


@pytest.mark.parametrize(("profile", "script"), [("providers", "providers.toml"), ("clients", "clients.toml")])
def test_what_the_readme_says(profile: str, script: str, image: str, times: Times) -> None:
    """`docker compose up` and one command; a UID that nobody has; stopped by SIGTERM at once."""
    more = {"COMITY_IMAGE": image, "COMPOSE_PROFILES": profile, "COMITY_UID": "54321"}
    stack = Stack(DEPLOY / "scripts", script, more=more)
    services = [named(role, 1 + at) for role, many in PLACES.items() for at in range(many)]
    places = [
        each for each in services if (each.partition("-")[0] in {"learner", "provider"}) == (profile == "providers")
    ]
    with stack.up([]):
        with times.of(f"{script}: docker compose up to the result"):
            done = stack.operator()
        assert "ledger verified" in done.stdout
        digest = stack.json("simulate", f"/scripts/{script}")["digest"]
        assert digest in done.stdout
        running = stack.compose("ps", "--services", "--filter", "status=running").stdout.split()
        assert sorted(running) == sorted(places)
        # Again: what is there is left as it is.
        assert "left as they are" in stack.compose("run", "--rm", "-T", "setup").stdout
        assert stack.inspect(places[0], "{{.Config.User}} {{.HostConfig.ReadonlyRootfs}}") == "54321:0 true"
        with times.of(f"{script}: SIGTERM to all nodes"):
            stack.compose("stop", "--timeout", "60", *places)
        for place in places:
            assert stack.inspect(place, "{{.State.ExitCode}}") == "0", stack.compose("logs", place).stdout[-2000:]
