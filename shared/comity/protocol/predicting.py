"""Predictions that a protocol makes itself, where its help goes on when a session's model answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from comity.contract import Contract, Json

if TYPE_CHECKING:
    from torch import Tensor

Said = Mapping[str, "Tensor | Sequence[str]"]
"""What is said of a batch, by what it is: a tensor with the samples in the first dimension, or a text for each sample. What
a kind of task says of its own is called as there, for example `class` and `probability`; it may be with more."""

Predictor = Callable[["Tensor"], Said]
"""Says what inputs are: of a batch `[batch, *shape]`, uint8 or float32, as data sets store them."""


class ReadyModel(Protocol):
    """A model that a session left, in evaluation mode, with its preprocessing."""

    def __call__(self, inputs: Tensor) -> Any:
        """The model's outputs for stored inputs `[batch, *shape]`: scores, or a dict of them by head."""

    def predict(self, inputs: Tensor) -> dict[str, Tensor]:
        """What the model says of stored inputs, as its kind of task calls it."""


@dataclass(frozen=True)
class PredictionContext:
    """What a protocol's predictor is made from.

    Attributes:
        contract: The session's contract.
        folder: What the session left: its models, and `result.json`; not there yet while it is on.
        state_dir: What the node keeps.
        party: This party.
        settings: The node's settings of the protocol; None where its configuration was not named, or there are none.
        config: The node's configuration, for its certificate and its peers' addresses; None where it was not named.
        result: What the session came to, as `comity show --json` has it.
        is_on: Whether the session goes on, at a node that runs.
        model: A model that the session left, by its name: ready to use, it takes stored inputs.
    """

    contract: Contract
    folder: Path
    state_dir: Path
    party: str
    settings: Any
    config: Any
    model: Callable[[str], ReadyModel]
    result: Mapping[str, Json] = field(default_factory=dict)
    is_on: bool = False


PredictorFactory = Callable[[PredictionContext], AbstractContextManager[Predictor]]
"""What an extension names. Entering it connects to whoever helps; leaving it ends that."""
