"""How a node comes to its task: what it brings is checked, and what the session takes of it is worked out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from comity.contract import Contract, Membership, Terms
from comity.data import Splits
from comity.data.dataset import CLASSIFICATION
from comity.errors import InvalidValue, PolicyRefusal, TaskMismatch
from comity.privacy import require_private
from comity.privacy.limits import TrainingPlan
from comity.protocol.absence import Absence
from comity.protocol.implementation import Data, PrivateTraining, Resources, TaskBuilder
from comity.protocols.peer_study.absences import absences
from comity.protocols.peer_study.client_pool import ClientPool
from comity.protocols.peer_study.task import TEACHER, StudyTask, agreed_samples, study_terms
from comity.protocols.peer_study.terms import PeerStudyTerms
from comity.protocols.peer_study.uploading.samples import unprotected
from comity.training import sampling_rate


class StudyTaskBuilder(TaskBuilder):
    """See `TaskBuilder`."""

    def samples(self, terms: Terms, data: Data) -> int:
        """See `TaskBuilder.samples`: those that are labelled before the first round."""
        if not isinstance(data, Splits):
            return 0
        pool = data.find("pool")
        if pool is None or not isinstance(terms, PeerStudyTerms):
            return len(data.train)
        return agreed_samples(terms, unprotected(data.train), pool)

    def absences(
        self, terms: Terms | None, rounds: int, data: Data, settings: Any, min_samples: int
    ) -> Sequence[Absence]:
        """See `TaskBuilder.absences`."""
        return absences(terms, rounds, data, settings, min_samples)

    def build(self, contract: Contract, resources: Resources) -> StudyTask:
        """See `TaskBuilder.build`."""
        if resources.data is not None and not isinstance(resources.data, Splits):
            raise TaskMismatch(
                "peer study is for samples",
                expected="[data] with samples",
                received=resources.data.environment.name,
                action="use samples, or a protocol that trains policies",
            )
        if study_terms(contract).uploads and contract.task.kind != CLASSIFICATION:
            raise TaskMismatch(
                "samples are uploaded with a class each",
                expected=CLASSIFICATION,
                received=contract.task.kind,
                action='use mode = "federated" for masks',
            )
        is_client = resources.party not in contract.acceptors
        if study_terms(contract).uploads and is_client and resources.rules is not None:
            raise PolicyRefusal(
                "a node that guards its samples does not upload them",
                expected='privacy = { preset = "public" }, by the node\'s owner',
                received="a preset that guards",
                action="take part in sessions of the other mode, or change [privacy] of node.toml",
            )
        if study_terms(contract).privacy is not None:
            require_private(resources.models[TEACHER])
        task = StudyTask(contract, resources)
        if task.pool is not None:
            _require_candidates(contract, task.pool)
        return task

    def try_out(self, contract: Contract, task: StudyTask) -> None:
        """See `TaskBuilder.try_out`."""
        del contract
        task.try_out()


TASK = StudyTaskBuilder()


def _require_candidates(contract: Contract, pool: ClientPool) -> None:
    terms = study_terms(contract)
    steps = terms.step_of(contract.rounds)
    asked, free = terms.labels_by(steps), len(pool.free(torch.empty(0, dtype=torch.int64)))
    if asked > free:
        raise InvalidValue(
            "the session asks for more labels than there are samples to choose from",
            expected=f"at most {free}, the samples of the pool that are not protected",
            received=f"{terms.initial} at the start and {steps} times {terms.budget}",
            action="lower session.terms.budget or the rounds, or protect fewer samples",
        )


def disk_space(contract: Contract, own: Membership, peer: Membership, task: StudyTask) -> int:  # noqa: ARG001
    """Most that a party keeps at a time.

    At a client three models, the students with their optimiser, and the labels; at the server the average, and a model and an
    average of each client. Where samples leave, these and lists of them, at both.
    """
    terms = study_terms(contract)
    if terms.uploads:
        samples = task.most_samples * task.sample_layout.size + 2 * task.list_layout.size
        if own.role == "server":
            return (2 + terms.clients) * task.layout.size + terms.clients * samples
    else:
        samples = 0
    if own.role == "server":
        return (2 + 2 * terms.clients) * task.layout.size
    students = sum(each.numel() * each.element_size() for each in task.students(0).state_dict().values())
    space: int = 4 * task.layout.size + 6 * students + task.guard_space(terms.steps * terms.batch_size)
    return space + samples


def training_plan(contract: Contract, own: Membership, settings: Any) -> TrainingPlan | None:  # noqa: ARG001
    """What a client trains of the teacher between two models that it sends; None for the server."""
    terms = study_terms(contract)
    if own.role == "server" or not own.samples or terms.uploads:
        return None
    return TrainingPlan(
        terms.batch_size,
        terms.steps,
        terms.steps,
        "adam",
        terms.learning_rate,
        is_private=terms.privacy is not None,
        steps_term="steps",
        leaving=(TEACHER,),
    )


def private_training(contract: Contract, own: Membership, peers: Sequence[Membership]) -> PrivateTraining | None:  # noqa: ARG001
    """What of a client's training noise covers: all steps of all rounds, as if none but the first labels came."""
    terms = study_terms(contract)
    if own.role == "server" or terms.privacy is None or not own.samples:
        return None
    rate = sampling_rate(own.samples, terms.batch_size)
    return PrivateTraining(terms.privacy, rate, terms.steps * contract.rounds)
