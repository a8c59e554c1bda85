"""What a party brings to Nash bargaining: samples, the shared model, and, where its task is another, a head of its own."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from comity.contract import Contract, Json, Membership, Terms
from comity.environments import EnvironmentSet
from comity.errors import InvalidValue, MalformedMessage, TaskMismatch
from comity.models.crossing import Crossing
from comity.privacy import require_private
from comity.privacy.leak_guard import LeakGuard
from comity.privacy.limits import TrainingPlan
from comity.protocol.implementation import Data, PrivateTraining, Resources, TaskBuilder
from comity.protocols.nash_bargaining.extensions import Settings
from comity.protocols.nash_bargaining.messages import gradient_layout
from comity.protocols.nash_bargaining.terms import NashBargainingTerms
from comity.randomness import seeded
from comity.tasks import kind_for, task_kind
from comity.tasks.meaning import differences, meaning_of, with_meaning
from comity.tensors import Layout, State
from comity.training import Supervised, sampling_rate
from comity.training.local import supervised

MODEL = "model"
"""What the protocol calls the model that is shared: the trunk, and the learner's head."""


_Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
"""What another head may take the place of."""


@dataclass(frozen=True)
class LocalGradient:
    """What some local steps came to.

    Attributes:
        gradients: The sums of their gradients by parameter, with those of the own head, which stay.
        head: The own head after them; empty where there is none.
        buffers: The model's buffers after them.
    """

    gradients: dict[str, Tensor]
    head: dict[str, Tensor]
    buffers: dict[str, Tensor]


class BargainingTask:
    """A party's local task.

    Args:
        local: Its model and data; the model has the party's own head, where it has one.
        layout: Of the contract's model.
        initial: Its initial weights.
        parameters: Names of its parameters, in order.
        own: Names of those that stay at home, and cross as zeros: of the party's own head.

    Attributes:
        layout: Of the contract's model, which crosses.
        gradient_layout: Of a gradient, which crosses.
        initial_state: The contract's model before the first round.
        parameters: Names of its parameters, in the order of a gradient.
        own: See above.
    """

    def __init__(
        self,
        local: Supervised,
        layout: Layout,
        initial: State,
        parameters: tuple[str, ...],
        own: tuple[str, ...],
    ) -> None:
        self.local = local
        self.layout = layout
        self.initial_state = initial
        self.parameters = parameters
        self.own = own
        self.gradient_layout = gradient_layout(sum(initial[name].numel() for name in parameters))

    @property
    def samples(self) -> int:
        """Number of training samples."""
        return self.local.samples

    @property
    def model(self) -> nn.Module:
        """A model that evaluations use, with whatever weights they left."""
        return self.local.model

    @property
    def is_guarded(self) -> bool:
        """Whether a leak guard decides what of the training is sent."""
        return self.local.is_guarded

    def guard_space(self, draws: int) -> int:
        """Most bytes that a guard keeps between two releases."""
        return self.local.guard_space(draws)

    def guard(self, model: State, kept: State | None) -> LeakGuard | None:
        """A leak guard of what the party sends in a session; None for none.

        Args:
            model: A model of the contract's.
            kept: What it kept, to go on from there.
        """
        return self.local.guard(self._whole(model, None), kept)

    def gradient(
        self,
        model: State,
        head: State | None,
        terms: NashBargainingTerms,
        *,
        place: int,
        guard: LeakGuard | None = None,
    ) -> LocalGradient:
        """The sum of the gradients of some local steps, of which the party's own head keeps what it learned.

        Args:
            model: Where they begin.
            head: The party's own head; None for its first, or for none.
            terms: How they are made.
            place: Decides the batches.
            guard: Collects what the caller will release with it.
        """
        before = {name: tensor.clone() for name, tensor in self._whole(model, head).items()}
        after: State = before
        for made in self.local.trajectory(
            {name: tensor.clone() for name, tensor in before.items()},
            terms.local_optimizer,
            iterations=terms.local_steps + 1,
            period=terms.local_steps,
            round=place,
            guard=guard,
        ):
            after = {name: tensor.cpu() for name, tensor in made.state.items()}
        rate = terms.local_learning_rate
        gradients = {name: (before[name].float() - after[name].float()) / rate for name in self.local.parameters}
        return LocalGradient(
            gradients,
            {name: after[name].clone() for name in self.own},
            {name: tensor.clone() for name, tensor in after.items() if name not in gradients},
        )

    def flat(self, gradients: State) -> Float[Tensor, " parameters"]:
        """Gradients by name as they cross: in a row, zeros in the place of the own head's."""
        parts = [
            torch.zeros(self.initial_state[name].numel()) if name in self.own else gradients[name].flatten()
            for name in self.parameters
        ]
        return torch.cat(parts)

    def tested(self, model: State) -> dict[str, Json]:
        """What a test of a model of the contract's on the party's test samples says, by metric; empty where it has none."""
        return self.local.tested(self._whole(model, None))

    def _whole(self, model: State, head: State | None) -> dict[str, Tensor]:
        """The local model: the contract's, with the own head in the place of the learner's."""
        initial = self.local.initial_state
        own = {name: (head or initial)[name] for name in self.own}
        return {**{name: model[name] for name in initial if name not in own}, **own}


class BargainingTaskBuilder(TaskBuilder):
    """See `TaskBuilder`."""

    def samples(self, terms: Terms, data: Data) -> int:
        """See `TaskBuilder.samples`."""
        if isinstance(data, EnvironmentSet):
            raise _no_samples(data)
        return super().samples(terms, data)

    def build(self, contract: Contract, resources: Resources) -> BargainingTask:
        """See `TaskBuilder.build`."""
        terms, data = bargaining_terms(contract.terms), resources.data
        if isinstance(data, EnvironmentSet):
            raise _no_samples(data)
        shared = resources.models[MODEL]
        outputs = task_kind(contract.task.kind).outputs(contract.task)
        model, own, task = shared, tuple[str, ...](), contract.task
        if data is not None and self._has_own_head(contract, resources):
            kind = kind_for(data)
            task = kind.of(data, contract.task.inputs.preprocessing)
            seed = resources.secret.seed("own head")
            model, own = with_own_head(shared, outputs, kind.outputs(task), seed)
        if terms.privacy is not None:
            require_private(model)
        local = supervised(
            model,
            data,
            task,
            terms,
            secret=resources.secret,
            device=resources.device,
            mechanism=resources.mechanism,
            rules=resources.rules,
            training=resources.training,
        )
        if not own:
            return BargainingTask(local, local.layout, local.initial_state, local.parameters, own)
        state = {name: tensor.cpu().clone() for name, tensor in Crossing.of(shared).state(shared).items()}
        parameters = tuple(name for name, each in shared.named_parameters() if each.requires_grad)
        return BargainingTask(local, Layout.of(state), state, parameters, own)

    def try_out(self, contract: Contract, task: BargainingTask) -> None:
        """See `TaskBuilder.try_out`."""
        task.local.try_out(bargaining_terms(contract.terms).local_optimizer)

    def _has_own_head(self, contract: Contract, resources: Resources) -> bool:
        if resources.party not in contract.acceptors:
            return False
        if isinstance(resources.settings, Settings) and resources.settings.head == "own":
            return True
        kind, wanted = kind_for(resources.data), contract.task
        if kind.name != wanted.kind:
            return True
        own = kind.of(resources.data, wanted.inputs.preprocessing)
        # Classes in another order, or numbers of another unit, would go through the learner's head as others than they are.
        meant = with_meaning(own, meaning_of(resources.data))
        return not kind.agree(own, wanted) or any(differences(resources.party, meant, wanted, frozenset({"outputs"})))


TASK = BargainingTaskBuilder()


def with_own_head(shared: nn.Module, outputs: int, own_outputs: int, seed: int) -> tuple[nn.Module, tuple[str, ...]]:
    """A model with another last layer, and the names of that layer's parameters.

    Args:
        shared: The model; it stays as it is.
        outputs: Outputs of its last layer.
        own_outputs: Outputs of the new one.
        seed: Decides its weights.

    Raises:
        InvalidValue: The model's last layer is neither fully connected nor a convolution, with so many outputs.
    """
    layers = [(name, each) for name, each in shared.named_modules() if isinstance(each, _Layer)]
    if not layers or not layers[-1][0] or len(layers[-1][1].weight) != outputs:
        raise InvalidValue(
            "the session's model has no head that another can take the place of",
            expected=f"a last layer that is fully connected or a convolution, with {outputs} outputs",
            received=type(shared).__name__,
            action="use such a model, or samples for the learner's task",
        )
    name, last = layers[-1]
    model = copy.deepcopy(shared)
    with seeded(seed):
        model.set_submodule(name, _with_outputs(last, own_outputs))
    return model, tuple(each for each, _ in model.named_parameters() if each.startswith(f"{name}."))


def _with_outputs(layer: _Layer, outputs: int) -> nn.Module:
    """Another such layer, with so many outputs and weights of its own."""
    made = copy.deepcopy(layer)
    setattr(made, "out_features" if isinstance(layer, nn.Linear) else "out_channels", outputs)
    for name, each in layer.named_parameters():
        setattr(made, name, nn.Parameter(each.new_empty(outputs, *each.shape[1:])))
    made.reset_parameters()
    return made


def bargaining_terms(terms: Terms) -> NashBargainingTerms:
    """Terms that are this protocol's.

    Raises:
        MalformedMessage: They are another's.
    """
    if not isinstance(terms, NashBargainingTerms):
        raise MalformedMessage(
            "the terms are another protocol's", expected="nash_bargaining", received=type(terms).__name__
        )
    return terms


def disk_space(contract: Contract, own: Membership, peer: Membership, task: BargainingTask) -> int:  # noqa: ARG001
    """Most that a party keeps at a time.

    Models of two rounds, a gradient, or one of each provider, a head, and two states of a leak guard, one of which takes the
    other's place.
    """
    terms = bargaining_terms(contract.terms)
    draws = terms.local_steps * terms.batch_size
    kept = 2 * task.guard_space(draws) if task.is_guarded else 0
    gradients = len(contract.acceptors) + 1 if own.party == contract.initiator else 2
    return 4 * task.layout.size + gradients * task.gradient_layout.size + kept


def training_plan(contract: Contract, own: Membership, settings: Any) -> TrainingPlan | None:  # noqa: ARG001
    """What a party trains between two gradients."""
    terms = bargaining_terms(contract.terms)
    if not own.samples:
        return None
    steps = terms.local_steps
    return TrainingPlan(
        terms.batch_size,
        steps,
        steps,
        "sgd",
        terms.local_learning_rate,
        is_private=terms.privacy is not None,
        steps_term="local_steps",
    )


def private_training(contract: Contract, own: Membership, peers: Sequence[Membership]) -> PrivateTraining | None:  # noqa: ARG001
    """What of a party's training noise covers: all steps of all rounds, also of those that it may miss.

    A learner makes them twice, once to bargain and once to judge by.
    """
    terms = bargaining_terms(contract.terms)
    if terms.privacy is None or not own.samples:
        return None
    steps = terms.local_steps * contract.rounds * (2 if own.party == contract.initiator else 1)
    return PrivateTraining(terms.privacy, sampling_rate(own.samples, terms.batch_size), steps)


def _no_samples(environments: EnvironmentSet) -> TaskMismatch:
    return TaskMismatch(
        "Nash bargaining is for samples",
        expected="[data] with samples",
        received=environments.environment.name,
        action="use samples, or a protocol that trains policies",
    )
