"""What a party brings to learning to help: its model or its classifier, and samples."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from comity.contract import Contract, ModelSpec
from comity.data import Dataset, SplitName, Splits
from comity.errors import InvalidValue, MalformedMessage, TaskMismatch
from comity.models.split import WithFeatures
from comity.privacy.leak_guard import Collector, LeakGuard, Rules
from comity.privacy.leak_guard.verdict import Verdict
from comity.protocol.implementation import Resources
from comity.protocols.learning_to_help.features import Quantization, feature_shape, require_made_by_weights
from comity.protocols.learning_to_help.settings import Settings
from comity.protocols.learning_to_help.terms import LearningToHelpTerms
from comity.protocols.learning_to_help.training import (
    Costs,
    Fitting,
    OwnRejector,
    Training,
    fit_server,
    held_out_correct,
    outputs,
    predictions,
    rejector_training,
    server_training,
)
from comity.randomness import generator, seeded
from comity.tasks import ModelSize, build_model
from comity.tensors import Layout, State
from comity.training import SampleStream, Secret, choose_device
from comity.training.draws import require_seeded

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
        initial: The models' weights as every session begins, by what the protocol calls them.
    """

    def __init__(self, contract: Contract, resources: Resources) -> None:
        self._terms = helping_terms(contract)
        self._contract = contract
        self._own_models, self._weights = resources.own_models, resources.weights
        self._device = choose_device(resources.device)
        self._models = {name: model.to(self._device) for name, model in resources.models.items()}
        self._data = resources.data if isinstance(resources.data, Splits) else None
        self._secret: Secret = resources.secret
        self._rules: Rules | None = resources.rules
        self._mapped = WithFeatures(self._models[LOCAL], self._terms.features)
        self.initial: dict[str, State] = {name: _copied(model) for name, model in self._models.items()}
        is_client = resources.party == contract.initiator
        self._legacy = self._legacy_model(is_client=is_client)
        if is_client and not (isinstance(resources.settings, Settings) and resources.settings.raw_inputs):
            require_made_by_weights(self._models[LOCAL], self._terms.features, contract.task.inputs.shape)
        self.layouts = {name: Layout.of(model.state_dict()) for name, model in self._models.items()}
        self.feature_shape = feature_shape(self._models[LOCAL], self._terms.features, contract.task.inputs.shape)
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

    def model(self, name: str) -> nn.Module:
        """A model, with whatever weights were loaded last."""
        return self._models[name]

    def load(self, name: str, state: State) -> None:
        """Sets a model's weights."""
        self._models[name].load_state_dict(state)
        self._models[name].eval()

    def quantization(self) -> Quantization:
        """The range of the features of this party's training samples."""
        _, features = self.map(self.inputs("train"))
        return Quantization.of(features)

    def map(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """What m says of prepared inputs, and their features; in one pass, but for a legacy m."""
        self._models[LOCAL].eval()
        with torch.inference_mode():
            parts = [self._mapped(block) for block in inputs.split(_BLOCK)]
        features = torch.cat([each[1] for each in parts])
        if self._legacy is not None:
            return outputs(self._legacy, inputs), features
        return torch.cat([each[0] for each in parts]), features

    def judged(self, inputs: Tensor, said: Tensor, features: Tensor) -> Tensor:
        """What r goes by.

        Args:
            inputs: Prepared inputs.
            said: What m says of them.
            features: Their features, as they cross.
        """
        match self._terms.rejects_on:
            case "features":
                return features
            case "scores":
                return said
            case "inputs":
                return inputs

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

    def scores(self, judged: Tensor) -> Tensor:
        """What r says of what it goes by, `[batch, 2]`."""
        return outputs(self._models[REJECTOR], judged)

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
        inputs, labels, said, seen = self._seen("train", quantization)
        local_correct = said.argmax(dim=1) == labels
        correct = held_out_correct(self._new_server, seen, labels, self._fitting, self._secret, folds=self._terms.folds)
        server = fit_server(self._new_server(), seen, labels, self._fitting, self._secret, 0)
        rejector = self._models[REJECTOR]
        first, judged = _copied(rejector), self.judged(inputs, said, seen)
        guard = self._guard(rejector, judged)
        self._rejector_training(judged, local_correct, correct, guard).finish()
        if guard is None:
            return Learned(_copied(server), _copied(rejector), None)
        released = guard.release_model(_copied(rejector), first)
        return Learned(_copied(server), dict(released.state), released.verdict)

    def server_training(self, local: State, quantization: Quantization) -> Training:
        """The training of e on this party's samples, for a client's model; what it goes on from is `restore`d."""
        self.load(LOCAL, local)
        _, labels, _, seen = self._seen("train", quantization)
        return server_training(self._new_server(), seen, labels, self._fitting, self._secret, 0)

    def guard_of(self, training: Training, kept: State | None = None) -> LeakGuard | None:
        """Who judges what of a training of e leaves; None where nobody does.

        Args:
            training: The training, which it looks at from now on.
            kept: What a guard kept before.
        """
        training.guard = self._guard(training.model, training.inputs, kept)
        return training.guard

    def guard_space(self, samples: int) -> int:
        """Most bytes that a guard of e keeps between two copies.

        Args:
            samples: Samples that e is trained on.
        """
        if self._rules is None:
            return 0
        # Of a model of its own: hooks stay on what a collector looks at.
        return Collector(self._new_server()).space(samples) + self.layouts[SERVER].size

    def own_rejector(self, quantization: Quantization) -> OwnRejector:
        """The training of r on this party's own samples: those of the split `validation` where there is one, which m did not see."""
        split: SplitName = "train" if self.labels("validation") is None else "validation"
        inputs, labels, said, seen = self._seen(split, quantization)
        correct = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
        judged = self.judged(inputs, said, seen)
        training = self._rejector_training(judged, said.argmax(dim=1) == labels, correct, None)
        steps = (seen * 255).round().to(torch.uint8).cpu()
        return OwnRejector(training, steps, seen, labels, correct)

    def classes_by(self, server: State, seen: Tensor) -> Tensor:
        """The classes that a copy of e says."""
        self.load(SERVER, server)
        return predictions(self._models[SERVER], seen)

    def try_out(self) -> None:
        """Passes a few samples through all three models, by way of 8-bit features.

        Raises:
            InvalidValue: The classifier does not give a score for each class, or the rejector two; or one that is trained
                draws by a generator that nothing seeds.
        """
        labels = self.labels("train")
        if labels is None:
            return
        inputs = self.inputs("train", torch.arange(min(2, len(labels))))
        said, features = self.map(inputs)
        seen = Quantization.decode(Quantization.of(features).encode(features))
        judged = self.judged(inputs, said, seen)
        for name, given, wanted in (
            (LOCAL, said, self.classes),
            (SERVER, self.answers(seen), self.classes),
            (REJECTOR, self.scores(judged), 2),
        ):
            if name != LOCAL or not self._contract.models[LOCAL].initial:
                self._require_seeded(name, {LOCAL: inputs, SERVER: seen, REJECTOR: judged}[name])
            if given.shape != (len(seen), wanted):
                raise InvalidValue(
                    f"session.models.{name} cannot be used",
                    expected=f"{wanted} numbers for each input",
                    received=f"shape {list(given.shape[1:])}",
                    action="name a model that ends in one fully connected layer",
                )

    def _require_seeded(self, name: str, given: Tensor) -> None:
        """Checks what a model draws in training; it is left as it was."""
        model = self._models[name]
        before = _copied(model)
        model.train()
        # Two, of which a layer that normalizes can tell a variance.
        some = given[[0, -1]]
        with torch.no_grad(), seeded(0, given.device):
            require_seeded(lambda: model(some))
        self.load(name, before)

    def _guard(self, model: nn.Module, inputs: Tensor, kept: State | None = None) -> LeakGuard | None:
        if self._rules is None:
            return None
        collector = Collector(model.eval())
        some = SampleStream(len(inputs), _MEASURED, self._secret, purpose="mean inputs").batch(0)
        return LeakGuard(collector, self._rules, collector.means(lambda: model(inputs[some])), kept)

    @property
    def _fitting(self) -> Fitting:
        terms = self._terms
        return Fitting(terms.server_epochs, terms.batch_size, terms.learning_rate, terms.server_weight_decay)

    def _rejector_training(
        self, judged: Tensor, local_correct: Tensor, server_correct: Tensor, guard: LeakGuard | None
    ) -> Training:
        terms = self._terms
        return rejector_training(
            self._models[REJECTOR],
            judged,
            local_correct,
            server_correct,
            costs=Costs(terms.c_e, terms.c_1, terms.form),
            fitting=Fitting(terms.rejector_epochs, terms.batch_size, terms.learning_rate, terms.rejector_weight_decay),
            secret=self._secret,
            guard=guard,
        )

    def _seen(self, name: SplitName, quantization: Quantization) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of a split: prepared inputs, labels, what m says, and the features as models take them."""
        inputs, labels = self._samples(self._some(name))
        said, features = self.map(inputs)
        # Tensors of an inference pass cannot be trained on.
        return inputs, labels, said.clone(), quantization.decode(quantization.encode(features)).clone()

    def _legacy_model(self, *, is_client: bool) -> nn.Module | None:
        """A model that answers in place of the contract's, at whoever has to have it."""
        terms = self._terms
        if not terms.needs_legacy(is_client=is_client):
            return None
        if terms.legacy not in self._own_models:
            raise TaskMismatch(
                f"the model {terms.legacy} is not here",
                expected=f"{terms.legacy} in [models] of node.toml",
                received=", ".join(self._own_models) or "none",
                action="give it there, or agree on session.terms.training client or predictions: code never crosses",
            )
        contract = self._contract
        spec = ModelSpec(name=terms.legacy)
        return build_model(spec, contract.task, contract.seed, self._own_models).to(self._device).eval()

    def _new_server(self) -> nn.Module:
        contract = self._contract
        size = ModelSize(self.feature_shape, self.classes)
        spec = contract.models[SERVER]
        own, weights = self._own_models, self._weights
        return build_model(spec, contract.task, contract.seed, own, weights, size=size).to(self._device)

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


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
