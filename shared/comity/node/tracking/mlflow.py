"""Sessions as MLflow has them: a run for each, with its numbers, its terms, its result and its models."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from comity.node.sessions.result import SessionResult

# What it does to its database is not this node's log.
logging.getLogger("mlflow").setLevel(logging.WARNING)

Item = TypeVar("Item")

_LONGEST_VALUE = 500
"""Characters of a parameter, by the oldest server."""
_AT_ONCE = 100
_ENDINGS = {"finished": "FINISHED", "cancelled": "KILLED"}


class MLflow:
    """Writes runs.

    Args:
        uri: A tracking server's address, or a database's, such as `sqlite:///mlflow.db`.
        experiment: Name of the experiment that runs belong to; made where there is none.
        party: This party; another that tracks the same session has a run of its own.
    """

    name = "mlflow"

    def __init__(self, uri: str, experiment: str, party: str) -> None:
        self._uri = uri
        self._experiment = experiment
        self._party = party
        self._client: MlflowClient | None = None
        self._runs: dict[str, str] = {}

    def begin(self, session: str, about: Mapping[str, str], terms: Mapping[str, str], contract: str) -> None:
        """See `Backend.begin`."""
        run = self._run(session)
        for some in _parts([Param(name, value[:_LONGEST_VALUE]) for name, value in terms.items()]):
            self._connected.log_batch(run, params=some)
        tags = [RunTag(f"comity.{name}", value) for name, value in about.items()]
        self._connected.log_batch(run, tags=tags)
        self._connected.log_text(run, contract, "contract.json")

    def numbers(self, session: str, round: int, values: Mapping[str, float], time_ms: int) -> None:
        """See `Backend.numbers`."""
        for some in _parts([Metric(_named(name), value, time_ms, round) for name, value in values.items()]):
            self._connected.log_batch(self._run(session), metrics=some)

    def finish(self, session: str, result: SessionResult, folder: Path | None) -> None:
        """See `Backend.finish`."""
        run, now_ms = self._run(session), int(time.time_ns() / 1e6)
        found = {name: value for name, value in result.metrics.items() if isinstance(value, int | float)}
        metrics = [
            Metric(f"result.{_named(name)}", float(value), now_ms, result.rounds) for name, value in found.items()
        ]
        for some in _parts(metrics):
            self._connected.log_batch(run, metrics=some)
        self._connected.set_tag(run, "comity.digest", result.digest)
        self._connected.log_text(run, json.dumps(result.to_json(), indent=2), "result.json")
        if folder is not None and folder.is_dir():
            self._connected.log_artifacts(run, str(folder), "model")

    def end(self, session: str, state: str, why: str) -> None:
        """See `Backend.end`."""
        run = self._run(session)
        self._connected.set_tag(run, "comity.state", state)
        if why:
            self._connected.set_tag(run, "comity.why", why)
        self._connected.set_terminated(run, _ENDINGS.get(state, "FAILED"))
        self.forget(session)

    def reach(self) -> None:
        """See `Backend.reach`."""
        self._connected.search_experiments(max_results=1)

    def forget(self, session: str) -> None:
        """See `Backend.forget`: of a run that somebody deleted, the rest is written to a new one."""
        self._runs.pop(session, None)

    def close(self) -> None:
        """See `Backend.close`: a run that goes on is taken up by its session's tag after a restart."""

    @property
    def _connected(self) -> MlflowClient:
        if self._client is None:
            self._client = MlflowClient(self._uri)
        return self._client

    def _run(self, session: str) -> str:
        """The run of a session, made where there is none."""
        if session not in self._runs:
            experiment = self._connected.get_experiment_by_name(self._experiment)
            id = self._make() if experiment is None else experiment.experiment_id
            wanted = f"tags.`comity.session` = '{session}' and tags.`comity.party` = '{self._party}'"
            found = self._connected.search_runs([id], wanted, max_results=1)
            tags = {"comity.session": session, "comity.party": self._party}
            run = found[0] if found else self._connected.create_run(id, tags=tags, run_name=session)
            self._runs[session] = run.info.run_id
        return self._runs[session]

    def _make(self) -> str:
        """Makes the experiment; beside a database of this machine, files go into a folder next to it."""
        place = None
        if self._uri.startswith("sqlite:///"):
            file = Path(self._uri.removeprefix("sqlite:///")).absolute()
            place = file.with_name(f"{file.stem}-artifacts").as_uri()
        made: str = self._connected.create_experiment(self._experiment, artifact_location=place)
        return made


def _named(name: str) -> str:
    """A metric's name with the characters that MLflow takes."""
    return "".join(each if each.isalnum() or each in "_-./ " else "_" for each in name)


def _parts(items: Sequence[Item]) -> Iterator[list[Item]]:
    """So many at a time as a server takes."""
    left = iter(items)
    while some := list(islice(left, _AT_ONCE)):
        yield some
