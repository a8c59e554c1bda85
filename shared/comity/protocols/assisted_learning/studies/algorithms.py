"""What assisted learning is compared with, on the parties, data and training of its own session.

SGD on some samples (section 4.2, A.6, A.7), federated averaging of the two (A.1), and Revised-AssistDeep (A.5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from comity.contract import Json
from comity.data import Dataset, Splits
from comity.experiments.datasets import Datasets
from comity.node.sessions.initiator import draft_contract
from comity.protocols.assisted_learning.algorithm import argmin, split_iterations
from comity.protocols.assisted_learning.studies.pair import Pair
from comity.protocols.assisted_learning.terms import AssistedLearningTerms
from comity.simulation.in_process import parties, simulate
from comity.tensors import State
from comity.training import Supervised


@dataclass
class Curve:
    """An algorithm, round by round.

    Attributes:
        accuracy: Test accuracy of its model, on the learner's test samples.
        loss: Mean training loss on all data.
        bytes: Bytes that crossed; 0 where they were not counted.
        own: Final test accuracy of the learner's own model, where it has one.
        privacy: What the noise of the training guarantees, by role, where there is any.
    """

    accuracy: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    bytes: int = 0
    own: float | None = None
    privacy: Json = None


class Algorithms:
    """The parties of a pair, ready to learn in every way but the session's.

    Args:
        pair: Learner and provider. Where they have a model of their own, that is what all but the session train.
        datasets: Where data come from.
    """

    def __init__(self, pair: Pair, datasets: Datasets) -> None:
        self._script = pair.script(datasets)
        without = pair.without_exchange.script(datasets)
        (self._learner,), (self._provider,) = parties(without)
        self._contract, _ = draft_contract(without, self._learner, "opponents")
        self._terms = AssistedLearningTerms.model_validate(self._contract.terms.model_dump())
        self._test = self._learner.holdings.splits.test
        ours, theirs = self._learner.holdings.splits.train, self._provider.holdings.splits.train
        self._data: Mapping[str, Dataset] = {
            "SGD": pooled(ours, theirs),
            "Learner-SGD": ours,
            "Provider-SGD": theirs,
            "Resampled-Learner-SGD": ours.select(balanced(ours.labels)),
        }
        self._pooled = self._task(self._data["SGD"])

    @property
    def parameters(self) -> int:
        """n, parameters of the model."""
        return sum(tensor.numel() for tensor in self._pooled.initial_state.values())

    def run(self, algorithm: str) -> Curve:
        """Runs an algorithm by the name that the paper gives it."""
        match algorithm:
            case "AssistDeep" | "AssistKD":
                return self._session()
            case "FedAvg":
                return self._averaged()
            case "Revised-AssistDeep":
                return self._revised()
        return self._sgd(self._data[algorithm])

    def _session(self) -> Curve:
        result, _ = simulate(self._script)
        metrics = result.metrics
        accuracy: list[float] = metrics["assisted_by_round"]  # type: ignore[assignment]
        losses: list[float] = metrics["global_loss_by_round"]  # type: ignore[assignment]
        crossed = sum(result.bytes_sent.values()) + sum(result.bytes_received.values())
        own: Any = metrics.get("own_model")
        means = [loss / self._pooled.samples for loss in losses]
        return Curve(accuracy, means, crossed, own, metrics.get("privacy"))

    def _sgd(self, data: Dataset) -> Curve:
        """One training that goes on; a round is as many iterations as learner and provider have together."""
        task, curve = self._task(data), Curve()
        period = self._terms.iterations
        for sample in task.trajectory(
            task.initial_state,
            self._terms.optimizer_spec(1),
            iterations=self._contract.rounds * period + 1,
            period=period,
            round=0,
        ):
            if sample.iteration:
                self._note(curve, sample.state)
        return curve

    def _averaged(self) -> Curve:
        """Federated averaging of two clients, weighted by their samples, each with its own share of the iterations."""
        tasks = self._task(self._data["Learner-SGD"]), self._task(self._data["Provider-SGD"], learner=False)
        samples = [task.samples for task in tasks]
        state, curve = self._pooled.initial_state, Curve()
        for round in range(1, self._contract.rounds + 1):
            ends = [self._trained(task, state, part, round)[-1] for task, part in zip(tasks, self._parts, strict=True)]
            state = {
                name: sum(
                    (count * end[name].double() for count, end in zip(samples, ends, strict=True)),
                    start=torch.zeros((), dtype=torch.float64),
                )
                .div(sum(samples))
                .to(tensor.dtype)
                for name, tensor in state.items()
            }
            self._note(curve, state)
        return curve

    def _revised(self) -> Curve:
        """AssistDeep, but the provider starts from the learner's last model, not from the best."""
        learner, provider = self._task(self._data["Learner-SGD"]), self._task(self._data["Provider-SGD"], learner=False)
        own, theirs = self._parts
        period = self._terms.sampling_period
        state, curve = self._pooled.initial_state, Curve()
        for round in range(1, self._contract.rounds + 1):
            last = self._trained(learner, state, own, round)[-1]
            offered = self._trained(provider, last, theirs, round, period)
            totals = [float(self._pooled.losses(each).sum()) for each in offered]
            state = offered[argmin(totals)]
            self._note(curve, state)
        return curve

    @property
    def _parts(self) -> tuple[int, int]:
        return split_iterations(self._terms.iterations, self._learner.holdings.count, self._provider.holdings.count)

    def _trained(
        self, task: Supervised, state: State, iterations: int, round: int, period: int | None = None
    ) -> list[dict[str, Tensor]]:
        """Models of a local training at 0, I, 2I, … below T, or, without a period, after T iterations alone."""
        end = iterations if period else iterations + 1
        start = {name: tensor.clone() for name, tensor in state.items()}
        models = [
            {name: tensor.clone() for name, tensor in sample.state.items()}
            for sample in task.trajectory(
                start, self._terms.optimizer_spec(round), iterations=end, period=period or iterations, round=round
            )
        ]
        return models if period else models[-1:]

    def _task(self, data: Dataset, *, learner: bool = True) -> Supervised:
        test = self._test if self._test is None or self._test.kind == data.kind else _prepared(self._test)
        task = (self._learner if learner else self._provider).task(self._contract, Splits(data, test))
        if not isinstance(task, Supervised):
            raise TypeError("the algorithms of AssistDeep classify")
        return task

    def _note(self, curve: Curve, state: State) -> None:
        curve.accuracy.append(self._pooled.test_accuracy(state) or 0.0)
        curve.loss.append(float(self._pooled.losses(state).mean()))


def pooled(ours: Dataset, theirs: Dataset) -> Dataset:
    """All samples in one place, in the range that models take where they are stored otherwise."""
    if ours.kind == theirs.kind:
        return ours.concat(theirs)
    return _prepared(ours).concat(_prepared(theirs))


def _prepared(samples: Dataset) -> Dataset:
    return Dataset(samples.prepare(samples.all_inputs, (), ()), samples.labels, 1.0, samples.classes)


def balanced(labels: Tensor) -> Tensor:
    """Indices of samples, those of smaller classes several times, so that all classes that there are have as many (A.7)."""
    members = [torch.nonzero(labels == label).flatten() for label in torch.unique(labels)]
    largest = max(len(each) for each in members)
    return torch.cat([each[torch.arange(largest) % len(each)] for each in members])


def mean_of_last(values: Sequence[float], count: int) -> float:
    """Mean of the last values, as the paper takes it for a fully trained model."""
    last = values[-count:]
    return sum(last) / len(last)
