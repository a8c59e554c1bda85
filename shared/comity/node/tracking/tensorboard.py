"""Sessions as TensorBoard has them: a run for each, in a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile

from torch.utils.tensorboard import SummaryWriter

from comity.node.sessions.result import SessionResult

_FLUSH_S = 5
"""How soon a round is to be seen, in seconds."""


class TensorBoard:
    """Writes event files, `FOLDER/SESSION/PARTY`; `tensorboard --logdir FOLDER` shows them.

    Args:
        folder: The folder.
        party: This party; nodes that share a folder are runs of their own.
    """

    name = "tensorboard"

    def __init__(self, folder: Path, party: str) -> None:
        self._folder = folder
        self._party = party
        self._writers: dict[str, SummaryWriter] = {}

    def begin(self, session: str, about: Mapping[str, str], terms: Mapping[str, str], contract: str) -> None:
        """See `Backend.begin`."""
        writer = self._writer(session)
        rows = "".join(f"| {name} | {_cell(value)} |\n" for name, value in {**about, **terms}.items())
        writer.add_text("terms", f"| | |\n|---|---|\n{rows}")
        writer.add_text("contract", _code(contract))
        writer.flush()

    def numbers(self, session: str, round: int, values: Mapping[str, float], time_ms: int) -> None:
        """See `Backend.numbers`."""
        writer = self._writer(session)
        for name, value in values.items():
            writer.add_scalar(name, value, round, walltime=time_ms / 1000)
        writer.flush()

    def finish(self, session: str, result: SessionResult, folder: Path | None) -> None:
        """See `Backend.finish`: TensorBoard keeps no files, so that it says where the models are."""
        writer = self._writer(session)
        writer.add_text("digest", _code(result.digest), result.rounds)
        writer.add_text("result", _code(json.dumps(result.to_json(), indent=2)), result.rounds)
        if folder is not None:
            writer.add_text("model", _code(str(folder)), result.rounds)
        writer.flush()

    def end(self, session: str, state: str, why: str) -> None:
        """See `Backend.end`."""
        writer = self._writer(session)
        writer.add_text("state", f"{state}: {why}" if why else state)
        self.forget(session)

    def reach(self) -> None:
        """See `Backend.reach`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=self._folder) as probe:
            probe.write(b"1")

    def forget(self, session: str) -> None:
        """See `Backend.forget`: a writer whose file is gone or whose disk was full writes nothing any more."""
        writer = self._writers.pop(session, None)
        if writer is not None:
            writer.close()

    def close(self) -> None:
        """See `Backend.close`."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _writer(self, session: str) -> SummaryWriter:
        if session not in self._writers:
            folder = str(self._folder / session / self._party)
            self._writers[session] = SummaryWriter(folder, flush_secs=_FLUSH_S)
        return self._writers[session]


def _code(text: str) -> str:
    """A block of text as it is."""
    return "".join(f"    {line}\n" for line in text.splitlines())


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
