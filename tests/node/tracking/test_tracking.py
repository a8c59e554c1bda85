"""Sessions in TensorBoard and MLflow: written while they go on, read back as those two have them; and trackers that are away."""

from __future__ import annotations

import json
import socket
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import pytest
from structlog.testing import capture_logs
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from comity.errors import InvalidValue
from comity.node.config_sections import TrackingConfig
from comity.node.sessions.result import SessionResult
from comity.node.tracking import ENVIRONMENT, tracker, tracking
from comity.node.tracking.tracker import Tracker, flat
from comity.node.watchers import Watchers
from comity.session.events import Event
from tests.cases import PROTOCOLS, plain
from tests.e2e.conftest import until
from tests.e2e.network import network


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def tensorboard(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    found.Reload()
    return found


def said(found: EventAccumulator, tag: str) -> str:
    return str(found.Tensors(f"{tag}/text_summary")[-1].tensor_proto.string_val[0].decode())


def ended(client: Any) -> int:
    """How many runs have ended well."""
    experiment = client.get_experiment_by_name("comity")
    runs = [] if experiment is None else client.search_runs([experiment.experiment_id])
    return sum(each.info.status == "FINISHED" for each in runs)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_tensorboard_has_the_numbers_the_terms_and_the_digest(tmp_path: Path) -> None:
    script = plain("teacher_votes").script
    with (
        TemporaryDirectory(prefix="e2e-") as name,
        network(script, Path(name), tracking={"tensorboard": tmp_path}) as on,
    ):
        result = on.run()
    board = tensorboard(tmp_path / result["session"] / "clinic")
    scalars = {tag: [each.step for each in board.Scalars(tag)] for tag in board.Tags()["scalars"]}
    rounds = list(range(1, script.session.rounds + 1))
    assert "agreement" in scalars
    assert all(steps == rounds for steps in scalars.values())
    assert board.Scalars("bytes_sent")[-1].value == sum(result["bytes_sent"].values())
    assert result["digest"] in said(board, "digest")
    assert "contract" in said(board, "terms")
    assert "finished" in said(board, "state")


# MLflow takes its time to be imported, and to make a database.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_mlflow_has_the_numbers_the_terms_the_digest_and_the_model(tmp_path: Path) -> None:
    from mlflow import MlflowClient  # noqa: PLC0415 - what it reads of the environment is set before

    script = plain("teacher_votes").script
    database = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with TemporaryDirectory(prefix="e2e-") as name, network(script, Path(name), tracking={"mlflow": database}) as nodes:
        result = nodes.run()
        session = result["session"]
        kept = {each.name: each.read_bytes() for each in (Path(name) / "clinic" / "sessions" / session).iterdir()}
        # A node that stops leaves it ten seconds.
        until(lambda: ended(MlflowClient(database)) == len(script.party), "it is written")
    client = MlflowClient(database)
    experiment = client.get_experiment_by_name("comity")
    assert experiment is not None
    runs = {each.data.tags["comity.party"]: each for each in client.search_runs([experiment.experiment_id])}
    assert set(runs) == set(script.party)
    run = runs["clinic"]
    assert run.info.status == "FINISHED"
    assert run.data.tags["comity.digest"] == result["digest"]
    assert run.data.params["rounds"] == str(script.session.rounds)
    history = client.get_metric_history(run.info.run_id, "bytes_sent")
    assert [each.step for each in history] == list(range(1, script.session.rounds + 1))
    assert history[-1].value == sum(result["bytes_sent"].values())
    assert client.get_metric_history(run.info.run_id, "agreement")
    for metric, value in result["metrics"].items():
        if isinstance(value, int | float):
            assert run.data.metrics[f"result.{metric}"] == pytest.approx(value)
    files = Path(urlsplit(run.info.artifact_uri).path)
    assert files.is_relative_to(tmp_path)
    assert {each.name: each.read_bytes() for each in (files / "model").iterdir()} == kept
    assert json.loads((files / "contract.json").read_text())["session"] == session
    assert json.loads((files / "result.json").read_text())["digest"] == result["digest"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_server_that_is_away_is_one_warning_and_the_session_goes_on() -> None:
    script = plain("federated_count").script
    config = {"mlflow": f"http://127.0.0.1:{free_port()}"}
    with capture_logs() as logs:
        with TemporaryDirectory(prefix="e2e-") as name, network(script, Path(name), tracking=config) as nodes:
            nodes.run()
            until(lambda: warned(logs)["tracker-away"] >= len(script.party), "it is said")
        # Each node said it once, and at its end that something was not written.
        assert warned(logs) == {"tracker-away": len(script.party), "not-tracked": len(script.party)}
    first = next(each for each in logs if each["event"] == "tracker-away")
    assert "bring it back" in first["action"]
    assert "\n" not in first["error"]


def warned(logs: list[Any]) -> Counter[str]:
    return Counter(each["event"] for each in logs if each["log_level"] == "warning" and "track" in each["event"])


class Unsteady:
    """A tracker that is away at first."""

    name = "unsteady"

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.written: list[tuple[str, object]] = []
        self.closed = threading.Event()

    def _write(self, what: str, value: object) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("away\nfor a while")
        self.written.append((what, value))

    def begin(self, session: str, about: Mapping[str, str], terms: Mapping[str, str], contract: str) -> None:
        self._write("begin", session)

    def numbers(self, session: str, round: int, values: Mapping[str, float], time_ms: int) -> None:
        self._write("numbers", round)

    def finish(self, session: str, result: SessionResult, folder: Path | None) -> None:
        self._write("finish", result)

    def end(self, session: str, state: str, why: str) -> None:
        self._write("end", (state, why))

    def reach(self) -> None:
        if self.failures:
            raise ConnectionError("away\nfor a while")

    def forget(self, session: str) -> None:
        pass

    def close(self) -> None:
        self.closed.set()


class Picky(Unsteady):
    """A tracker that can be reached and never takes anything of one session; it keeps what it forgot."""

    def __init__(self, refused: str) -> None:
        super().__init__(0)
        self.refused = refused
        self.tries = 0
        self.forgotten: list[str] = []

    def begin(self, session: str, about: Mapping[str, str], terms: Mapping[str, str], contract: str) -> None:
        self._refuse(session)
        self.written.append(("begin", session))

    def numbers(self, session: str, round: int, values: Mapping[str, float], time_ms: int) -> None:
        self._refuse(session)
        self.written.append((session, round))

    def forget(self, session: str) -> None:
        self.forgotten.append(session)

    def _refuse(self, session: str) -> None:
        if session == self.refused:
            self.tries += 1
            raise ValueError("no such run")


def test_what_a_tracker_missed_is_written_in_order_when_it_is_back(
    make_contract: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker, "_FIRST_PAUSE_S", 0.01)
    backend, contract = Unsteady(3), make_contract()
    with capture_logs() as logs, Tracker(backend, "clinic") as tracking:
        tracking.entered(contract, "clinic")
        for round in (1, 2):
            tracking.happened(contract, Event("round-finished", round))
        tracking.ended(contract.session, "failed", {"what": "no more"})
        until(lambda: len(backend.written) == 4, "it is back")
    assert [what for what, _ in backend.written] == ["begin", "numbers", "numbers", "end"]
    assert backend.written[-1][1] == ("failed", "no more")
    assert [each["event"] for each in logs] == ["tracker-away", "tracker-back"]
    assert backend.closed.is_set()


def test_what_a_tracker_never_takes_holds_nothing_else_up_and_is_said_once(
    make_contract: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker, "_FIRST_PAUSE_S", 0.01)
    refused, taken = make_contract(session="s-refused"), make_contract(session="s-taken")
    backend = Picky(refused.session)
    with capture_logs() as logs, Tracker(backend, "clinic") as tracking:
        tracking.entered(refused, "clinic")
        for round in (1, 2):
            tracking.happened(refused, Event("round-finished", round))
        tracking.happened(taken, Event("round-finished", 1))
        until(lambda: backend.written == [(taken.session, 1)], "the other's has its turn")
        # Three tries of the first, and one of each that came after it.
        assert backend.tries == 5
        assert set(backend.forgotten) == {refused.session}
        backend.refused = ""
        tracking.happened(refused, Event("round-finished", 3))
        until(lambda: backend.written[-1] == (refused.session, 3), "what it takes again is written")
    assert [(each["event"], each.get("tracked"), each.get("lost")) for each in logs] == [
        ("tracker-refuses", refused.session, None),
        ("not-tracked", None, 3),
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_of_a_run_that_somebody_deleted_the_rest_goes_to_a_new_one(
    make_contract: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient  # noqa: PLC0415 - see above

    from comity.node.tracking.mlflow import MLflow  # noqa: PLC0415 - see above

    monkeypatch.setattr(tracker, "_FIRST_PAUSE_S", 0.01)
    database = f"sqlite:///{tmp_path / 'mlflow.db'}"
    deleted, other = make_contract(session="s-deleted"), make_contract(session="s-other")
    client = MlflowClient(database)

    def numbered(session: str) -> list[tuple[str, int]]:
        """The runs of a session that are not deleted, and the last round of each."""
        experiment = client.get_experiment_by_name("comity")
        found = [] if experiment is None else client.search_runs([experiment.experiment_id])
        runs = [each for each in found if each.data.tags["comity.session"] == session]
        return [(each.info.run_id, client.get_metric_history(each.info.run_id, "bytes_sent")[-1].step)
                for each in runs if "bytes_sent" in each.data.metrics]  # fmt: skip

    with capture_logs() as logs, Tracker(MLflow(database, "comity", "clinic"), "clinic") as tracking:
        tracking.happened(deleted, Event("round-finished", 1, {"bytes_sent": 1}))
        until(lambda: bool(numbered(deleted.session)), "it has a run")
        first = numbered(deleted.session)[0][0]
        client.delete_run(first)
        tracking.happened(deleted, Event("round-finished", 2, {"bytes_sent": 1}))
        tracking.happened(other, Event("round-finished", 1, {"bytes_sent": 1}))
        until(lambda: bool(numbered(other.session)), "the other session is written")
        ((second, round),) = numbered(deleted.session)
    assert (second != first, round) == (True, 2)
    assert logs == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_folder_that_goes_and_comes_back_is_written_again(
    make_contract: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from comity.node.tracking.tensorboard import TensorBoard  # noqa: PLC0415 - slow to import

    monkeypatch.setattr(tracker, "_FIRST_PAUSE_S", 0.01)
    contract, folder = make_contract(), tmp_path / "board"
    folder.write_text("in the way")
    with capture_logs() as logs, Tracker(TensorBoard(folder, "clinic"), "clinic") as tracking:
        tracking.happened(contract, Event("round-finished", 1, {"bytes_sent": 1}))
        until(lambda: bool(logs), "it is away")
        folder.unlink()
        until(lambda: len(logs) == 2, "it is back")
    assert [each["event"] for each in logs] == ["tracker-away", "tracker-back"]
    assert [each.step for each in tensorboard(folder / contract.session / "clinic").Scalars("bytes_sent")] == [1]


def test_a_password_in_an_address_is_refused_and_not_told() -> None:
    """Where it was used, the first error of a server that is away had it in the log."""
    settings = TrackingConfig(mlflow="http://bob:hunter2@127.0.0.1:9")
    with pytest.raises(InvalidValue, match="MLFLOW_TRACKING_PASSWORD") as refused, tracking(settings, "a", Watchers()):
        pass
    assert "hunter2" not in str(refused.value)


def test_what_waits_is_bounded(make_contract: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker, "_MOST_WAITING", 3)
    backend, contract = Unsteady(10**9), make_contract()
    with capture_logs() as logs, Tracker(backend, "clinic") as tracking:
        for round in range(1, 11):
            tracking.happened(contract, Event("round-finished", round))
    assert [each["lost"] for each in logs if each["event"] == "not-tracked"] == [10]


def test_terms_are_one_table() -> None:
    found = flat({"rounds": 2, "terms": {"rate": 0.1, "optimizer": "adam", "layers": [1, 2]}})
    assert found == {"rounds": "2", "terms.rate": "0.1", "terms.optimizer": "adam", "terms.layers": "[1, 2]"}


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocols_sessions_have_numbers(protocol: str, tmp_path: Path) -> None:
    script = plain(protocol).script
    with TemporaryDirectory(prefix="e2e-") as name:
        with network(script, Path(name), tracking={"tensorboard": tmp_path}) as nodes:
            session = nodes.run()["session"]
        view = plain(protocol).definition.presentation.of_task("classification")
        for party, section in script.party.items():
            tags = tensorboard(tmp_path / session / party).Tags()
            # Who answers one by one has no rounds of its own.
            assert bool(tags["scalars"]) == bool(view.columns.get(section.role))
            assert "contract/text_summary" in tags["tensors"]
