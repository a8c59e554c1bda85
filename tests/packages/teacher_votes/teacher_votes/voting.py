"""Who votes: a party's class means; and the student, a model of the contract's that learns the labels of the majority."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from comity import interruption
from comity.contract import Contract
from comity.data import Splits
from comity.errors import TaskMismatch
from comity.protocol.implementation import Resources, TaskBuilder
from comity.randomness import derive, generator
from comity.tensors import Blob, Layout
from teacher_votes.terms import TeacherVotesTerms, voting_terms


def inputs_of(contract: Contract, round: int) -> Tensor:
    """The public inputs of a round."""
    shape = (voting_terms(contract).queries, *contract.task.inputs.shape)
    return torch.rand(shape, generator=generator(derive(contract.seed, "inputs", round)))


def majority(votes: Sequence[Sequence[int]]) -> list[int]:
    """What most voted for, of each input; of several, the first class."""
    return [max(sorted(set(each)), key=each.count) for each in zip(*votes, strict=True)]


def agreement(votes: Sequence[int], labels: Sequence[int]) -> float:
    """The share of votes that are the majority's."""
    return sum(vote == label for vote, label in zip(votes, labels, strict=True)) / len(labels)


@dataclass(frozen=True)
class Voter:
    """A party's part: means of its samples, by class, and the student where the contract has one.

    Attributes:
        contract: What was agreed.
        means: `[classes, features]`; None at a party without data.
        model: The student.
    """

    contract: Contract
    means: Tensor | None
    model: nn.Module | None

    def votes(self, round: int) -> list[int]:
        """The class whose mean is nearest, of each input of a round."""
        labels: list[int] = self._distances(round).argmin(1).tolist()
        return labels

    def scores(self, round: int) -> Blob:
        """How near each class's mean is, of each input of a round, from 0 to 1."""
        return self.scores_layout.pack({"scores": torch.softmax(-self._distances(round), 1)})

    @property
    def scores_layout(self) -> Layout:
        """What scores look like."""
        queries, classes = voting_terms(self.contract).queries, self.contract.task.heads[0].size
        return Layout.of({"scores": torch.zeros(queries, classes)})

    def most_scored(self, scores: Sequence[Blob]) -> list[int]:
        """The class for which most of several scores together are, of each input."""
        each = torch.stack([self.scores_layout.view(one.data)["scores"] for one in scores])
        labels: list[int] = each.sum(0).argmax(1).tolist()
        return labels

    def _distances(self, round: int) -> Tensor:
        if self.means is None:
            raise TaskMismatch("a teacher without samples cannot vote", expected="[data] with samples", received="none")
        return torch.cdist(inputs_of(self.contract, round).flatten(1), self.means)

    @property
    def layout(self) -> Layout:
        """The student's tensors."""
        return Layout.of(self._student.state_dict())

    @property
    def initial(self) -> Blob:
        """The student before the first round."""
        return self.layout.pack(self._student.state_dict())

    @property
    def _student(self) -> nn.Module:
        if self.model is None:
            raise TaskMismatch("there is no student", expected="a model", received="none")
        return self.model

    def learn(self, student: Blob, round: int, labels: Sequence[int]) -> Blob:
        """The student after some steps on the labels of a round."""
        terms, layout = self.contract.terms, self.layout
        steps = terms.steps if isinstance(terms, TeacherVotesTerms) else 0
        self._student.load_state_dict(layout.unpack(student))
        optimizer = torch.optim.SGD(self._student.parameters(), lr=0.1)
        for _ in range(steps):
            interruption.point()
            optimizer.zero_grad()
            functional.cross_entropy(self._student(inputs_of(self.contract, round)), torch.tensor(labels)).backward()
            optimizer.step()
        return layout.pack(self._student.state_dict())


class VotingTask(TaskBuilder):
    """See `TaskBuilder`."""

    def build(self, contract: Contract, resources: Resources) -> Voter:
        """See `TaskBuilder.build`."""
        model = next(iter(resources.models.values()), None)
        if not isinstance(resources.data, Splits):
            return Voter(contract, None, model)
        train = resources.data.train
        samples = train.prepare(train.inputs, (), ()).flatten(1)
        means = [samples[train.labels == label].mean(0).nan_to_num(torch.inf) for label in range(train.classes)]
        return Voter(contract, torch.stack(means), model)
