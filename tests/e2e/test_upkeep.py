"""What docs/operations.md says of a node's years: certificates, backups, other machines, a proxy on the way out."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from cryptography import x509

from comity.ledger.verification import verify
from comity.node.control_client import ControlClient
from comity.node.sessions.script import Script
from comity.transport.addresses import socket_url
from tests.cases import plain
from tests.e2e.conftest import until
from tests.e2e.network import DEADLINE_S, Network, network
from tests.e2e.pages import ROOT
from tests.e2e.test_control_port import POLICY, free_port
from tests.ledgers import kept

pytestmark = pytest.mark.slow

ROUNDS = 1000
"""More than are over before the test is."""
SESSION = f"""\
[session]
protocol = "teacher_votes"
id = "renewed"
acceptors = ["hospital"]
rounds = {ROUNDS}

[session.models.student]
name = "mlp"
options = {{ hidden = 8 }}
"""


def documented(heading: str) -> str:
    """The commands of a section of the page."""
    page = (ROOT / "docs" / "operations.md").read_text()
    section = page.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    found = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1]


def finished(folder: Path) -> int:
    with ControlClient(socket_url(folder / "state" / "control.sock")) as control:
        return sum(each.rounds_finished for each in control.sessions())


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")
def test_a_certificate_is_renewed_in_mid_session(typed: Any, own_hand: Any) -> None:
    with TemporaryDirectory(prefix="e2e-") as name:
        home, at = Path(name), f"127.0.0.1:{free_port()}"

        def do(*arguments: object) -> None:
            done = typed(*arguments, cwd=home)
            assert done.returncode == 0, done.stderr

        do("init", "teacher", "hospital", "--party", "hospital", "--listen", at)
        do("init", "student", "clinic", "--party", "clinic", "--peer", f"hospital={at}")
        for party, other in (("hospital", "clinic"), ("clinic", "hospital")):
            do("trust", "add", other, f"{other}/{other}.pem", "--node", party)
            config = home / party / "node.toml"
            config.write_text(config.read_text().replace("[policy]\n", f"[policy]\n{POLICY}\n"))

        def start(party: str, role: str) -> Any:
            daemon = own_hand.start(["comity", "node", role], home / party)
            own_hand.ready(daemon)
            return daemon

        start("hospital", "teacher")
        clinic = start("clinic", "student")
        with ControlClient(socket_url(home / "clinic" / "state" / "control.sock")) as control:
            control.run(SESSION)
        until(lambda: 0 < finished(home / "clinic") < ROUNDS, "the session is on", deadline_s=DEADLINE_S)
        make, send = documented("Certificates").split("# Then, at each peer:\n")
        take, swap = send.split("# Last, in the node's folder:\n")
        run(make, home / "hospital")
        old, new = certificates(home / "hospital" / "card.pem")
        assert take.strip() == "comity trust add hospital card.pem --replace"
        do("trust", "add", "hospital", "hospital/card.pem", "--replace", "--node", "clinic")
        run(swap, home / "hospital")
        clinic.terminate(15)
        # It goes on over a new line, at which the new certificate is shown.
        assert shown_at(at) == new != old
        start("clinic", "student")
        before = finished(home / "clinic")
        assert before < ROUNDS, "the session was over before"
        until(lambda: finished(home / "clinic") > before, "it goes on", deadline_s=DEADLINE_S)
        with ControlClient(socket_url(home / "clinic" / "state" / "control.sock")) as control:
            assert control.cancel("renewed"), "the hospital was told"


def run(script: str, folder: Path) -> None:
    subprocess.run(["sh", "-euc", script], cwd=folder, check=True, capture_output=True)


def certificates(card: Path) -> list[bytes]:
    """The certificates on a card, the old one first."""
    found = x509.load_pem_x509_certificates(card.read_bytes())
    return [each.tbs_certificate_bytes for each in sorted(found, key=lambda each: each.not_valid_after_utc)]


def shown_at(address: str) -> bytes:
    """The certificate that a node shows."""
    command = ["openssl", "s_client", "-connect", address, "-alpn", "h2", "-showcerts"]
    done = subprocess.run(command, input=b"", capture_output=True, check=False, timeout=DEADLINE_S)
    return x509.load_pem_x509_certificates(done.stdout)[0].tbs_certificate_bytes


def named(script: Script, id: str) -> Script:
    return script.model_copy(update={"session": script.session.model_copy(update={"id": id})})


def run_in(script: Script, folder: Path) -> list[str]:
    """Runs a session between nodes whose states are in a folder; the sessions that the initiator then knows."""
    with network(script, folder) as nodes:
        nodes.run()
        return [each.session for each in initiator(script, nodes).sessions()]


def initiator(script: Script, nodes: Network) -> ControlClient:
    return next(client for name, client in nodes.clients.items() if name not in script.session.acceptors)


def test_a_copy_of_a_node_that_was_stopped_goes_on_elsewhere_with_all_that_it_had() -> None:
    script = plain("federated_count").script
    with TemporaryDirectory(prefix="e2e-") as name:
        here, there = Path(name) / "a", Path(name) / "b"
        assert run_in(named(script, "first"), here) == ["first"]
        shutil.copytree(here, there)
        assert run_in(named(script, "second"), there) == ["first", "second"]
        for party in script.party:
            verify(kept(there / party))


def test_an_older_backup_lacks_what_came_since_and_what_comes_next_is_right() -> None:
    script = plain("federated_count").script
    with TemporaryDirectory(prefix="e2e-") as name:
        here = Path(name) / "a"
        asks = next(party for party in script.party if party not in script.session.acceptors)
        run_in(named(script, "first"), here)
        shutil.copytree(here / asks, Path(name) / "backup")
        run_in(named(script, "second"), here)
        shutil.rmtree(here / asks)
        shutil.copytree(Path(name) / "backup", here / asks)
        assert run_in(named(script, "third"), here) == ["first", "third"]
        for party in script.party:
            verify(kept(here / party))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_a_state_volume_that_is_read_only_ends_the_start_in_one_line(typed: Any, own_hand: Any, tmp_path: Path) -> None:
    done = typed("init", "analyst", "clinic", "--party", "clinic", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    state = tmp_path / "clinic" / "state"
    (state / "blobs").mkdir(mode=0o700, parents=True, exist_ok=True)
    (state / "lock").touch()
    mount = subprocess.run(["mount", "--bind", state, state], capture_output=True, check=False)
    if mount.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", state], check=True)
        daemon = own_hand.start(["comity", "node", "analyst"], tmp_path / "clinic")
        assert daemon.process.wait(60) == 2
        said = (daemon.folder / "log").read_text().strip().splitlines()
        assert len(said) == 1
        assert "cannot be used" in said[0]
        assert "make it writable" in said[0]
    finally:
        subprocess.run(["umount", state], check=True)


@contextmanager
def tunnelling() -> Iterator[tuple[str, list[str]]]:
    """A proxy that takes CONNECT; its address, and what it was asked for."""
    asked: list[str] = []
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

        def pass_on(source: socket.socket, target: socket.socket) -> None:
            with suppress(OSError):
                while piece := source.recv(65536):
                    target.sendall(piece)
            for each in (source, target):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

        def serve(caller: socket.socket) -> None:
            with caller:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += caller.recv(1)
                method, target, _ = head.split(b" ", 2)
                assert method == b"CONNECT"
                asked.append(target.decode())
                host, _, port = target.decode().rpartition(":")
                with socket.create_connection((host, int(port))) as peer:
                    caller.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                    back = threading.Thread(target=pass_on, args=(peer, caller))
                    back.start()
                    pass_on(caller, peer)
                    back.join(DEADLINE_S)

        threads: list[threading.Thread] = []

        def accept() -> None:
            with suppress(OSError):
                while True:
                    caller, _ = listening.accept()
                    threads.append(threading.Thread(target=serve, args=(caller,)))
                    threads[-1].start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", asked
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            accepting.join(DEADLINE_S)
            for thread in threads:
                thread.join(DEADLINE_S)


def test_a_node_reaches_its_peers_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    script = plain("federated_count").script
    with tunnelling() as (proxy, asked), TemporaryDirectory(prefix="e2e-") as name:
        monkeypatch.setenv("https_proxy", proxy)
        with network(script, Path(name)) as nodes:
            nodes.run()
            addresses = {each.address for each in nodes.proxies}
    assert set(asked) == addresses
