"""The clients and the server of a script with another reward in place of the protocol's, and with their models in view.

Tasks, data and training are the session's own; a test holds this loop, with the protocol's reward, to what the session
of the same script ends in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from comity.contract import Contract
from comity.node.party import LocalParty
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.script import Script
from comity.protocols.gradient_rewards import ServerState, SparseUpdate, aggregate_round, free_riders
from comity.protocols.gradient_rewards.free_riders import Finding
from comity.protocols.gradient_rewards.rewards import normalize_update
from comity.protocols.gradient_rewards.terms import GradientRewardsTerms
from comity.randomness import derive, generator
from comity.simulation.in_process import parties
from comity.tensors import State
from comity.training import Supervised

Vector = Float[Tensor, " parameters"]


@dataclass(frozen=True, eq=False)
class Round:
    """What a server has when all updates are there.

    Attributes:
        number: The round, from 1.
        differences: What each client's training changed, one a row.
        updates: The same, brought to length Γ.
        sizes: Samples of each client.
        server: The server's model before the round.
        accuracy: Accuracy of a model on the server's samples, for rewards that need a validation set.
        losses: Mean loss of each client's model before the round, on its own samples.
        draws: The round's randomness.
    """

    number: int
    differences: Float[Tensor, "clients parameters"]
    updates: Float[Tensor, "clients parameters"]
    sizes: tuple[int, ...]
    server: Vector
    accuracy: Callable[[Vector], float]
    losses: Callable[[], list[float]]
    draws: torch.Generator


@dataclass(frozen=True, eq=False)
class Payment:
    """What a round comes to.

    Attributes:
        aggregate: What the server adds to its model.
        rewards: What each client adds to its own.
        importance: r of each client, where the rule has it.
    """

    aggregate: Vector
    rewards: Sequence[Vector]
    importance: Sequence[float] = ()


class Rule(Protocol):
    """A rule of who gets what."""

    def pay(self, round: Round) -> Payment:
        """What a round comes to."""


@dataclass
class GradientRewards:
    """The protocol's own rule: `aggregate_round`, from round to round; nobody is excluded.

    Attributes:
        terms: What was agreed.
        found: What was found of each client's updates, for each round.
    """

    terms: GradientRewardsTerms
    found: list[list[tuple[Finding, ...]]] = field(default_factory=list)
    _state: ServerState | None = None
    _news: list[list[float]] = field(default_factory=list)
    _last: dict[int, SparseUpdate] = field(default_factory=dict)

    def pay(self, round: Round) -> Payment:
        """See `Rule`."""
        before = self._state or ServerState.first(round.sizes)
        now = free_riders.signs(round.updates, before.importance, self._last)
        self.found.append(free_riders.findings(now, list(zip(*self._news, strict=True)) or [()] * len(now)))
        self._news.append([each.news for each in now])
        shares = None if self.terms.free_riders == "warn" else free_riders.shares(now, self.found[-1])
        settled = aggregate_round(round.updates, before, self.terms.mechanism, shares=shares, generator=round.draws)
        self._state, self._last = settled.state, dict(enumerate(settled.rewards))
        rewards = [reward.dense() for reward in settled.rewards]
        return Payment(settled.aggregate, rewards, settled.state.importance.tolist())


@dataclass
class Record:
    """What came of a federation.

    Attributes:
        accuracies: Test accuracy of each client's model, for each round.
        payments_s: Seconds that the rule took.
        training_s: Seconds that the clients trained.
    """

    accuracies: list[list[float]] = field(default_factory=list)
    payments_s: float = 0.0
    training_s: float = 0.0


Watch = Callable[[Round, Payment, Sequence[Vector], Vector], None]
"""Told after each round: the round, what it came to, the clients' models and the server's."""


class Federation:
    """The parties of a script, ready to learn.

    Args:
        script: A gradient rewards script with its parties.
    """

    def __init__(self, script: Script) -> None:
        clients, (server,) = parties(script)
        contract, _ = draft_contract(script, server, "federation")
        self.terms = GradientRewardsTerms.model_validate(contract.terms.model_dump())
        self.tasks = [_classifier(client, contract) for client in clients]
        self._judge = _classifier(server, contract)
        self._rounds = contract.rounds
        self._seed = contract.seed

    @property
    def last_layer(self) -> int:
        """Parameters of the last layer, which are the last in every update."""
        names = self._judge.parameters
        layer = names[-1].rpartition(".")[0]
        return sum(self._judge.initial_state[name].numel() for name in names if name.rpartition(".")[0] == layer)

    def run(
        self,
        rule: Rule,
        *,
        watch: Watch | None = None,
        every_round: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> Record:
        """Runs all rounds under a rule.

        Args:
            rule: Who gets what.
            watch: Told after each round.
            every_round: Test the clients' models after each round, not only after the last.
            say: Told of progress.
        """
        server = self._flat(self._judge.initial_state)
        models = [server.clone() for _ in self.tasks]
        sizes = tuple(task.samples for task in self.tasks)
        record = Record()
        for number in range(1, self._rounds + 1):
            began = time.monotonic()
            differences = torch.stack(
                [self._difference(task, model, number) for task, model in zip(self.tasks, models, strict=True)]
            )
            record.training_s += time.monotonic() - began
            before = list(models)
            round = Round(
                number,
                differences,
                torch.stack([normalize_update(each, self.terms.length) for each in differences]),
                sizes,
                server,
                self.accuracy,
                lambda before=before: self.losses(before),  # type: ignore[misc]
                generator(derive(self._seed, "permutations", number)),
            )
            began = time.monotonic()
            paid = rule.pay(round)
            record.payments_s += time.monotonic() - began
            models = [model + reward for model, reward in zip(models, paid.rewards, strict=True)]
            server = server + paid.aggregate
            if watch is not None:
                watch(round, paid, models, server)
            if every_round or number == self._rounds:
                record.accuracies.append([self.accuracy(model) for model in models])
                say(f"    round {number}: accuracy {sum(record.accuracies[-1]) / len(models):.3f}")
        return record

    def accuracy(self, model: Vector) -> float:
        """Test accuracy of a model."""
        return self._judge.test_accuracy(self._state(model)) or 0.0

    def losses(self, models: Sequence[Vector]) -> list[float]:
        """Mean training loss of each client's model."""
        pairs = zip(self.tasks, models, strict=True)
        return [float(task.losses(self._state(model)).mean()) for task, model in pairs]

    def _difference(self, task: Supervised, model: Vector, number: int) -> Vector:
        """What a client's local training changes in its model."""
        iterations = self.terms.epochs * -(-task.samples // self.terms.batch_size)
        after: State = {}
        for sample in task.trajectory(
            self._state(model),
            self.terms.optimizer_spec(number),
            iterations=iterations + 1,
            period=iterations,
            round=number,
        ):
            after = sample.state
        return self._flat(after) - model

    def _flat(self, state: State) -> Vector:
        return torch.cat([state[name].detach().cpu().flatten() for name in self._judge.parameters])

    def _state(self, model: Vector) -> State:
        """A model's state dict; buffers stay those that it began with."""
        state = dict(self._judge.initial_state)
        sizes = [state[name].numel() for name in self._judge.parameters]
        for name, values in zip(self._judge.parameters, model.split(sizes), strict=True):
            state[name] = values.view(state[name].shape)
        return state


def _classifier(party: LocalParty, contract: Contract) -> Supervised:
    task = party.task(contract)
    if not isinstance(task, Supervised):
        raise TypeError("the members of a federation classify")
    return task
