"""What the figures share: m, e and r of a seed, trained in one place, and what they say of test samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from comity.data import Dataset, load_data
from comity.data.config import DataConfig
from comity.experiments.datasets import Samples, normalization, title
from comity.experiments.reproduction import ExperimentContext
from comity.models import build
from comity.models.split import WithFeatures
from comity.protocols.learning_to_help.algorithm import rejector_scores
from comity.protocols.learning_to_help.evaluation import Evaluation, evaluate
from comity.protocols.learning_to_help.features import Quantization
from comity.protocols.learning_to_help.training import (
    Costs,
    Fitting,
    fit_rejector,
    fit_server,
    held_out_correct,
    outputs,
)
from comity.randomness import derive, generator
from comity.training import Secret, choose_device

CALIBRATION, CLIENT = 0.1, 0.3
"""Shares of the samples: to calibrate a reject rate on, and for the client's model; the others are the server's."""


@dataclass(frozen=True)
class Pair:
    """A client and a server.

    Attributes:
        samples: All of them; each party's are a share.
        seeds: One run each.
        local: Name of m.
        features: Name of the layer of m whose input e and r take.
        server: Name of e.
        server_size: Height and width to which e enlarges its input; 0 where it takes it as it is.
        hidden: Its width, of an MLP.
        judge: Name of r; of an MLP, 64 units wide.
        local_epochs: Passes over the client's samples.
        epochs: Passes over the server's samples, for e and r alike.
        batch_size: Samples a step.
        learning_rate: Of all three, at the first step.
        missing: A class that m does not see; None where it sees all.
        share: Share of the client's samples that it has.
    """

    samples: Samples
    seeds: tuple[int, ...] = (0, 1, 2)
    local: str = "lenet5"
    features: str = "3"
    server: str = "mlp"
    server_size: int = 0
    hidden: int = 256
    judge: str = "mlp"
    local_epochs: int = 10
    epochs: int = 15
    batch_size: int = 32
    learning_rate: float = 3e-3
    missing: int | None = 9
    share: float = 1.0

    @property
    def measured_on(self) -> tuple[str, ...]:
        """The data, as people call them."""
        return (title(self.samples.name),)

    def fitting(self, epochs: int, weight_decay: float) -> Fitting:
        """How a model is trained."""
        return Fitting(epochs, self.batch_size, self.learning_rate, weight_decay)


@dataclass(frozen=True)
class Part:
    """Samples, and what m says of them; the features alone are on the device that trains.

    Attributes:
        inputs: As they are stored.
        labels: The classes.
        logits: What m says.
        features: As queries carry them.
    """

    inputs: Tensor
    labels: Tensor
    logits: Tensor
    features: Tensor

    @property
    def local(self) -> Tensor:
        """The class that m says."""
        return self.logits.argmax(dim=1)


@dataclass(frozen=True)
class Trained:
    """A client's m and a server's e.

    Attributes:
        pair: What they were made by.
        seed: Of everything.
        server: The server's samples.
        calibration: Samples that neither model saw.
        test: Samples to test on.
        answers: What e says of the server's samples, of calibration's and of test samples.
        held_out: Whether an e that did not see them is right on the server's samples.
    """

    pair: Pair
    seed: int
    server: Part
    calibration: Part
    test: Part
    answers: Mapping[str, Tensor]
    held_out: Tensor

    @property
    def secret(self) -> Secret:
        """What batches are drawn from."""
        return Secret(b"lab", str(self.seed))

    @property
    def fitting(self) -> Fitting:
        """How e is trained."""
        return self.pair.fitting(self.pair.epochs, 1e-4)

    @property
    def fitting_judge(self) -> Fitting:
        """How r is trained."""
        return self.pair.fitting(self.pair.epochs, 1e-2)

    def classifier(self, hidden: int | None = None) -> nn.Module:
        """E with its initial weights."""
        features, size = self.server.features, self.pair.server_size
        shape = tuple(features.shape[1:])
        made = self._built(self.pair.server, (shape[0], size, size) if size else shape, hidden or self.pair.hidden)
        return nn.Sequential(nn.Upsample((size, size), mode="bilinear"), made) if size else made

    def judge(self) -> nn.Module:
        """R with its initial weights."""
        return self._built(self.pair.judge, tuple(self.server.features.shape[1:]), 64, outputs=2)

    def _built(self, name: str, shape: tuple[int, ...], hidden: int, outputs: int | None = None) -> nn.Module:
        options = {"hidden": hidden} if name == "mlp" else {}
        outputs = outputs or self.server.logits.shape[1]
        model = build(name, input_shape=shape, outputs=outputs, options=options, seed=self.seed)
        return model.to(self.server.features.device)

    def rejector(self, costs: Costs) -> nn.Module:
        """R for some costs."""
        own, device = self.server, self.server.features.device
        kept = (own.features, (own.local == own.labels).to(device), self.held_out.to(device))
        return fit_rejector(self.judge(), *kept, costs=costs, fitting=self.fitting_judge, secret=self.secret)

    def evaluated(self, remote: Tensor, costs: Costs, answers: Tensor | None = None) -> Evaluation:
        """What decisions on the test samples are worth."""
        said = self.answers["test"] if answers is None else answers
        test = self.test
        return evaluate(remote, test.local, said.argmax(dim=1), test.labels, costs, missing_class=self.pair.missing)


def trained(pair: Pair, seed: int, context: ExperimentContext) -> Trained:
    """A seed's m and e; trained once for all figures."""
    made: Any = context.once(_train, _Run(pair, seed))
    found: Trained = made["trained"]
    return found


@dataclass(frozen=True)
class _Run:
    pair: Pair
    seed: int


def _train(run: _Run, context: ExperimentContext) -> dict[str, Any]:
    pair, seed = run.pair, run.seed
    context.say(f"  m and e, seed {seed}")
    section = context.datasets.section(pair.samples, seed)
    splits = load_data(DataConfig.model_validate(section))
    mean = normalization(pair.samples.name)
    secret = Secret(b"lab", str(seed))

    def prepared(data: Dataset) -> tuple[Tensor, Tensor]:
        return data.prepare(data.all_inputs, mean["mean"], mean["std"]), data.labels

    inputs, labels = prepared(splits.train)
    order = torch.randperm(len(labels), generator=generator(derive(seed, "parties")))
    ends = [round(CALIBRATION * len(order)), round((CALIBRATION + CLIENT) * len(order))]
    calibration, client, server = order[: ends[0]], order[ends[0] : ends[1]], order[ends[1] :]
    client = client[: round(pair.share * len(client))]
    if pair.missing is not None:
        client = client[labels[client] != pair.missing]
    classes = splits.train.outputs
    local = build(pair.local, input_shape=tuple(inputs.shape[1:]), outputs=classes, options={}, seed=seed)
    device = choose_device()
    fitting = pair.fitting(pair.local_epochs, 1e-4)
    fit_server(local.to(device), inputs[client].to(device), labels[client].to(device), fitting, secret, 1000)
    mapped = WithFeatures(local, pair.features)
    quantization = Quantization.of(_mapped(mapped, inputs[client], device)[1])

    def part(data: tuple[Tensor, Tensor], stored: Tensor) -> Part:
        logits, features = _mapped(mapped, data[0], device)
        return Part(stored, data[1], logits.cpu(), quantization.decode(quantization.encode(features)))

    parts = {
        "server": part((inputs[server], labels[server]), torch.empty(0)),
        "calibration": part((inputs[calibration], labels[calibration]), torch.empty(0)),
    }
    tested = splits.split("test")
    parts["test"] = part(prepared(tested), tested.all_inputs)
    made = Trained(pair, seed, parts["server"], parts["calibration"], parts["test"], {}, torch.empty(0))
    own = made.server
    labelled = own.features, own.labels.to(device)
    held_out = held_out_correct(made.classifier, *labelled, made.fitting, secret, folds=2)
    classifier = fit_server(made.classifier(), *labelled, made.fitting, secret, 0)
    answers = {name: said(classifier, each) for name, each in parts.items()}
    return {"trained": Trained(pair, seed, own, made.calibration, made.test, answers, held_out.cpu())}


@torch.inference_mode()
def _mapped(mapped: WithFeatures, inputs: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    parts = [mapped(block.to(device)) for block in inputs.split(1024)]
    return torch.cat([each[0] for each in parts]).clone(), torch.cat([each[1] for each in parts]).clone()


def said(model: nn.Module, part: Part) -> Tensor:
    """What e or r says of samples."""
    return outputs(model, part.features).cpu()


def scores(rejector: nn.Module, part: Part) -> Tensor:
    """r_2 − r_1 of samples."""
    return rejector_scores(said(rejector, part)).clone()


def curve(found: Trained, ranking: Tensor, costs: Costs, points: int = 21) -> list[dict[str, float]]:
    """Accuracy and risk where so many of the test samples are asked about, those with the greatest scores first."""
    order = ranking.argsort(descending=True)
    lines = []
    for step in range(points):
        remote = torch.zeros_like(ranking, dtype=torch.bool)
        remote[order[: round(step * len(order) / (points - 1))]] = True
        lines.append(shown(found.evaluated(remote, costs)))
    return lines


def shown(found: Evaluation) -> dict[str, float]:
    """An operating point: the risk beside the accuracy."""
    return {
        "reject_rate": float(found.reject_rate["all"] or 0),
        "accuracy": float(found.joint["all"] or 0),
        "risk": found.risk,
        "risk_never_ask": found.risk_never_ask,
        "risk_always_ask": found.risk_always_ask,
    }


def mean(runs: Sequence[Any]) -> Any:
    """The mean over seeds of what has numbers at its ends."""
    first = runs[0]
    if isinstance(first, Mapping):
        return {name: mean([each[name] for each in runs]) for name in first}
    if isinstance(first, list):
        return [mean(list(each)) for each in zip(*runs, strict=True)]
    numbers = [each for each in runs if each is not None]
    if len(set(numbers)) < 2:
        # What is the same for all, such as a cost, is not rounded.
        return first
    return fmean(numbers)
