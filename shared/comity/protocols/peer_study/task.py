"""What a party brings to peer study: the models, and, at a client, labelled samples and a pool."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from comity.contract import Contract, Json
from comity.data import Dataset, Splits
from comity.data.dataset import CLASSIFICATION
from comity.errors import InvalidValue, MalformedMessage
from comity.privacy.leak_guard import LeakGuard
from comity.protocol.implementation import Resources
from comity.protocols.peer_study.annotation.question import Question
from comity.protocols.peer_study.client_pool import ClientPool, are_people_asked, lacks_labels
from comity.protocols.peer_study.oracle import SimulatedOracle
from comity.protocols.peer_study.pool import TensorPool
from comity.protocols.peer_study.settings import Settings
from comity.protocols.peer_study.students import Fitting, Labelled, Losses, PeerStudents, Teacher, fit_task_model
from comity.protocols.peer_study.terms import PeerStudyTerms
from comity.protocols.peer_study.uploading.lists import list_layout
from comity.protocols.peer_study.uploading.samples import OpenSamples, sample_layout, unprotected, with_copies
from comity.randomness import seeded
from comity.tasks import build_model
from comity.tasks.objective import sole
from comity.tensors import Layout, State, on_device
from comity.training import Supervised, choose_device
from comity.training.local import supervised

TEACHER, STUDENT = "teacher", "student"
"""What the protocol calls its models: the task model, whose weights cross, and a peer student, whose weights never do."""


def study_terms(contract: Contract) -> PeerStudyTerms:
    """A contract's terms.

    Raises:
        MalformedMessage: They are another protocol's.
    """
    if not isinstance(contract.terms, PeerStudyTerms):
        raise MalformedMessage("the terms are another protocol's", expected="peer_study", received=contract.protocol)
    return contract.terms


def agreed_samples(terms: PeerStudyTerms, known: Dataset, pool: Dataset) -> int:
    """Samples that are labelled before the first round, as the session counts on."""
    protected = 0 if pool.protected is None else int(pool.protected.sum())
    return len(known) + min(terms.initial, len(pool) - protected)


class StudyTask:
    """A party's models and samples.

    Args:
        contract: The contract.
        resources: What the party brings.

    Attributes:
        layout: Of the teacher, which crosses.
        initial_state: The teacher, as every session begins.
        pool: A client's samples; None at the server.
        classes: How many classes there are.
    """

    def __init__(self, contract: Contract, resources: Resources) -> None:
        self._terms = study_terms(contract)
        self._contract = contract
        self._resources = resources
        self._device = choose_device(resources.device)
        self._head = contract.task.heads[0]
        self.classes = self._head.size
        splits = resources.data if isinstance(resources.data, Splits) else None
        self.pool = None
        if resources.party not in contract.acceptors:
            splits, self.pool = self._own(splits)
        self._local = self._supervised(splits)
        self._of_labels: tuple[int, Supervised] | None = None
        self.layout = self._local.layout
        self.initial_state = self._local.initial_state

    @property
    def samples(self) -> int:
        """Number of samples with labels from the beginning, of a client."""
        return 0 if self.pool is None else len(self.pool.known)

    @property
    def model(self) -> nn.Module:
        """A model that evaluations use, with whatever weights they left."""
        return self._local.model

    @property
    def is_guarded(self) -> bool:
        """Whether a leak guard decides what of the training is sent."""
        return self._local.is_guarded

    def guard_space(self, draws: int) -> int:
        """Most bytes that a guard keeps between two releases."""
        return self._local.guard_space(draws)

    def tested(self, state: State) -> dict[str, Json]:
        """What a test of the teacher on this party's test samples says, by metric; empty where it has none."""
        return self._local.tested(state)

    def train(self, state: State, labels: Labelled, round: int) -> tuple[dict[str, Tensor], LeakGuard | None]:
        """The teacher after a round's local steps on what is labelled, and what observed them.

        Args:
            state: Where they begin.
            labels: What was labelled, beside what is known from the beginning.
            round: Decides the batches.

        Raises:
            InvalidValue: Nothing is labelled, or too little for the noise that was agreed on.
            TrainingDiverged: The weights are not finite.
        """
        local = self._trainer(labels)
        before = {name: tensor.clone() for name, tensor in state.items()}
        guard = local.guard(before)
        after: State = before
        for made in local.trajectory(
            before,
            self._terms.optimizer_spec,
            iterations=self._terms.steps + 1,
            period=self._terms.steps,
            round=round,
            guard=guard,
        ):
            after = made.state
        return {name: tensor.cpu().clone() for name, tensor in after.items()}, guard

    def batch_size(self, samples: int) -> int:
        """Samples of the teacher in a step, on average: where noise covers them, none is likelier than was charged for.

        People may have labelled fewer samples than the session's budget of privacy was counted by.

        Args:
            samples: How many are learned from.

        Returns:
            0 where each would be likelier in any step.
        """
        agreed, most = agreed_samples(self._terms, self.own_pool.known, self.own_pool.pool), self._terms.batch_size
        if self._terms.privacy is None or samples >= agreed:
            return most
        return min(most, agreed) * samples // agreed

    def students(self, step: int) -> PeerStudents:
        """The peers as they begin in a labelling step, each with weights of its own that no other party knows."""
        terms, spec = self._terms, self._contract.models[STUDENT]
        seeds = iter([self._resources.secret.seed("student", step, peer) for peer in range(terms.peers)])

        def build() -> nn.Module:
            own, weights = self._resources.own_models, self._resources.weights
            built = build_model(spec, self._contract.task, next(seeds), own, weights)
            return built.to(self._device)

        losses = Losses(terms.alpha, terms.temperature, terms.margin, terms.form)
        return PeerStudents(build, terms.peers, self._resources.secret.seed("students", step), self._fitting, losses)

    @property
    def _fitting(self) -> Fitting:
        terms = self._terms
        return Fitting(terms.steps, terms.batch_size, terms.pool_batch_size, terms.learning_rate, terms.weight_decay)

    def fit(self, students: PeerStudents, teacher: State, labels: Labelled, round: int) -> None:
        """Trains the peers, from where they are, with an average as their teacher.

        Raises:
            InvalidValue: Nothing is labelled.
            TrainingDiverged: A loss is not finite.
        """
        pool = self.own_pool
        known = len(pool.known)
        everything = Labelled(
            torch.cat([torch.arange(known), labels.indices]),
            torch.cat([pool.known.labels, labels.labels.to(pool.known.labels.dtype)]).to(self._device),
        )
        students.fit(self.teacher(teacher), pool, everything, self._resources.secret, round)

    def teacher(self, state: State) -> Teacher:
        """What the teacher says of samples, in evaluation mode."""
        weights = on_device(state, self._device)
        head = self._head

        def answer(inputs: Tensor) -> Tensor:
            with torch.no_grad():
                return sole(functional_call(self._local.model, weights, (inputs,)), head)

        return answer

    def seed(self, purpose: str, step: int) -> int:
        """A seed of this party's own for one labelling step."""
        return self._resources.secret.seed(purpose, step)

    @property
    def own_pool(self) -> ClientPool:
        """The samples of a client.

        Raises:
            InvalidValue: This is the server.
        """
        if self.pool is None:
            raise InvalidValue("a pool is a client's", expected="a client", received="the server")
        return self.pool

    @property
    def is_labelled_by_people(self) -> bool:
        """Whether people say the labels of what this client chooses, and not the pool."""
        return are_people_asked(self.settings, self.own_pool.pool)

    @property
    def open_samples(self) -> OpenSamples:
        """The samples that may be released, where samples leave; what is made of them has no others to make it from."""
        pool, preprocessing = self.own_pool.pool, self._contract.task.inputs.preprocessing
        return OpenSamples(unprotected(pool), (preprocessing.mean, preprocessing.std))

    @property
    def sample_layout(self) -> Layout:
        """Of one sample that leaves."""
        return sample_layout(self._contract.task.inputs.shape)

    @property
    def most_samples(self) -> int:
        """How many samples can come of one client, where samples leave."""
        return self._terms.labels_by(self._terms.step_of(self._contract.rounds))

    @property
    def list_layout(self) -> Layout:
        """Of the list that a client hands in of samples that left."""
        return list_layout(self.most_samples)

    def taught(self, state: State, inputs: Tensor, labels: Tensor, round: int) -> dict[str, Tensor]:
        """The teacher after a round's steps on samples that were handed in.

        Args:
            state: Where they begin.
            inputs: The samples, as models take them.
            labels: Of each.
            round: Decides the batches.

        Raises:
            TrainingDiverged: A loss is not finite.
        """
        model, secret = copy.deepcopy(self._resources.models[TEACHER]).to(self._device), self._resources.secret
        model.load_state_dict(state, strict=False)
        known = Labelled(torch.arange(len(labels)), labels.to(self._device))
        with seeded(secret.seed("dropout", round)):
            fit_task_model(model, TensorPool(inputs.to(self._device)), known, self._fitting, secret, round)
        return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items() if name in state}

    @property
    def question(self) -> Question:
        """What people are asked who label."""
        terms, settings = self._terms, self.settings
        names = self._head.labels or tuple(map(str, range(self.classes)))
        shape = self._contract.task.inputs.shape
        size = None if self._contract.task.kind == CLASSIFICATION else (shape[1], shape[2])
        return Question(
            self._contract.session, names, settings.guidelines, terms.annotators, terms.when_they_differ, size
        )

    def oracle(self) -> SimulatedOracle:
        """An annotator that knows the labels which the pool comes with; by the pool's places.

        Raises:
            InvalidValue: It comes with none, or the noise cannot be made.
        """
        settings, pool = self.settings, self.own_pool.pool
        if lacks_labels(pool):
            raise InvalidValue(
                "a simulated oracle knows no labels",
                expected="a pool with labels",
                received="labelled = false in [data.splits.pool]",
                action='write labels = "people" in [protocols.peer-study], or use a pool whose labels are known',
            )
        return SimulatedOracle(
            pool.labels,
            self.classes,
            noise=settings.noise,
            superclasses=settings.superclasses or None,
            seed=self._resources.secret.seed("oracle"),
        )

    @property
    def settings(self) -> Settings:
        """This party's own."""
        return self._resources.settings if isinstance(self._resources.settings, Settings) else Settings()

    def try_out(self) -> None:
        """Does once what a client does many times: a step of the teacher, and an answer of a student.

        Raises:
            InvalidValue: Teacher and student do not answer alike.
        """
        self._local.try_out(self._terms.optimizer_spec)
        if self.pool is None:
            return
        some = self.pool.read(torch.arange(min(2, len(self.pool))))
        with torch.no_grad():
            given = tuple(self.students(0)(some).shape[1:])
        wanted = tuple(self.teacher(self.initial_state)(some).shape)
        if given != wanted:
            raise InvalidValue(
                "session.models.student cannot be used",
                expected=f"answers like the teacher's, {list(wanted)} for {len(some)} samples",
                received=list(given),
                action="name a model for the session's task",
            )

    def trained_on(self, splits: Splits) -> Supervised:
        """The teacher with other samples, without noise and without a guard."""
        resources = self._resources
        return supervised(
            copy.deepcopy(resources.models[TEACHER]),
            splits,
            self._contract.task,
            self._terms,
            secret=resources.secret,
            device=resources.device,
            mechanism=None,
        )

    def _own(self, splits: Splits | None) -> tuple[Splits, ClientPool]:
        """A client's samples: of those to train on the ones that may be learned from, and all that it reads."""
        pool = None if splits is None else splits.find("pool")
        if splits is None or pool is None:
            raise InvalidValue(
                "a client of peer study chooses from a pool",
                expected="[data.splits.pool] in node.toml",
                received="none",
                action="name its source, with labelled = false, or the share of the training samples that it takes",
            )
        known = unprotected(splits.train)
        if self._terms.uploads:
            pool = with_copies(pool, [each for _, each in splits.items() if each is not pool])
        preprocessing = self._contract.task.inputs.preprocessing
        normalization = (preprocessing.mean, preprocessing.std)
        return replace(splits, train=known), ClientPool(known, pool, normalization, self._device)

    def _trainer(self, labels: Labelled) -> Supervised:
        """The teacher with what is labelled so far; made once for all rounds with the same labels."""
        if self._of_labels is None or self._of_labels[0] != len(labels):
            data = self.own_pool.labelled(labels)
            if not len(data):
                raise InvalidValue("labelled samples to learn from", expected="1 or more", received=0)
            self._of_labels = len(labels), self._supervised(Splits(data), self.batch_size(len(data)))
        return self._of_labels[1]

    def _supervised(self, splits: Splits | None, batch_size: int | None = None) -> Supervised:
        resources, terms = self._resources, self._terms
        if batch_size is not None:
            terms = terms.model_copy(update={"batch_size": batch_size})
        # What is guarded, and noisy, is a model that leaves.
        is_client = self.pool is not None and not terms.uploads
        return supervised(
            copy.deepcopy(resources.models[TEACHER]),
            splits,
            self._contract.task,
            terms,
            secret=resources.secret,
            device=resources.device,
            mechanism=resources.mechanism if is_client else None,
            rules=resources.rules if is_client else None,
        )
