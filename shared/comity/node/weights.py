"""Weights that a party has for models to begin with: its own files, and what its earlier sessions left."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from comity.errors import ComityError, InvalidValue, UnknownWeights
from comity.models.weights import read_weights
from comity.suggestions import did_you_mean
from comity.tensors import Layout

SESSION = "session:"
"""What a script puts before the identifier of an earlier session."""

WHOLE = "whole-model.safetensors"
"""All of a model of which a part crossed, with its adapters worked in."""


class WeightsRef(NamedTuple):
    """Weights, as a contract names them.

    Attributes:
        digest: Digest (hexadecimal) of their blob.
        size: Its length, in bytes.
    """

    digest: str
    size: int


class StartingWeights:
    """What a party has to begin with.

    Args:
        party: Its name, for errors.
        files: Its files, by the names that its configuration gives them.
        folder: Its `state_dir`; None for a party that keeps nothing.
    """

    def __init__(self, party: str, files: Mapping[str, Path], folder: Path | None) -> None:
        self._party = party
        self._files = files
        self._folder = folder
        self._known: dict[tuple[Path, int, int], WeightsRef] = {}

    def named(self, name: str) -> WeightsRef:
        """Weights that a script names.

        Args:
            name: A name in `[weights]`, or `session:` and the identifier of an earlier session.

        Raises:
            InvalidValue: There are none of that name, or they cannot be read.
            MissingFile: Their file is not there.
        """
        if name.startswith(SESSION):
            return self._ref(self._left(name.removeprefix(SESSION)))
        if name not in self._files:
            raise InvalidValue(
                f"{self._party} has no weights of this name",
                expected=", ".join(self._files) or f"a name in [weights], or {SESSION}<id> of an earlier session",
                received=name,
                action=did_you_mean(name, self._files, f'name their file: weights = {{ {name} = "file.safetensors" }}'),
            )
        return self._ref(self._files[name])

    def find(self, digest: str) -> dict[str, Tensor]:
        """The weights of a digest.

        Raises:
            UnknownWeights: They are not here.
        """
        for path in self._places():
            try:
                if self._ref(path).digest == digest:
                    return read_weights(path)
            except ComityError:
                # Another file may be the one.
                continue
        raise UnknownWeights(
            f"{self._party} does not have the weights that the model begins with",
            expected=f"a file in [weights] whose tensors have the digest {digest}",
            received=f"{len(self._files)} files with others" if self._files else "no file",
            action="get the file from the other party, and name it in [weights] of node.toml; or have its owner let it send "
            "them: policy.egress there names initial",
        )

    def _left(self, session: str) -> Path:
        """The file of what an earlier session left."""
        found = [] if self._folder is None else [self._folder / "sessions" / session / each for each in _LEFT]
        path = next((each for each in found if each.is_file()), None)
        if path is None or Path(session).name != session:
            raise InvalidValue(
                f"{self._party} has no model of session {session}",
                expected="a session that ended here with one model; comity sessions lists them",
                received="none",
                action="correct session.model.initial",
            )
        return path

    def _places(self) -> list[Path]:
        folder = self._folder
        kept = [] if folder is None else [*folder.glob("weights/*.safetensors")]
        left = [] if folder is None else [each for name in _LEFT for each in folder.glob(f"sessions/*/{name}")]
        return [*self._files.values(), *kept, *left]

    def _ref(self, path: Path) -> WeightsRef:
        try:
            kept = path.stat()
        except OSError:
            return _ref_of(read_weights(path))
        key = path, kept.st_mtime_ns, kept.st_size
        if key not in self._known:
            self._known[key] = _ref_of(read_weights(path))
        return self._known[key]


def _ref_of(weights: Mapping[str, Tensor]) -> WeightsRef:
    layout = Layout.of(weights)
    return WeightsRef(layout.digest(weights), layout.size)


_LEFT = (WHOLE, "model.safetensors")
