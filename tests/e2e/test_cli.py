"""The command as a user meets it: configuration files, two nodes, exit codes, and stopping."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import comity as comity_package
from comity.cli.main import main as command
from comity.models.weights import digest_of_weights, read_weights
from comity.node.main import main
from comity.node.sessions.script import Script
from comity.session.outcome import Outcome
from provider_node.config import ProviderConfig

TEACHER = """\
party = "hospital"
state_dir = "state"
listen = "{listen}"
secret = "hospital's"

[tls]
certificate = "tls/certificate.pem"
key = "tls/key.pem"
trust = "tls/trust.pem"

[data]
source = "digits"
seed = 5
per_class = 20
partition = {{ name = "imbalance", gamma = 0.3, share = "provider", seed = 5 }}

[policy]
parties = ["clinic"]
max_rounds = 20
egress = ["contract", "vote"]
"""
STUDENT = """\
party = "clinic"
state_dir = "state"
secret = "clinic's"

[tls]
certificate = "tls/certificate.pem"
key = "tls/key.pem"
trust = "tls/trust.pem"

[data]
source = "digits"
seed = 5
per_class = 20
partition = {{ name = "imbalance", gamma = 0.3, share = "learner", seed = 5 }}

[policy]
max_rounds = 30

[peers.hospital]
address = "{address}"

[retry]
call_s = 5
retry_s = {retry_s}
"""
SESSION = """\
[session]
protocol = "teacher_votes"
id = "{id}"
acceptors = ["hospital"]
rounds = {rounds}
seed = 5

[session.models.student]
name = "mlp"
options = {{ hidden = 16 }}

[session.terms]
queries = {queries}
steps = {steps}
"""
PARTIES = """\
[party.{name}]
role = "{role}"
secret = "{name}'s"
policy = {{ egress = ["contract", "vote"], max_rounds = {max_rounds} }}
[party.{name}.data]
source = "digits"
seed = 5
per_class = 20
partition = {{ name = "imbalance", gamma = 0.3, share = "{share}", seed = 5 }}
"""
VALID = TEACHER.format(listen="127.0.0.1:0")
STOPS_IN_S = 10.0
RETRY_S = 3


def session(id: str, *, rounds: int = 2, queries: int = 8, steps: int = 4) -> str:
    return SESSION.format(id=id, rounds=rounds, queries=queries, steps=steps)


def with_parties(text: str, max_rounds: int = 20) -> str:
    """A script with both parties, of whom the hospital's policy takes so many rounds."""
    parties = (("clinic", "student", "learner", 30), ("hospital", "teacher", "provider", max_rounds))
    return text + "".join(
        PARTIES.format(name=name, role=role, share=share, max_rounds=most) for name, role, share, most in parties
    )


@pytest.fixture
def here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """`comity` in this process, where torch is imported already: its exit code, and what it prints and complains of."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["comity", *arguments])
        with pytest.raises(SystemExit) as ended:
            command()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


Here = Callable[..., tuple[int, str, str]]


def complaint(done: tuple[int, str, str], *, code: int) -> str:
    """The one line that a command fails with."""
    ended, _, told = done
    lines = [line for line in told.splitlines() if line.startswith("comity: ")]
    assert (ended, len(lines)) == (code, 1), told
    return lines[0].removeprefix("comity: ")


# --- Without a node -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [["--help"], *([verb, "--help"] for verb in ("demo", "run", "node", "check")), ["--version"]]
)
def test_help_imports_no_torch(arguments: list[str], tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from comity.cli.main import main\n"
        f"sys.argv = ['comity', *{arguments!r}]\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'grpc', 'sklearn', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("verb", ["run", "sessions", "several_nodes", "trust"])
def test_verbs_that_only_talk_to_a_node_import_no_torch(verb: str) -> None:
    program = f"import sys, comity.cli.{verb}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0


def test_a_missing_script(comity: Any, here: Here, tmp_path: Path) -> None:
    line = comity.fails("run", "nowhere.toml", cwd=tmp_path, code=2)
    assert line.startswith("nowhere.toml cannot be read: expected a script in TOML, received nothing; ")
    assert complaint(here("simulate", "nowhere.toml"), code=2) == line
    assert "received a folder" in complaint(here("simulate", "."), code=2)


def test_a_missing_node(comity: Any, tmp_path: Path) -> None:
    (tmp_path / "session.toml").write_text(session("s-1"))
    line = comity.fails("run", "session.toml", cwd=tmp_path, code=2)
    assert line.startswith(
        "no node runs here: expected a control socket at state/control.sock, received nothing; start"
    )


def test_a_socket_that_nobody_answers_at(comity: Any, short_path: Path) -> None:
    (short_path / "session.toml").write_text(session("s-1"))
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(short_path / "control.sock"))
    line = comity.fails("run", "session.toml", "--node", short_path, cwd=short_path, code=1)
    assert line.startswith("no node answers at the control socket: expected a running node, received unix:")
    assert "start it" in line


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (session("s").replace("rounds", "ronds"), ("unknown key session.ronds", "did you mean rounds?")),
        (session("s").replace("[session.models", "[session.modles"), ("unknown key session.modles", "model")),
        (session("s").replace("queries =", "querys ="), ("querys", "did you mean queries")),
        (session("s") + "[sesion]\n", ("unknown key sesion", "did you mean session?")),
        (session("s").replace('"mlp"', '"mpl"'), ("'mpl'", "did you mean 'mlp'")),
        (session("s").replace("rounds = 2", "rounds = 0"), ("session.rounds", "greater than or equal to 1", "0")),
        ("[session", ("is no TOML",)),
        ("", ("session is missing",)),
    ],
)
def test_a_script_that_cannot_be_used(here: Here, tmp_path: Path, text: str, parts: tuple[str, ...]) -> None:
    (tmp_path / "session.toml").write_text(with_parties(text) if text.startswith("[session]") else text)
    line = complaint(here("simulate", "session.toml"), code=3 if "'mpl'" in parts else 2)
    for part in parts:
        assert part in line


def test_a_simulation_without_parties(here: Here, tmp_path: Path) -> None:
    (tmp_path / "session.toml").write_text(session("s-1"))
    line = complaint(here("simulate", "session.toml"), code=2)
    assert "[party.NAME]" in line
    assert "hospital" in line


def test_a_simulation_that_a_policy_refuses(comity: Any, tmp_path: Path) -> None:
    (tmp_path / "session.toml").write_text(with_parties(session("s-1"), max_rounds=1))
    line = comity.fails("simulate", "session.toml", cwd=tmp_path, code=3)
    assert line.startswith(
        "hospital's policy.max_rounds refuses the session: expected at most 1, received 2; buy fewer"
    )


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["demo", "nothing"], "teacher-votes"),
        (["demo", "--seed", "99999999999"], "seed"),
        (["node", "doctor", "--config", "node.toml"], "no such role"),
        (["bench", "nothing"], "transfer"),
    ],
)
def test_names_that_nobody_knows(here: Here, arguments: list[str], part: str) -> None:
    line = complaint(here(*arguments), code=2)
    assert part in line
    assert arguments[-1] in line or "doctor" in line


@pytest.mark.parametrize("arguments", [[], ["frob"], ["run"], ["demo", "--sed", "1"], ["cancel"]])
def test_wrong_usage(here: Here, arguments: list[str]) -> None:
    code, _, told = here(*arguments)
    assert code == 2
    assert "Traceback" not in told


def test_an_error_is_an_object_where_json_was_asked_for(comity: Any, tmp_path: Path) -> None:
    done = comity("run", "nowhere.toml", "--json", cwd=tmp_path)
    assert done.returncode == 2
    told = json.loads(done.stdout)
    assert told["error"] == "MISSING_FILE"
    assert done.stderr == f"comity: {told['message']}\n"


@pytest.mark.parametrize("option", ["--json", "--jsonl"])
def test_so_is_a_command_line_that_cannot_be_read(comity: Any, tmp_path: Path, option: str) -> None:
    for arguments, part in (
        (["demo", "--sed", "1"], "No such option"),
        (["run"], "Missing argument"),
        (["simulate", "s.toml", "--frob"], "No such option"),
        (["frob"], "No such command"),
    ):
        done = comity(*arguments, option, cwd=tmp_path)
        told = json.loads(done.stdout)
        assert (done.returncode, told["error"]) == (2, "USAGE_ERROR")
        assert part in told["message"]
        assert done.stderr == f"comity: {told['message']}\n"


# --- Nodes, started as a user starts them --------------------------------------------------------------------------------


@dataclass
class Pair:
    """A teacher and a student.

    Attributes:
        hand: Who started them.
        teacher: The teacher's node.
        student: The student's node.
        address: Where the teacher listens.
    """

    hand: Any
    teacher: Any
    student: Any
    address: str

    @property
    def node(self) -> Path:
        """What `--node` takes."""
        return self.student.folder / "state"


@pytest.fixture(scope="module")
def pair(hand: Any) -> Iterator[Pair]:
    """Two nodes for the tests of this file; they stop as they should at the end."""
    teacher = hand.start(
        ["comity", "node", "teacher", "--config", "node.toml"],
        hand.write("hospital", TEACHER.format(listen="127.0.0.1:0")),
    )
    address = hand.ready(teacher)
    home = hand.write("clinic", STUDENT.format(address=address, retry_s=RETRY_S))
    student = hand.start(["comity", "node", "student", "--config", "node.toml"], home)
    hand.ready(student)
    yield Pair(hand, teacher, student, address)
    for node in (student, teacher):
        stops_well(node)


@pytest.fixture
def script(short_path: Path) -> Callable[..., Path]:
    """Writes a session's script."""

    def write(id: str, text: str = "", **values: Any) -> Path:
        path = short_path / "session.toml"
        path.write_text(text or session(id, **values))
        return path

    return write


Simulated = Callable[[str], tuple[Script, Outcome]]


def test_run_shows_a_session(pair: Pair, comity: Any, script: Callable[..., Path], simulated: Simulated) -> None:
    done = comity("run", script("shown"), "--node", pair.node, cwd=pair.student.folder)
    assert done.returncode == 0, done.stderr
    digest = simulated(with_parties(session("shown")))[1].digest
    assert f"model digest {digest}" in done.stdout
    for word in ("votes with the majority", "contract", "vote", "ledger verified", "session shown, 2 rounds"):
        assert word in done.stdout
    # A pipe gets plain lines: one a round, and nothing that moves a cursor.
    assert len([line for line in done.stderr.splitlines() if line.split()[:1] in (["1"], ["2"])]) == 2
    assert "\x1b" not in done.stderr + done.stdout


def test_run_gives_json(pair: Pair, comity: Any, script: Callable[..., Path], simulated: Simulated) -> None:
    result = comity.json("run", script("told"), cwd=pair.student.folder)  # the default of --node is ./state
    outcome = simulated(with_parties(session("told")))[1]
    assert result["digest"] == outcome.digest
    assert result["metrics"] == outcome.metrics
    assert result["processes"] == [pair.student.process.pid]
    assert result["ledger_verified"] is True
    assert (result["session"], result["seed"], result["rounds"]) == ("told", 5, 2)
    kept = pair.node / "sessions" / "told"
    assert json.loads((kept / "result.json").read_text())["digest"] == result["digest"]
    # Whatever the file says beside its tensors.
    assert digest_of_weights(read_weights(kept / "model.safetensors")) == result["digest"]
    model = comity_package.load_model(kept)
    assert model.description.session == "told"
    # Of a session of the node its protocol has its say; the folder alone has the model's.
    said = comity.json("predict", "digits", "--session", "told", cwd=pair.student.folder)["predictions"]
    assert {row["taught by"] for row in said} == {"hospital"}
    alone = comity.json("predict", "digits", "--model", kept, cwd=pair.student.folder)["predictions"]
    assert [row["class"] for row in alone] == [row["class"] for row in said]
    assert "taught by" not in alone[0]


def test_detach_returns_and_the_session_goes_on(
    pair: Pair, comity: Any, script: Callable[..., Path], wait_until: Callable[..., None], simulated: Simulated
) -> None:
    started = comity.json(
        "run", script("detached"), "--node", f"unix:{pair.node}/control.sock", "--detach", cwd=pair.node
    )
    assert started == {"session": "detached", "node": f"unix:{pair.node}/control.sock", "state": "running"}
    kept = pair.node / "sessions" / "detached" / "result.json"
    wait_until(lambda: pair.student.logged("session-finished", session="detached"), "the session ends")
    assert json.loads(kept.read_text())["digest"] == simulated(with_parties(session("detached")))[1].digest


def test_detach_waits_for_the_agreement_and_says_where_it_is_refused(
    pair: Pair, comity: Any, script: Callable[..., Path]
) -> None:
    line = comity.fails(
        "run", script("too-long", session("too-long", rounds=21)), "--detach", cwd=pair.student.folder, code=3
    )
    assert "hospital's policy.max_rounds" in line


def test_a_node_gives_a_session_a_name(pair: Pair, comity: Any, script: Callable[..., Path]) -> None:
    text = "\n".join(line for line in session("x").splitlines() if not line.startswith("id ="))
    told = [comity.json("run", script("", text), cwd=pair.student.folder)["session"] for _ in range(2)]
    assert len(set(told)) == 2
    assert all(name.startswith("s-") for name in told)


@pytest.mark.parametrize(
    ("text", "code", "parts"),
    [
        (session("r-1", rounds=21), 3, ("hospital's policy.max_rounds", "at most 20", "21", "buy fewer")),
        (session("r-2", rounds=31), 3, ("clinic's policy.max_rounds", "at most 30", "31", "buy fewer")),
        (with_parties(session("r-4")), 2, ("describes parties", "[party.clinic], [party.hospital]", "comity simulate")),
        (session("r-5").replace("rounds", "ronds"), 2, ("unknown key session.ronds", "did you mean rounds?")),
        (session("r-6").replace("hospital", "nobody"), 2, ("unknown peer", "hospital", "nobody", "[peers.nobody]")),
        (session("r-7").replace("mlp", "lenet6"), 3, ("'lenet6'", "did you mean 'lenet5'")),
        (session("r-8").replace("mlp", "lenet5").replace("options", "# options"), 2, ("lenet5", "1, 8, 8")),
        (session("r-9").replace("hidden", "hiden"), 2, ("hiden", "hidden")),
        (session("r-10").replace("teacher_votes", "teacher_vots"), 3, ("did you mean teacher_votes?",)),
        (session("r-11", steps=0), 2, ("session.terms", "steps")),
        (session("r 12"), 2, ("session.id", "r 12")),
        (session("r-13", queries=10**6), 2, ("session.terms", "queries")),
    ],
)
def test_a_session_that_cannot_be_had(
    pair: Pair, comity: Any, script: Callable[..., Path], text: str, code: int, parts: tuple[str, ...]
) -> None:
    path = script("", text)
    line = comity.fails("run", path, "--node", pair.node, cwd=pair.node, code=code)
    for part in parts:
        assert part in line


def test_an_id_that_is_taken(pair: Pair, comity: Any, script: Callable[..., Path]) -> None:
    path = script("twice", rounds=1)
    comity.json("run", path, cwd=pair.student.folder)
    line = comity.fails("run", path, cwd=pair.student.folder, code=2)
    assert "taken" in line


def test_a_node_that_does_not_ask(pair: Pair, comity: Any, script: Callable[..., Path]) -> None:
    line = comity.fails("run", script("asked"), cwd=pair.teacher.folder, code=2)
    assert "expected a student node, received a teacher node" in line


def test_a_second_node_in_the_same_state_dir(pair: Pair, comity: Any) -> None:
    done = comity("node", "teacher", "--config", "node.toml", cwd=pair.teacher.folder)
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    expected = "another node works in this state_dir: expected a folder of its own, received "
    assert line.startswith(f"teacher_node: {expected}")
    assert "stop it" in line
    assert pair.teacher.process.poll() is None


def test_a_port_in_use(pair: Pair, comity: Any) -> None:
    folder = pair.hand.write("hospital", TEACHER.format(listen=pair.address), folder="elsewhere")
    done = comity("-m", "provider_node", "--config", "node.toml", cwd=folder, executable=Path(sys.executable))
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    expected = f"cannot listen: expected a free address of this machine, received {pair.address}; stop what listens"
    assert line.startswith(f"provider_node: {expected}")
    assert not (folder / "state" / "control.sock").exists()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (VALID.replace("max_rounds", "max_round"), ("unknown key policy.max_round", "did you mean max_rounds?")),
        (VALID.replace("state_dir", "statedir"), ("unknown key statedir", "did you mean state_dir?")),
        (VALID.replace("gamma", "gama"), ("gama", "gamma")),
        (VALID.replace("listen", "# listen"), ("listen is missing",)),
        (VALID.replace("tls/key.pem", "tls/kye.pem"), ("TLS file is missing", "kye.pem", "set tls.certificate")),
        (VALID.replace('"digits"', '"diggits"'), ("'diggits'", "did you mean 'digits'")),
        (VALID.replace("127.0.0.1:0", "127.0.0.1"), ("not an address", "host:port", "127.0.0.1")),
    ],
)
def test_a_configuration_that_cannot_be_used(
    hand: Any, text: str, parts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = hand.write("hospital", text, folder="broken")
    # In this process: to import torch anew for each of them would take longer than all the rest.
    monkeypatch.setattr("comity.node.main.configure_logs", lambda *_: None)
    monkeypatch.setattr("comity.node.daemon.signal.signal", lambda *_: None)
    assert main("provider", ProviderConfig, ["--config", str(folder / "node.toml")]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("provider_node: ")
    for part in parts:
        assert part in told


def test_a_broken_configuration_as_a_user_meets_it(comity: Any, tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text(VALID.replace("state_dir", "statedir"))
    done = comity("node", "provider", "--config", "node.toml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("provider_node: node.toml: unknown key statedir: expected one of ")
    assert done.stderr.endswith("received statedir; did you mean state_dir?\n")


# --- Stopping -------------------------------------------------------------------------------------------------------------


def stops_well(node: Any) -> None:
    """SIGTERM ends it in good order and soon."""
    code, seconds = node.terminate(STOPS_IN_S)
    assert code == 0, (node.folder / "log").read_text()
    assert seconds < STOPS_IN_S
    assert node.logged("node-draining")
    assert not (node.folder / "state" / "control.sock").exists()
