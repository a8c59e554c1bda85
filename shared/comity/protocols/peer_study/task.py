"""What a party brings to peer study: the models, and, at a client, labelled samples and a pool."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from comity.contract import Contract, Json, Membership, Terms
from comity.data import Dataset, Splits
from comity.errors import InvalidValue, MalformedMessage, TaskMismatch
from comity.privacy import require_private
from comity.privacy.leak_guard import LeakGuard
from comity.privacy.limits import TrainingPlan
from comity.protocol.implementation import Data, PrivateTraining, Resources, TaskBuilder
from comity.protocols.peer_study.oracle import SimulatedOracle
from comity.protocols.peer_study.settings import Settings
from comity.protocols.peer_study.students import Fitting, Labelled, Losses, PeerStudents, Teacher
from comity.protocols.peer_study.terms import PeerStudyTerms
from comity.tasks import build_model
from comity.tasks.objective import sole
from comity.tensors import State
from comity.training import Supervised, choose_device, sampling_rate
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


class ClientPool:
    """A client's samples, as models take them: those that are labelled from the beginning, and then the pool.

    Args:
        known: Samples with labels.
        pool: Samples of the split `pool`, protected ones too.
        normalization: Per-channel mean and standard deviation of the inputs.
        device: Where models live.

    Attributes:
        known: See above.
        pool: See above.
    """

    def __init__(
        self,
        known: Dataset,
        pool: Dataset,
        normalization: tuple[tuple[float, ...], tuple[float, ...]],
        device: torch.device,
    ) -> None:
        self.known = known
        self.pool = pool
        self._normalization = normalization
        self._device = device

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self.known) + len(self.pool)

    def read(self, indices: Int[Tensor, " n"]) -> Float[Tensor, "n ..."]:
        """See `Pool.read`."""
        first = len(self.known)
        rows = torch.empty(len(indices), *self.pool.input_shape)
        for data, there in ((self.known, indices < first), (self.pool, indices >= first)):
            if bool(there.any()):
                places = indices[there] - (0 if data is self.known else first)
                rows[there] = data.prepare(data.inputs[places], *self._normalization)
        return rows.to(self._device)

    def free(self, labelled: Int[Tensor, " n"]) -> Int[Tensor, " candidates"]:
        """Samples of the pool that may be chosen: neither protected nor among these."""
        free = torch.ones(len(self), dtype=torch.bool)
        free[: len(self.known)] = False
        if self.pool.protected is not None:
            free[len(self.known) :] &= ~self.pool.protected
        free[labelled] = False
        return free.nonzero().flatten()

    def ids(self, indices: Int[Tensor, " n"]) -> list[str]:
        """What samples of the pool are called."""
        return [self.pool.ids[each - len(self.known)] for each in indices.tolist()]

    def labelled(self, labels: Labelled) -> Dataset:
        """Samples with their labels, those that are known from the beginning first; nothing protected is among them."""
        chosen = self.pool.select(labels.indices - len(self.known))
        chosen = replace(chosen, labels=labels.labels.to(self.known.labels.dtype), protected=None, ids=())
        if not len(chosen):
            return self.known
        if not len(self.known):
            return replace(chosen, classes=self.known.classes)
        return self.known.concat(replace(chosen, classes=self.known.classes))


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
            InvalidValue: Nothing is labelled.
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

    def students(self, step: int) -> PeerStudents:
        """The peers as they begin in a labelling step, each with weights of its own that no other party knows."""
        terms, spec = self._terms, self._contract.models[STUDENT]
        seeds = iter([self._resources.secret.seed("student", step, peer) for peer in range(terms.peers)])

        def build() -> nn.Module:
            built = build_model(spec, self._contract.task, next(seeds), self._resources.own_models)
            return built.to(self._device)

        fitting = Fitting(terms.steps, terms.batch_size, terms.pool_batch_size, terms.learning_rate, terms.weight_decay)
        losses = Losses(terms.alpha, terms.temperature, terms.margin, terms.form)
        return PeerStudents(build, terms.peers, self._resources.secret.seed("students", step), fitting, losses)

    def fit(self, students: PeerStudents, teacher: State, labels: Labelled, round: int) -> None:
        """Trains the peers, from where they are, with an average as their teacher.

        Raises:
            InvalidValue: Nothing is labelled.
            TrainingDiverged: A loss is not finite.
        """
        pool = self._own_pool
        known = len(pool.known)
        everything = Labelled(
            torch.cat([torch.arange(known), labels.indices]),
            torch.cat([pool.known.labels, labels.labels.to(pool.known.labels.dtype)]).to(self._device),
        )
        students.fit(self.teacher(teacher), pool, everything, self._resources.secret, round)

    def teacher(self, state: State) -> Teacher:
        """What the teacher says of samples, in evaluation mode."""
        weights = {name: tensor.to(self._device) for name, tensor in state.items()}
        head = self._head

        def answer(inputs: Tensor) -> Tensor:
            with torch.no_grad():
                return sole(functional_call(self._local.model, weights, (inputs,)), head)

        return answer

    def seed(self, purpose: str, step: int) -> int:
        """A seed of this party's own for one labelling step."""
        return self._resources.secret.seed(purpose, step)

    def oracle(self) -> SimulatedOracle:
        """An annotator that knows the labels which the pool comes with; by the pool's places.

        Raises:
            InvalidValue: It comes with none, or the noise cannot be made.
        """
        settings, pool = self.settings, self._own_pool.pool
        if bool((pool.labels < 0).any()):
            raise InvalidValue(
                "a simulated oracle knows no labels",
                expected="a pool with labels",
                received="labelled = false in [data.splits.pool]",
                action="use a pool whose labels are known: what people label in a session is not supported",
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

    @property
    def _own_pool(self) -> ClientPool:
        if self.pool is None:
            raise InvalidValue("a pool is a client's", expected="a client", received="the server")
        return self.pool

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
        preprocessing = self._contract.task.inputs.preprocessing
        normalization = (preprocessing.mean, preprocessing.std)
        return replace(splits, train=known), ClientPool(known, pool, normalization, self._device)

    def _trainer(self, labels: Labelled) -> Supervised:
        """The teacher with what is labelled so far; made once for all rounds with the same labels."""
        if self._of_labels is None or self._of_labels[0] != len(labels):
            data = self._own_pool.labelled(labels)
            if not len(data):
                raise InvalidValue("labelled samples to learn from", expected="1 or more", received=0)
            self._of_labels = len(labels), self._supervised(Splits(data))
        return self._of_labels[1]

    def _supervised(self, splits: Splits | None) -> Supervised:
        resources = self._resources
        is_client = self.pool is not None
        return supervised(
            copy.deepcopy(resources.models[TEACHER]),
            splits,
            self._contract.task,
            self._terms,
            secret=resources.secret,
            device=resources.device,
            mechanism=resources.mechanism if is_client else None,
            rules=resources.rules if is_client else None,
        )


def unprotected(data: Dataset) -> Dataset:
    """The samples that a helping model may learn from: those that are not protected."""
    if data.protected is None:
        return data
    return replace(data.select((~data.protected).nonzero().flatten()), protected=None)


class StudyTaskBuilder(TaskBuilder):
    """See `TaskBuilder`."""

    def samples(self, terms: Terms, data: Data) -> int:
        """See `TaskBuilder.samples`: those that are labelled before the first round."""
        if not isinstance(data, Splits):
            return 0
        pool = data.find("pool")
        if pool is None or not isinstance(terms, PeerStudyTerms):
            return len(data.train)
        protected = 0 if pool.protected is None else int(pool.protected.sum())
        return len(unprotected(data.train)) + min(terms.initial, len(pool) - protected)

    def build(self, contract: Contract, resources: Resources) -> StudyTask:
        """See `TaskBuilder.build`."""
        if resources.data is not None and not isinstance(resources.data, Splits):
            raise TaskMismatch(
                "peer study is for samples",
                expected="[data] with samples",
                received=resources.data.environment.name,
                action="use samples, or a protocol that trains policies",
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
    average of each client.
    """
    terms = study_terms(contract)
    if own.role == "server":
        return (2 + 2 * terms.clients) * task.layout.size
    students = sum(each.numel() * each.element_size() for each in task.students(0).state_dict().values())
    space: int = 4 * task.layout.size + 6 * students + task.guard_space(terms.steps * terms.batch_size)
    return space


def training_plan(contract: Contract, own: Membership, settings: Any) -> TrainingPlan | None:  # noqa: ARG001
    """What a client trains of the teacher between two models that it sends; None for the server."""
    terms = study_terms(contract)
    if own.role == "server" or not own.samples:
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
