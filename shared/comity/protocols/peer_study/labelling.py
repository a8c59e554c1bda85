"""Labelling and training in turns, in one process: several clients, whose task models a server would average.

Section 4.5's federated variant. Each client's copy of the task model trains on what the client has labelled; copies are
averaged, weighted by how many samples that is, and the average is every client's teacher. Then each client chooses what to
have labelled next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Protocol

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from comity.errors import InvalidValue
from comity.protocols.peer_study.algorithm import average
from comity.protocols.peer_study.pool import BLOCK, Pool
from comity.protocols.peer_study.strategies import Question, Strategy, choose
from comity.protocols.peer_study.students import Fitting, Labelled, Losses, PeerStudents, fit_task_model
from comity.randomness import derive, generator, seeded
from comity.training import Secret


class Oracle(Protocol):
    """Who labels."""

    def label(self, indices: Int[Tensor, " n"]) -> Int[Tensor, "n ..."]:
        """The labels of samples of a client's pool, in their order."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Client:
    """What one client has.

    Attributes:
        pool: Its samples.
        protected: Those that nobody else may see; they are never candidates.
        oracle: Who labels the others.
    """

    pool: Pool
    protected: Bool[Tensor, " samples"]
    oracle: Oracle


@dataclass(frozen=True, slots=True)
class Models:
    """What is trained.

    Attributes:
        task_model: Makes the task model.
        student: Makes a student.
        peers: How many of them a client has.
        classes: How many classes there are.
    """

    task_model: Callable[[], nn.Module]
    student: Callable[[], nn.Module]
    classes: int
    peers: int = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """How many labels, and what is done with them.

    Attributes:
        initial: Labels of each client at the start, of samples by chance.
        budget: Labels that each client asks for at once.
        steps: How often it does.
        rounds: Averages between two selections.
        restart: Whether students and task model start afresh after each selection, as in the paper, or go on.
        fitting: How each training is done.
        losses: The students'.
        block: Samples that a selection reads at once.
    """

    initial: int = 10
    budget: int = 10
    steps: int = 4
    rounds: int = 4
    restart: bool = True
    fitting: Fitting = field(default_factory=Fitting)
    losses: Losses = field(default_factory=Losses)
    block: int = BLOCK


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """Where things stand between two selections.

    Attributes:
        labelled: What each client has labelled.
        task_model: The average that was trained on it.
    """

    labelled: tuple[Labelled, ...]
    task_model: nn.Module

    @property
    def labels(self) -> int:
        """Labels of all clients."""
        return sum(map(len, self.labelled))


def label_in_turns(
    clients: Sequence[Client], models: Models, strategy: Strategy, plan: Plan, seed: int, *, selection: int = 0
) -> list[Stage]:
    """Trains and labels in turns, ending with a training.

    Initial labels, initial weights and batches depend on the seed alone, whatever the strategy.

    Args:
        clients: Who takes part, one or more.
        models: What is trained.
        strategy: How each client chooses.
        plan: How much.
        seed: What chance is drawn from.
        selection: Tells selections by chance from others that begin alike.

    Returns:
        A stage for the initial labels, and one after each selection.

    Raises:
        InvalidValue: There is no client, or one has fewer candidates than labels are asked for.
    """
    if not clients:
        raise InvalidValue("Clients", expected="1 or more", received=0)
    secrets = [Secret(derive(seed, "client", index).to_bytes(8, "big"), "labelling") for index in range(len(clients))]
    labelled = [_initial(client, plan, secret) for client, secret in zip(clients, secrets, strict=True)]
    stages: list[Stage] = []
    task_model, students = _models(models, strategy, plan, len(clients), derive(seed, "models", 0))
    for step in range(plan.steps + 1):
        if step and plan.restart:
            task_model, students = _models(models, strategy, plan, len(clients), derive(seed, "models", step))
        for round in range(plan.rounds):
            trained = []
            for client, mine, secret in zip(clients, labelled, secrets, strict=True):
                trained.append(deepcopy(task_model))
                fit_task_model(trained[-1], client.pool, mine, plan.fitting, secret, step, round)
            task_model = averaged(trained, [len(each) for each in labelled])
            for index, peers in enumerate(students):
                peers.fit(task_model, clients[index].pool, labelled[index], secrets[index], step, round)
        stages.append(Stage(tuple(labelled), deepcopy(task_model)))
        if step == plan.steps:
            break
        for index, client in enumerate(clients):
            chosen = choose(
                strategy,
                Question(
                    client.pool,
                    candidates=candidates_of(client, labelled[index]),
                    labelled=labelled[index],
                    budget=plan.budget,
                    classes=models.classes,
                    task_model=task_model,
                    students=students[index] if students else None,
                    seed=secrets[index].seed("selection", selection, step),
                    block=plan.block,
                ),
            )
            labelled[index] = labelled[index].also(chosen, client.oracle.label(chosen))
    return stages


def candidates_of(client: Client, labelled: Labelled) -> Int[Tensor, " candidates"]:
    """Who may be asked for: neither protected nor labelled."""
    free = ~client.protected
    free[labelled.indices] = False
    return free.nonzero().flatten()


def averaged(models: Sequence[nn.Module], weights: Sequence[int]) -> nn.Module:
    """The mean of models, parameters and buffers, weighted; of counters the greatest.

    Args:
        models: Of one kind, one or more; they stay as they are.
        weights: Of each, above 0.
    """
    mean = average([model.state_dict() for model in models], weights)
    result = deepcopy(models[0])
    result.load_state_dict(mean)
    return result.eval()


def _initial(client: Client, plan: Plan, secret: Secret) -> Labelled:
    nothing = Labelled(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))
    candidates = candidates_of(client, nothing)
    asked = plan.initial + plan.steps * plan.budget
    if asked > len(candidates):
        raise InvalidValue(
            "Labels of a client",
            expected=f"at most {len(candidates)}, the samples that are not protected",
            received=f"{plan.initial} at the start and {plan.steps} times {plan.budget}",
            action="ask for fewer, or protect fewer samples",
        )
    chosen = candidates[torch.randperm(len(candidates), generator=generator(secret.seed("initial")))[: plan.initial]]
    return nothing.also(chosen, client.oracle.label(chosen))


def _models(
    models: Models, strategy: Strategy, plan: Plan, clients: int, seed: int
) -> tuple[nn.Module, list[PeerStudents]]:
    """The task model, and the students of each client where the strategy uses any."""
    with seeded(derive(seed, "task model")):
        task_model = models.task_model()
    students = [
        PeerStudents(models.student, models.peers, derive(seed, "students", index), plan.fitting, plan.losses)
        for index in range(clients if strategy.uses_students else 0)
    ]
    return task_model, students
