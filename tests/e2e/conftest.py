"""What the end-to-end tests share: the command as a user starts it, daemons as processes, and a watch over both."""

from __future__ import annotations

import fcntl
import io
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest
import torch

from comity.cli.main import main
from comity.node.sessions.script import Script, parse_script
from comity.session.outcome import Outcome
from comity.simulation.forking import context
from comity.simulation.in_process import simulate
from comity.simulation.processes import NodeProcess, start_node
from comity.transport.certificates import Authority
from comity.transport.identity import Identity
from tests.conftest import stays

COMMAND = Path(sys.executable).with_name("comity")
MARK = "E2E_STARTED_BY"
"""Environment variable by which a process that these tests started is known, however far down it is."""


def started_here(mark: str) -> list[psutil.Process]:
    """Every process that carries a mark."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def until(condition: Callable[[], object], what: str, *, deadline_s: float = 90.0) -> None:
    """Waits until a condition holds."""
    deadline = time.monotonic() + deadline_s
    between_looks = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"not within {deadline_s:.0f} s: {what}"
        between_looks.wait(0.02)


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without what would decide for the command."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("COMITY_", "OMP_", "PYTEST_"))}
    return kept | {"PATH": f"{COMMAND.parent}{os.pathsep}{os.environ['PATH']}"} | more


SHARED = {"pair", "target", "captured", "installed"}
"""Fixtures of one file that start daemons, or take as long."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps the tests that share daemons on one worker, where xdist is told to (`--dist loadgroup`)."""
    for item in items:
        if SHARED & set(getattr(item, "fixturenames", ())) and item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@dataclass
class Command:
    """`comity`, as a user starts it."""

    mark: str

    def __call__(
        self, *arguments: object, cwd: Path, executable: Path = COMMAND, deadline_s: float = 300.0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs it to its end, and checks that it leaves no process."""
        own = f"{self.mark}-{uuid.uuid4().hex}"
        done = subprocess.run(
            [str(executable), *map(str, arguments)],
            cwd=cwd,
            env=clean_environment(**{MARK: own} | environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=deadline_s,
        )
        with suppress(AssertionError):
            # What daemons were forked from ends when it sees that nobody is left to ask it.
            until(lambda: not started_here(own), "all has ended", deadline_s=5)
        left = started_here(own)
        for process in left:
            process.kill()
        assert not left, f"comity {arguments[0]} left processes behind: {left}"
        return done

    @contextmanager
    def begun(self, *arguments: object, cwd: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
        """Runs it while the body lasts: the process, with a pipe for its errors, and the mark of all that it starts."""
        own = f"{self.mark}-{uuid.uuid4().hex}"
        process = subprocess.Popen(
            [str(COMMAND), *map(str, arguments)],
            cwd=cwd,
            env=clean_environment(**{MARK: own} | environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process, own
        finally:
            for each in started_here(own):
                each.kill()
            process.communicate()

    def fails(self, *arguments: object, cwd: Path, code: int, **environment: str) -> str:
        """Runs it; it must end with an exit code, and one line that begins with its name. Returns that line."""
        return the_line(self(*arguments, cwd=cwd, **environment), code)

    def json(self, *arguments: object, cwd: Path, executable: Path = COMMAND, **environment: str) -> dict[str, Any]:
        """Runs it with `--json`; standard output must be one JSON object and nothing else."""
        return the_object(self(*arguments, "--json", cwd=cwd, executable=executable, **environment))


def the_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    """What a command that failed says: one line."""
    assert done.returncode == code, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("comity: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0].removeprefix("comity: ")


def the_object(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What a command that ended well printed: one JSON object."""
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return value


class Typed:
    """`comity` within this process, for what starts nothing: no process has to import everything for it."""

    def __call__(self, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Runs it to its end."""
        typed = [str(each) for each in arguments]
        out, error = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(error):
            patch.chdir(cwd)
            patch.setattr(sys, "argv", ["comity", *typed])
            for name in [each for each in os.environ if each.startswith("COMITY_")]:
                patch.delenv(name)
            code: object = 0
            try:
                main()
            except SystemExit as ended:
                code = ended.code or 0
        assert isinstance(code, int)
        return subprocess.CompletedProcess(typed, code, out.getvalue(), error.getvalue())

    def fails(self, *arguments: object, cwd: Path, code: int) -> str:
        """Runs it; see `Command.fails`."""
        return the_line(self(*arguments, cwd=cwd), code)

    def json(self, *arguments: object, cwd: Path) -> dict[str, Any]:
        """Runs it; see `Command.json`."""
        return the_object(self(*arguments, "--json", cwd=cwd))


@dataclass
class Site:
    """A folder with an authority, in which daemons run until the site is closed.

    Attributes:
        folder: Where everything goes.
        authority: Who certifies the parties.
        stack: What is undone at the end.
    """

    folder: Path
    authority: Authority = field(default_factory=Authority.create)
    stack: ExitStack = field(default_factory=ExitStack)
    _identities: dict[str, Identity] = field(default_factory=dict)

    def identity(self, party: str) -> Identity:
        """A party's certificate, made when it is first asked for."""
        if party not in self._identities:
            self._identities[party] = self.authority.issue(party, self.folder / party / "tls")
        return self._identities[party]

    def start(self, role: str, party: str, *, secure: bool = True, **config: Any) -> NodeProcess:
        """Starts a daemon and waits until it serves."""
        node = self.launch(role, party, secure=secure, **config)
        node.wait_ready()
        return node

    def launch(self, role: str, party: str, *, secure: bool = True, **config: Any) -> NodeProcess:
        """Starts a daemon; it may fail."""
        values: dict[str, Any] = {"party": party, "state_dir": "state"}
        if secure:
            self.identity(party)
            values["tls"] = {name: f"tls/{name}.pem" for name in ("certificate", "key", "trust")}
        else:
            values["insecure"] = True
        node = start_node(role, self.folder / party, values | config)
        self.stack.callback(node.stop)
        return node


def as_typed(arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """Becomes what a command line says, with its output in `log`."""
    os.setsid()
    os.chdir(folder)
    with Path("log").open("ab") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    if arguments[1] == "-m":
        sys.argv = arguments[2:]
        runpy.run_module(arguments[2], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        main()


class Started:
    """A process that was forked, with the methods of one that was spawned."""

    def __init__(self, process: ForkServerProcess) -> None:
        process.start()
        self._process = process
        self.pid = process.pid or 0

    def poll(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for its end."""
        connection.wait([self._process.sentinel], timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Sends it a signal, if it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends it with SIGKILL, if it runs."""
        self.send_signal(signal.SIGKILL)


@dataclass
class Daemon:
    """A node that was started by hand.

    Attributes:
        process: The process.
        folder: Its configuration, state and log.
    """

    process: Started | subprocess.Popen[bytes]
    folder: Path

    @property
    def log(self) -> list[dict[str, Any]]:
        """What it logged."""
        lines = (self.folder / "log").read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def logged(self, event: str, **fields: object) -> bool:
        """Whether it logged something."""
        return any(each["event"] == event and fields.items() <= each.items() for each in self.log)

    def terminate(self, patience_s: float) -> tuple[int, float]:
        """Sends SIGTERM; its exit code, and the seconds that it took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{self.folder.name} goes on {patience_s:.0f} s after SIGTERM")
        return code, time.monotonic() - began

    def end(self) -> None:
        """Ends it, one way or the other."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class Hand:
    """Someone at a shell, with a folder for each node."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def start(self, arguments: list[object], folder: Path, *, forked: bool = True) -> Daemon:
        """Runs a daemon in a node's folder, with one thread for its tensors.

        Args:
            arguments: What is typed.
            folder: Where.
            forked: Whether from a process that has imported what it needs, which saves seconds.
        """
        typed, environment = [str(each) for each in arguments], clean_environment(OMP_NUM_THREADS="1")
        (folder / "log").touch()
        process: Started | subprocess.Popen[bytes]
        if forked:
            process = Started(
                context().Process(
                    target=as_typed, args=(typed, str(folder), environment), name=folder.name, daemon=True
                )
            )
        else:
            with (folder / "log").open("ab") as log:
                process = subprocess.Popen(
                    typed, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
                )
        daemon = Daemon(process, folder)
        self.site.stack.callback(daemon.end)
        return daemon

    def follow(self, *arguments: object, cwd: Path) -> subprocess.Popen[str]:
        """Runs a command that goes on, and complains to a pipe."""
        process = subprocess.Popen(
            [str(each) for each in arguments],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=clean_environment(),
        )
        self.site.stack.callback(process.communicate)
        self.site.stack.callback(process.kill)
        return process

    def write(self, party: str, text: str, *, folder: str | None = None) -> Path:
        """Puts a node's files where its configuration says."""
        home: Path = self.site.folder / (folder or party)
        home.mkdir(exist_ok=True)
        if not (home / "tls").exists():
            self.site.authority.issue(party, home / "tls")
        (home / "node.toml").write_text(text)
        return home

    def ready(self, daemon: Daemon) -> str:
        """Waits until a daemon says that it is there; its address."""

        def there() -> bool:
            assert daemon.process.poll() is None, (daemon.folder / "log").read_text()
            return daemon.logged("node-ready", pid=daemon.process.pid)

        until(there, f"{daemon.folder.name} is ready", deadline_s=60)
        (line,) = [each for each in daemon.log if each["event"] == "node-ready" and each["pid"] == daemon.process.pid]
        address: str = line["address"]
        return address


@contextmanager
def opened_site() -> Iterator[Site]:
    """A site that is closed at the end, in a folder with a short name."""
    with TemporaryDirectory(prefix="e2e-") as folder:
        site = Site(Path(folder))
        with site.stack:
            yield site


@pytest.fixture(scope="session", autouse=True)
def mark() -> Iterator[str]:
    """Marks every process that these tests start; at the end none may be there."""
    own = uuid.uuid4().hex
    os.environ[MARK] = own
    yield own
    del os.environ[MARK]
    left = [each for each in started_here(own) if not stays(each)]
    for process in left:
        process.kill()
    assert not left, f"the tests left processes behind: {left}"


@pytest.fixture(scope="session")
def comity(mark: str) -> Command:
    """The `comity` command."""
    return Command(mark)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A place for the daemons of one file of tests."""
    with opened_site() as opened:
        yield opened


@pytest.fixture
def own_site() -> Iterator[Site]:
    """A place for the daemons of one test."""
    with opened_site() as opened:
        yield opened


@pytest.fixture(scope="module")
def hand(site: Site) -> Hand:
    """Someone who starts the daemons of one file of tests by hand."""
    return Hand(site)


@pytest.fixture
def own_hand(own_site: Site) -> Hand:
    """Someone who starts the daemons of one test by hand."""
    return Hand(own_site)


@pytest.fixture(scope="session")
def typed() -> Typed:
    """The command within this process."""
    return Typed()


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., None]:
    """Waits for a condition with a deadline."""
    return until


@pytest.fixture(scope="session")
def marked() -> Callable[[str], list[psutil.Process]]:
    """The processes that carry a mark."""
    return started_here


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], Any]], tuple[Path, Any]]:
    """Does a long piece of work once for all workers of a run: its folder, and what it returned, as JSON."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def work(name: str, make: Callable[[Path], Any]) -> tuple[Path, Any]:
        folder = shared / f"once-{name}"
        folder.mkdir(exist_ok=True)
        result = folder / "once.json"
        with (folder / "once.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not result.exists():
                result.write_text(json.dumps(make(folder)))
        return folder, json.loads(result.read_text())

    return work


@pytest.fixture(scope="session")
def the_demo(comity: Command, once: Callable[..., tuple[Path, Any]]) -> tuple[Path, dict[str, Any]]:
    """`comity demo --json --seed 0 --workdir kept`, run once: the folder that it ran in, and what it printed."""

    def run(folder: Path) -> dict[str, Any]:
        (folder / "tmp").mkdir()
        return comity.json("demo", "--seed", 0, "--workdir", "kept", cwd=folder, TMPDIR=str(folder / "tmp"))

    return once("demo", run)


@pytest.fixture(scope="session")
def simulated() -> Callable[[str], tuple[Script, Outcome]]:
    """What a script comes to in this process."""

    def run(text: str) -> tuple[Script, Outcome]:
        script = parse_script(text)
        return script, simulate(script)[1]

    return run
