"""What monitors read of a node: while a session is on, and when it is over."""

from __future__ import annotations

import socket
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from comity import faults
from comity.errors import AddressInUse, InvalidValue
from comity.node.config import NodeConfig
from comity.node.config_sections import MetricsConfig
from comity.node.daemon import Node
from comity.node.monitoring import door
from comity.node.monitoring.collector import registry_of
from comity.node.monitoring.door import serving
from tests.cases import plain
from tests.e2e.conftest import until
from tests.e2e.network import DEADLINE_S, Network, in_a_thread, network

METRICS = {"enabled": True, "listen": "127.0.0.1:0"}

Found = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(address: str, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=DEADLINE_S) as answer:
        return str(answer.read().decode())


def scraped(address: str) -> Found:
    """Every sample, by its name and labels."""
    families = text_string_to_metric_families(read(address))
    return {(each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples}


def of(found: Found, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def addresses(found: Network) -> dict[str, str]:
    return {party: client.status().metrics for party, client in found.clients.items()}


def test_a_node_is_scraped_in_mid_round_and_afterwards() -> None:
    script, commits, halfway, go_on = plain("teacher_votes").script, count(1), threading.Event(), threading.Event()

    def held(point: str) -> None:
        if point == "commit" and next(commits) == 9:
            halfway.set()
            assert go_on.wait(DEADLINE_S)

    with (
        TemporaryDirectory(prefix="e2e-") as name,
        ThreadPoolExecutor(1) as pool,
        network(script, Path(name), metrics=METRICS) as nodes,
    ):
        faults.install(held)
        try:
            running = pool.submit(nodes.run)
            assert halfway.wait(DEADLINE_S)
            at = addresses(nodes)
            for address in at.values():
                found = scraped(address)
                assert of(found, "comity_sessions", state="running") == 1
                assert of(found, "comity_sessions_counted") == 1
        finally:
            go_on.set()
            faults.install(None)
        result = running.result(DEADLINE_S)
        clinic = scraped(at["clinic"])
        assert of(clinic, "comity_sessions", state="finished") == 1
        assert of(clinic, "comity_rounds_total", protocol="teacher_votes") == script.session.rounds
        for direction in ("sent", "received"):
            for kind, size in result[f"bytes_{direction}"].items():
                assert of(clinic, "comity_bytes_total", direction=direction, kind=kind) == size
        rounds = of(clinic, "comity_round_seconds_count", protocol="teacher_votes")
        assert rounds == script.session.rounds
        calls = {labels for sample, labels in clinic if sample == "comity_call_seconds_count"}
        assert ("side", "client") in set().union(*calls)
        helps = scraped(at[script.session.acceptors[0]])
        answered = {dict(labels)["side"] for sample, labels in helps if sample == "comity_call_seconds_count"}
        # One process has both nodes here, so that each measures the calls of both.
        assert answered == {"client", "server"}


def test_what_is_about_the_node_itself() -> None:
    values = {"party": "clinic", "insecure": True, "metrics": METRICS}
    values["policy"] = {"max_epsilon": 8.0, "max_state_bytes": 1_000_000, "max_sessions": 3}
    with TemporaryDirectory(prefix="e2e-") as name, in_a_thread("analyst", values | {"state_dir": Path(name)}) as node:
        found = scraped(node.status().metrics)
    assert of(found, "comity_privacy_epsilon_left") == 8
    assert of(found, "comity_disk_quota_bytes") == 1_000_000
    assert of(found, "comity_sessions_limit") == 3
    assert of(found, "comity_sessions_waiting", reason="approval") == 0
    assert any(name == "comity_node_info" and ("party", "clinic") in labels for name, labels in found)
    assert of(found, "process_open_fds") > 0


class Unreadable:
    """A node whose store cannot be read."""

    def status(self) -> None:
        raise InvalidValue("the store cannot be read", expected="a store", received="nothing", action="restore it")


def test_a_scrape_that_comes_to_nothing_says_so_and_the_next_one_is_answered() -> None:
    registry, _ = registry_of(Unreadable())  # type: ignore[arg-type]
    with serving(registry, MetricsConfig(listen="127.0.0.1:0")) as address:
        for _ in range(2):
            with pytest.raises(urllib.error.HTTPError, match="503") as refused:
                read(address)
            assert b"log says why" in refused.value.read()
            refused.value.close()
        with pytest.raises(urllib.error.HTTPError, match="404") as elsewhere:
            read(address, "/")
        elsewhere.value.close()


def test_they_are_for_this_machine_unless_somebody_says_otherwise() -> None:
    registry, _ = registry_of(Unreadable())  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match=r"metrics\.expose"), serving(registry, MetricsConfig(listen="0.0.0.0:0")):
        pass
    with serving(registry, MetricsConfig(listen="0.0.0.0:0", expose=True)) as address:
        assert address.startswith("0.0.0.0:")


def test_a_port_in_use_ends_the_start_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        values = {"party": "clinic", "state_dir": tmp_path, "insecure": True, "metrics": METRICS | {"listen": listen}}
        with pytest.raises(AddressInUse, match="metrics cannot be served") as refused:
            Node("analyst", NodeConfig(**values)).serve(threading.Event())
    assert "metrics.listen" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_who_dribbles_keeps_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then, from more connections than have a place: all are cut off when their time is over."""
    monkeypatch.setattr(door, "_PATIENCE_S", 1.0)
    with serving(CollectorRegistry(), MetricsConfig(listen="127.0.0.1:0")) as address, ExitStack() as stack:
        host, _, port = address.rpartition(":")
        lines = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(8)]
        over = threading.Event()

        def dribble(line: socket.socket) -> None:
            with suppress(OSError):
                while not over.wait(0.1):
                    line.sendall(b"G")

        pool = stack.enter_context(ThreadPoolExecutor(len(lines)))
        stack.callback(over.set)
        for line in lines:
            pool.submit(dribble, line)

        def is_answered() -> bool:
            try:
                read(address)
            except OSError:
                return False
            return True

        until(is_answered, "a scraper is answered beside them", deadline_s=DEADLINE_S)
