"""The server's model, and how a round's updates change it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from comity.contract import Json
from comity.errors import MalformedMessage
from comity.protocols.gradient_rewards.algorithm import RoundResult, ServerState, aggregate_round
from comity.protocols.gradient_rewards.free_riders import Signs, signs
from comity.protocols.gradient_rewards.messages import update_layout, widened
from comity.protocols.gradient_rewards.rewards import SparseUpdate, length_of
from comity.protocols.gradient_rewards.terms import GradientRewardsTerms
from comity.randomness import derive, generator
from comity.session.contexts import SessionContext
from comity.tensors import Blob, Layout, State

_SLACK = 1e-3
"""How far, relative to Γ, an update's length may be from it: float32 rounds."""


class ServerTask(Protocol):
    """The server's model, and its test samples where it has any."""

    layout: Layout
    initial_state: State
    parameters: tuple[str, ...]

    def tested(self, state: State) -> dict[str, Json]:
        """What a test of a model on the server's test samples says, by metric; empty where it has none."""


class Aggregation:
    """The model to which every aggregate is added, and the state of eqs. (3) to (5) from round to round.

    Args:
        session: The server's context.
        terms: What was agreed.

    Attributes:
        task: The server's model.
        layout: Layout of an update.
        state: Importances and weights after the last round.
    """

    def __init__(self, session: SessionContext, terms: GradientRewardsTerms) -> None:
        self.task: ServerTask = session.task
        self.state = ServerState.first([1.0])
        self._session = session
        self._terms = terms
        self._sizes = [self.task.initial_state[name].numel() for name in self.task.parameters]
        self.layout = update_layout(sum(self._sizes))
        self._model: bytes | None = None

    def update(self, blob: Blob) -> Float[Tensor, " parameters"]:
        """An update as it was uploaded.

        Raises:
            TensorMismatch: The blob is something else, for example a reward.
        """
        self.layout.verify(blob)
        return self.layout.view(blob.data)["update"]

    def require_normalized(self, update: Float[Tensor, " parameters"]) -> None:
        """Checks that an update has the length that was agreed on.

        Raises:
            MalformedMessage: It has another.
        """
        norm = float(length_of(update))
        if not abs(norm - self._terms.length) <= _SLACK * self._terms.length:
            raise MalformedMessage(
                "the update is not normalized",
                expected=f"length {self._terms.length:g}",
                received=f"{norm:g}",
                action="bring it to the length that was agreed on",
            )

    def signs(
        self,
        updates: Float[Tensor, "clients parameters"],
        present: Sequence[int],
        last_rewards: Mapping[int, SparseUpdate],
    ) -> list[Signs]:
        """What the updates of those who took part look like; see `free_riders.signs`."""
        return signs(updates, self.state.importance[list(present)], last_rewards)

    def aggregate(
        self,
        round: int,
        updates: Float[Tensor, "clients parameters"],
        present: Sequence[int],
        left: Sequence[int],
        shares: Sequence[float] | None,
    ) -> RoundResult:
        """What the updates of those who took part come to; see `aggregate_round`."""
        draws = generator(derive(self._session.contract.seed, "permutations", round))
        return aggregate_round(
            updates,
            self.state.without(left),
            self._terms.mechanism,
            present=present,
            shares=shares,
            sizes=self._sizes,
            generator=draws,
        )

    def model_after(self, result: RoundResult) -> State:
        """The model with a round's aggregate."""
        return self._state_dict(self._parameters() + result.aggregate)

    def model(self) -> Blob:
        """The model after the last round."""
        return self.task.layout.pack(self._state_dict(self._parameters()))

    def begin(self, samples: Sequence[int]) -> None:
        """Begins with clients that have so many samples."""
        self.state = ServerState.first(samples)

    def keep(self, model: bytes, kept: Mapping[str, Any]) -> None:
        """Takes note of a round that is durable: its model's digest, and what `state_to_json` gave."""
        first, importance = (torch.tensor(kept[name], dtype=torch.float64) for name in ("first_weights", "importance"))
        self.state = ServerState(first, importance, torch.tensor(kept["valued"]), tuple(kept["left"]))
        self._model = model

    def _parameters(self) -> Float[Tensor, " parameters"]:
        """The model's parameters in a row, after the last round."""
        state = self.task.initial_state
        if self._model is not None:
            state = self.task.layout.view(self._session.blobs.get(self._model).data)
        return torch.cat([widened(state[name]).flatten() for name in self.task.parameters])

    def _state_dict(self, parameters: Float[Tensor, " parameters"]) -> State:
        state = dict(self.task.initial_state)
        for name, values in zip(self.task.parameters, parameters.split(self._sizes), strict=True):
            state[name] = values.view(state[name].shape).to(state[name].dtype)
        return state


def state_to_json(state: ServerState) -> dict[str, Json]:
    """Importances and weights as a JSON object."""
    return {
        "first_weights": state.first_weights.tolist(),
        "importance": state.importance.tolist(),
        "valued": state.valued.tolist(),
        "left": [*state.left],
    }
