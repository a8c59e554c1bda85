"""What a party brings to learning to help: its model or its classifier, and samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from comity.contract import Contract, ModelSpec, TaskSpec, Terms
from comity.data import Dataset, SplitName, Splits
from comity.errors import InvalidValue, MalformedMessage, TaskMismatch
from comity.models import OwnModels
from comity.models.split import WithFeatures
from comity.privacy.leak_guard import Collector, LeakGuard, Rules
from comity.privacy.leak_guard.verdict import Verdict
from comity.protocol.implementation import Resources, TaskBuilder
from comity.protocols.learning_to_help.features import Quantization
from comity.protocols.learning_to_help.terms import LearningToHelpTerms
from comity.protocols.learning_to_help.training import (
    Costs,
    Fitting,
    fit_rejector,
    fit_server,
    held_out_correct,
    outputs,
)
from comity.randomness import generator
from comity.tasks import ModelSize, build_model, model_outline
from comity.tensors import Layout, State
from comity.training import SampleStream, Secret, choose_device

LOCAL, SERVER, REJECTOR = "local", "server", "rejector"
"""What the protocol calls its models: m, e and r."""

_BLOCK = 1024
_MEASURED = 256


def helping_terms(contract: Contract) -> LearningToHelpTerms:
    """A contract's terms.

    Raises:
        MalformedMessage: They are another protocol's.
    """
    if not isinstance(contract.terms, LearningToHelpTerms):
        raise MalformedMessage(
            "the terms are another protocol's", expected="learning_to_help", received=contract.protocol
        )
    return contract.terms


@dataclass(frozen=True)
class Learned:
    """What a server made for a client.

    Attributes:
        server: The classifier, which stays.
        rejector: The rejector as it is sent.
        verdict: What the leak guard says of that; None where nobody guards.
    """

    server: State
    rejector: State
    verdict: Verdict | None


class HelpTask:
    """A party's models and samples.

    Args:
        contract: The contract.
        resources: What the party brings.

    Attributes:
        layouts: Those of the models, by what the protocol calls them.
        feature_shape: Shape of one input's features.
    """

    def __init__(self, contract: Contract, resources: Resources) -> None:
        self._terms = helping_terms(contract)
        self._contract = contract
        self._own_models = resources.own_models
        self._device = choose_device(resources.device)
        self._models = {name: model.to(self._device) for name, model in resources.models.items()}
        self._data = resources.data if isinstance(resources.data, Splits) else None
        self._secret: Secret = resources.secret
        self._rules: Rules | None = resources.rules
        self._mapped = WithFeatures(self._models[LOCAL], self._terms.features)
        self.layouts = {name: Layout.of(model.state_dict()) for name, model in self._models.items()}
        self.feature_shape = _features_of(self._models[LOCAL], self._terms.features, contract.task.inputs.shape)
        self.classes = contract.task.heads[0].size

    @property
    def is_guarded(self) -> bool:
        """Whether a leak guard decides what of the rejector is sent."""
        return self._rules is not None

    @property
    def feature_size(self) -> int:
        """Features of one input, a byte each."""
        return int(torch.Size(self.feature_shape).numel())

    @cached_property
    def local(self) -> State:
        """m: as the contract has it where it names weights, else trained on this party's own samples."""
        model = self._models[LOCAL]
        if not self._contract.models[LOCAL].initial:
            inputs, labels = self._samples(self._some("train"))
            terms = self._terms
            fitting = Fitting(terms.local_epochs, terms.batch_size, terms.learning_rate, terms.server_weight_decay)
            fit_server(model, inputs, labels, fitting, self._secret, 0)
        return _copied(model)

    def load(self, name: str, state: State) -> None:
        """Sets a model's weights."""
        self._models[name].load_state_dict(state)
        self._models[name].eval()

    def quantization(self) -> Quantization:
        """The range of the features of this party's training samples."""
        _, features = self.map(self.inputs("train"))
        return Quantization.of(features)

    def map(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """What m says of prepared inputs, and their features, in one pass."""
        self._models[LOCAL].eval()
        with torch.inference_mode():
            parts = [self._mapped(block) for block in inputs.split(_BLOCK)]
        return torch.cat([each[0] for each in parts]), torch.cat([each[1] for each in parts])

    def labels(self, name: SplitName) -> Tensor | None:
        """Labels of one of this party's splits, on the CPU; None where it has none, or no sample in it."""
        found = None if self._data is None else self._data.find(name)
        return None if found is None or not len(found) else found.labels

    def inputs(self, name: SplitName, places: Tensor | None = None) -> Tensor:
        """Prepared inputs of one of this party's splits.

        Args:
            name: The split.
            places: Which of its samples, on the CPU; None for all.

        Raises:
            InvalidValue: There is none.
        """
        samples = self._some(name)
        return self._samples(samples if places is None else samples.select(places))[0]

    def prepared(self, stored: Tensor) -> Tensor:
        """Inputs as applications give them, which is as data sets store them, as the models take them."""
        spec = self._contract.task.inputs
        scaled = stored.to(self._device, torch.float32) * (1.0 if spec.scale is None else spec.scale)
        if not spec.preprocessing.mean:
            return scaled
        over = (-1,) + (1,) * (scaled.ndim - 2)
        mean, std = (
            torch.tensor(each, device=self._device).view(over)
            for each in (spec.preprocessing.mean, spec.preprocessing.std)
        )
        return (scaled - mean) / std

    def chance(self, round: int) -> torch.Generator:
        """What ties of a round are broken by: this party's own randomness."""
        return generator(self._secret.seed("ties", round))

    def scores(self, features: Tensor) -> Tensor:
        """What r says of 8-bit features as models take them, `[batch, 2]`."""
        return outputs(self._models[REJECTOR], features)

    def answers(self, features: Tensor) -> Tensor:
        """What e says of 8-bit features as models take them, `[batch, classes]`."""
        return outputs(self._models[SERVER], features.to(self._device)).cpu()

    def learn(self, local: State, quantization: Quantization) -> Learned:
        """Trains e and r on this party's samples for a client's model.

        Raises:
            InvalidValue: There are no samples, or fewer than folds.
            TrainingDiverged: A loss is not finite.
        """
        self.load(LOCAL, local)
        inputs, labels = self._samples(self._some("train"))
        said, features = self.map(inputs)
        # Tensors of an inference pass cannot be trained on.
        seen = quantization.decode(quantization.encode(features)).clone()
        local_correct = (said.argmax(dim=1) == labels).clone()
        terms = self._terms
        fitting = Fitting(terms.server_epochs, terms.batch_size, terms.learning_rate, terms.server_weight_decay)
        correct = held_out_correct(self._new_server, seen, labels, fitting, self._secret, folds=terms.folds)
        server = fit_server(self._new_server(), seen, labels, fitting, self._secret, 0)
        rejector = self._models[REJECTOR]
        first = _copied(rejector)
        guard = self._guard(rejector, seen)
        fit_rejector(
            rejector,
            seen,
            local_correct,
            correct,
            costs=Costs(terms.c_e, terms.c_1, terms.form),
            fitting=Fitting(terms.rejector_epochs, terms.batch_size, terms.learning_rate, terms.rejector_weight_decay),
            secret=self._secret,
            guard=guard,
        )
        if guard is None:
            return Learned(_copied(server), _copied(rejector), None)
        released = guard.release_model(_copied(rejector), first)
        return Learned(_copied(server), dict(released.state), released.verdict)

    def try_out(self) -> None:
        """Passes a few samples through all three models, by way of 8-bit features.

        Raises:
            InvalidValue: The classifier does not give a score for each class, or the rejector two.
        """
        labels = self.labels("train")
        if labels is None:
            return
        said, features = self.map(self.inputs("train", torch.arange(min(2, len(labels)))))
        seen = Quantization.decode(Quantization.of(features).encode(features))
        for name, given, wanted in (
            (LOCAL, said, self.classes),
            (SERVER, self.answers(seen), self.classes),
            (REJECTOR, self.scores(seen), 2),
        ):
            if given.shape != (len(seen), wanted):
                raise InvalidValue(
                    f"session.models.{name} cannot be used",
                    expected=f"{wanted} numbers for each input",
                    received=f"shape {list(given.shape[1:])}",
                    action="name a model that ends in one fully connected layer",
                )

    def _guard(self, rejector: nn.Module, features: Tensor) -> LeakGuard | None:
        if self._rules is None:
            return None
        collector = Collector(rejector)
        some = SampleStream(len(features), _MEASURED, self._secret, purpose="mean inputs").batch(0)
        return LeakGuard(collector, self._rules, collector.means(lambda: rejector(features[some])))

    def _new_server(self) -> nn.Module:
        contract = self._contract
        size = ModelSize(self.feature_shape, self.classes)
        spec = contract.models[SERVER]
        return build_model(spec, contract.task, contract.seed, self._own_models, size=size).to(self._device)

    def _some(self, name: SplitName) -> Dataset:
        found = None if self._data is None else self._data.find(name)
        if found is None or not len(found):
            raise InvalidValue(
                f"learning to help needs samples of the split {name}",
                expected="1 or more",
                received="none",
                action="configure [data] in node.toml",
            )
        return found

    def _samples(self, data: Dataset) -> tuple[Tensor, Tensor]:
        preprocessing = self._contract.task.inputs.preprocessing
        mean, std = (preprocessing.mean, preprocessing.std) if preprocessing is not None else ((), ())
        inputs = data.prepare(data.all_inputs, mean, std)
        return inputs.to(self._device), data.labels.to(self._device)


class HelpTaskBuilder(TaskBuilder):
    """See `TaskBuilder`."""

    def sizes(
        self, terms: Terms, task: TaskSpec, models: Mapping[str, ModelSpec], own: OwnModels
    ) -> Mapping[str, ModelSize]:
        """See `TaskBuilder.sizes`: e and r go by the features of m."""
        if not isinstance(terms, LearningToHelpTerms):
            raise MalformedMessage("the terms are another protocol's", expected="learning_to_help", received="others")
        local = model_outline(models[LOCAL], task, own) or build_model(models[LOCAL], task, 0, own)
        shape = _features_of(local, terms.features, task.inputs.shape)
        return {SERVER: ModelSize(shape, task.heads[0].size), REJECTOR: ModelSize(shape, 2)}

    def build(self, contract: Contract, resources: Resources) -> HelpTask:
        """See `TaskBuilder.build`."""
        if not isinstance(resources.data, Splits):
            raise TaskMismatch(
                "learning to help is for samples",
                expected="[data] with samples",
                received="none",
                action="configure [data] in node.toml",
            )
        return HelpTask(contract, resources)

    def try_out(self, contract: Contract, task: HelpTask) -> None:
        """See `TaskBuilder.try_out`."""
        del contract
        task.try_out()


TASK = HelpTaskBuilder()


def _features_of(local: nn.Module, layer: str, input_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of one input's features."""
    mapped = WithFeatures(local, layer)
    like = next(iter(local.parameters()))
    was_training = local.training
    local.eval()
    with torch.no_grad():
        _, features = mapped(torch.zeros(1, *input_shape, dtype=like.dtype, device=like.device))
    local.train(was_training)
    return tuple(features.shape[1:])


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
