"""Rounds for clients that keep nothing between them: whoever settles a round keeps every client's model.

In a session a client keeps its model and adds its rewards to it. Where another framework's clients are given a model,
train it and give it back, as Flower's do, the same rounds are settled here; the mathematics is `algorithm`'s.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from comity.errors import InvalidValue, MalformedMessage
from comity.protocols.gradient_rewards import free_riders
from comity.protocols.gradient_rewards.algorithm import ServerState, aggregate_round
from comity.protocols.gradient_rewards.choices import Mechanism
from comity.protocols.gradient_rewards.free_riders import NEWS_ROUNDS, Finding
from comity.protocols.gradient_rewards.messages import widened
from comity.protocols.gradient_rewards.rewards import SparseUpdate, normalize_update
from comity.randomness import derive, generator
from comity.tensors import State


@dataclass(frozen=True, slots=True)
class Paid:
    """What a round came to for a client that took part.

    Attributes:
        contribution: ψ or φ of its update.
        importance: r after the round.
        fraction: q, the share of the aggregate's entries that it gets, 0 to 1.
        kept: How many entries these are.
        findings: Signs that it has nothing of its own.
    """

    contribution: float
    importance: float
    fraction: float
    kept: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True, eq=False)
class _Returned:
    """What a client gave back in the round that is open."""

    update: Float[Tensor, " parameters"]
    samples: float
    buffers: dict[str, Tensor]


class KeptModels:
    """Every client's model, and the rounds that it is paid in.

    Every client begins with the same model, whenever it joins: else one that came again under another name would be
    given for nothing what the others earned.

    Args:
        initial: The model to begin with.
        parameters: Names of what is trained. All else, such as BatchNorm's statistics, stays each client's own.
        mechanism: How contributions turn into rewards.
        length: Γ, length of a normalized update, above 0.
        weigh_as_one: Whether copies count as one client together, and a client with nothing of its own as nothing; else
            that is only said.
        seed: Key of the draws of sampled contributions.

    Raises:
        InvalidValue: `parameters` names none of the model's tensors, or one that is no floating-point numbers.
    """

    def __init__(
        self,
        initial: State,
        parameters: Collection[str],
        mechanism: Mechanism,
        *,
        length: float,
        weigh_as_one: bool = False,
        seed: int = 0,
    ) -> None:
        strange = [name for name in parameters if name not in initial or not initial[name].is_floating_point()]
        if strange or not parameters:
            raise InvalidValue(
                "Parameters of the model",
                expected="names of its tensors of floating-point numbers",
                received=", ".join(strange) or "none",
            )
        self._initial = dict(initial)
        self._parameters = [name for name in initial if name in parameters]
        self._sizes = [initial[name].numel() for name in self._parameters]
        self._mechanism = mechanism
        self._length = length
        self._weigh_as_one = weigh_as_one
        self._seed = seed
        self._round = 0
        self._clients: dict[int, int] = {}
        self._models: dict[int, State] = {}
        self._rewards: dict[int, SparseUpdate] = {}
        self._news: dict[int, list[float]] = {}
        self._returned: dict[int, _Returned] = {}
        self._state: ServerState | None = None
        self._server = self._initial

    @property
    def server_model(self) -> State:
        """The model to which every aggregate was added; its buffers are means of the clients', by importance."""
        return self._server

    def model_of(self, client: int) -> State:
        """A client's own model: the first one with all its rewards, and with the buffers that it gave back last."""
        return self._models.get(client, self._initial)

    def importance(self) -> dict[int, float]:
        """The importance of every client that was ever in a round, by client."""
        if self._state is None:
            return {}
        return dict(zip(self._clients, self._state.importance.tolist(), strict=True))

    def take(self, client: int, trained: State, samples: float) -> None:
        """Takes a client's model after it trained, for the round that is open.

        Args:
            client: Whose it is.
            trained: What `model_of` gave, after training.
            samples: On how many samples; what the first aggregate goes by.

        Raises:
            InvalidValue: The number of samples is out of range.
            MalformedMessage: It is another model, or nothing was trained.
            NonFiniteValue: A value is NaN or infinite.
        """
        for name, tensor in self._initial.items():
            if name not in trained or trained[name].shape != tensor.shape or trained[name].dtype != tensor.dtype:
                received = f"{trained[name].dtype} {list(trained[name].shape)}" if name in trained else "nothing"
                raise MalformedMessage(
                    f"a trained model's {name!r}", expected=f"{tensor.dtype} {list(tensor.shape)}", received=received
                )
        if not 0 < samples < float("inf"):
            raise InvalidValue("The number of a client's samples", expected="above 0", received=samples)
        update = self._flat(trained) - self._flat(self.model_of(client))
        buffers = {name: trained[name] for name in self._initial if name not in self._parameters}
        self._returned[client] = _Returned(normalize_update(update, self._length), samples, buffers)

    def forget(self) -> None:
        """Leaves the round that is open as if nobody had taken part."""
        self._returned = {}

    def settle(self, away: Collection[int] = ()) -> dict[int, Paid]:
        """Ends the round: values what was taken, and adds to each client's model what it is paid.

        Args:
            away: Clients that have left: what they had goes to the others, until they take part again.

        Returns:
            What the round came to, by client; of those who took part.

        Raises:
            InvalidValue: Nobody took part, or the updates cancel.
        """
        if not self._returned:
            raise InvalidValue("A round", expected="updates of clients", received="none")
        self._round += 1
        state = self._with_newcomers()
        names = {place: client for client, place in self._clients.items()}
        present = sorted(self._clients[client] for client in self._returned)
        here = [names[place] for place in present]
        left = sorted(self._clients[each] for each in {*away} & {*self._clients} - {*here})
        state = state.without(left)
        updates = torch.stack([self._returned[client].update for client in here])
        found, shares = self._looked_at(here, updates, state.importance[present])
        result = aggregate_round(
            updates,
            state,
            self._mechanism,
            present=present,
            shares=shares,
            sizes=self._sizes,
            generator=generator(derive(self._seed, "permutations", self._round)),
        )
        self._state = result.state
        importance = result.state.importance[present]
        self._server = self._moved(self._server, result.aggregate) | self._mean_buffers(here, importance)
        paid = {}
        for place, client in enumerate(here):
            reward = result.rewards[place]
            self._models[client] = self._moved(self.model_of(client), reward.dense()) | self._returned[client].buffers
            self._rewards[client] = reward
            paid[client] = Paid(
                float(result.contribution[place]),
                float(importance[place]),
                float(result.fractions[place]),
                len(reward.values),
                found[place],
            )
        self._returned = {}
        return paid

    def _with_newcomers(self) -> ServerState:
        new = sorted(client for client in self._returned if client not in self._clients)
        self._clients |= {client: len(self._clients) + place for place, client in enumerate(new)}
        if self._state is None:
            return ServerState.first([self._returned[client].samples for client in new])
        return self._state.joined(len(new)) if new else self._state

    def _looked_at(
        self, here: list[int], updates: Float[Tensor, "present parameters"], weights: Float[Tensor, " present"]
    ) -> tuple[list[tuple[Finding, ...]], list[float] | None]:
        """What free riders are known by, and what part of a client each counts as."""
        rewards = {place: self._rewards[client] for place, client in enumerate(here) if client in self._rewards}
        signs = free_riders.signs(updates, weights, rewards)
        found = free_riders.findings(signs, [self._news.get(client, []) for client in here])
        for client, each in zip(here, signs, strict=True):
            self._news[client] = [*self._news.get(client, []), each.news][-NEWS_ROUNDS:]
        return found, free_riders.shares(signs, found) if self._weigh_as_one else None

    def _flat(self, state: State) -> Float[Tensor, " parameters"]:
        return torch.cat([widened(state[name]).flatten() for name in self._parameters])

    def _moved(self, state: State, by: Float[Tensor, " parameters"]) -> dict[str, Tensor]:
        moved = dict(state)
        for name, values in zip(self._parameters, (self._flat(state) + by).split(self._sizes), strict=True):
            moved[name] = values.view(state[name].shape).to(state[name].dtype)
        return moved

    def _mean_buffers(self, here: list[int], importance: Float[Tensor, " present"]) -> dict[str, Tensor]:
        weights = importance / importance.sum()
        mean = {}
        for name, tensor in self._initial.items():
            if name not in self._parameters:
                values = torch.stack([self._returned[client].buffers[name].to(torch.float64) for client in here])
                total = torch.tensordot(weights, values, dims=1)
                mean[name] = (total if tensor.is_floating_point() else total.round()).to(tensor.dtype)
        return mean
