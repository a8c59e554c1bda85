"""How the task model and the peer students are trained, section 3.2: at one place, on what one client has.

A step of the students is two: In-Class, on labelled samples with the task model as teacher, eq. (2); and Out-of-Class,
on any samples of the pool, labelled or not, protected or not, eq. (5), since what is learned of them stays here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from comity import interruption
from comity.errors import InvalidValue, TrainingDiverged
from comity.protocols.peer_study.algorithm import (
    consensus_split,
    discrepancy,
    in_class_loss,
    out_of_class_loss,
    pair,
)
from comity.protocols.peer_study.choices import IGNORED, Form
from comity.protocols.peer_study.pool import Pool
from comity.randomness import generator, seeded
from comity.training import SampleStream, Secret
from comity.training.network import take_one_number
from comity.training.optimizers import optimizer_state, restore_optimizer

Teacher = Callable[[Tensor], Tensor]
"""What the task model says of samples, in evaluation mode."""


@dataclass(frozen=True, slots=True)
class Fitting:
    """How models are fitted, by AdamW.

    Attributes:
        steps: Of one training; each has batches of its own.
        batch_size: Labelled samples a step.
        pool_batch_size: Samples of the pool in an Out-of-Class step.
        learning_rate: Of AdamW.
        weight_decay: Of AdamW.
    """

    steps: int = 60
    batch_size: int = 16
    pool_batch_size: int = 64
    learning_rate: float = 5e-3
    weight_decay: float = 1e-2


@dataclass(frozen=True, slots=True)
class Losses:
    """The students' losses; `alpha = 0` leaves the teacher out, `margin = 0` the Out-of-Class steps.

    Attributes:
        alpha: The teacher's weight in eq. (2).
        temperature: Tau in eq. (2).
        margin: Xi in eq. (5).
        form: Of eq. (5).
    """

    alpha: float = 0.1
    temperature: float = 4.0
    margin: float = 0.01
    form: Form = "printed"


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Samples that have been annotated.

    Attributes:
        indices: Where in the pool, each once.
        labels: What the annotators said, in the same order: a class each, or the class of each pixel.
    """

    indices: Int[Tensor, " n"]
    labels: Int[Tensor, "n ..."]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.indices)

    def also(self, indices: Int[Tensor, " m"], labels: Int[Tensor, "m ..."]) -> Labelled:
        """These, and others after them."""
        return Labelled(torch.cat([self.indices, indices]), torch.cat([self.labels, labels]))


def fit_task_model(
    model: nn.Module, pool: Pool, labelled: Labelled, fitting: Fitting, secret: Secret, *place: int
) -> None:
    """Trains the task model by eq. (1), the cross-entropy of the labels, where it stands; the optimiser starts anew.

    Args:
        model: The model; it is left in evaluation mode.
        pool: Where samples are read from.
        labelled: What is learned.
        fitting: How.
        secret: The randomness of who trains.
        place: What tells this training from others.

    Raises:
        InvalidValue: Nothing is labelled.
        TrainingDiverged: A loss is NaN or infinite.
    """
    _require_some(labelled)
    optimizer = _adamw(model, fitting)
    stream = SampleStream(len(labelled), fitting.batch_size, secret, *place, purpose="task model")
    with _training(model):
        for step in range(fitting.steps):
            interruption.point()
            batch = stream.batch(step)
            loss = label_loss(model(pool.read(labelled.indices[batch])), labelled.labels[batch])
            _descend(optimizer, loss, "the task model's loss")


@contextmanager
def _training(model: nn.Module) -> Iterator[None]:
    """A model in training mode, whose batches may be of one sample; afterwards it is in evaluation mode."""
    hooks = take_one_number(model)
    model.train()
    try:
        yield
    finally:
        model.eval()
        for each in hooks:
            each.remove()


def label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy of samples, eq. (1); of segmentation the mean over the pixels of a sample that count."""
    labels = labels.long()
    if labels.ndim == 1:
        return cross_entropy(logits, labels)
    each = cross_entropy(logits, labels, reduction="none", ignore_index=IGNORED).flatten(start_dim=1)
    counted = (labels != IGNORED).flatten(start_dim=1).sum(dim=1)
    return (each.sum(dim=1) / counted.clamp(min=1)).mean()


class PeerStudents(nn.Module):
    """P light students, trained together.

    Args:
        build: Makes one; each draws initial weights of its own.
        peers: P, 1 or more.
        seed: What the initial weights are drawn from.
        fitting: How they are fitted.
        losses: To what.

    Raises:
        InvalidValue: There is no student.
    """

    def __init__(
        self, build: Callable[[], nn.Module], peers: int, seed: int, fitting: Fitting, losses: Losses | None = None
    ) -> None:
        super().__init__()
        if peers < 1:
            raise InvalidValue("Peer students", expected="1 or more", received=peers)
        with seeded(seed):
            self._peers = nn.ModuleList([build() for _ in range(peers)])
        self._fitting = fitting
        self._losses = losses or Losses()
        # One for all their trainings: it goes on where the students do.
        self._optimizer = _adamw(self._peers, fitting)
        self.eval()

    def forward(self, inputs: Float[Tensor, "batch ..."]) -> Float[Tensor, "peers batch classes"]:
        """Logits of each peer."""
        return torch.stack([each(inputs) for each in self._peers])

    def state(self) -> dict[str, Tensor]:
        """Weights, and what the optimiser knows, as a flat state dict: what is needed to go on."""
        weights = {f"peers.{name}": tensor.cpu().clone() for name, tensor in self._peers.state_dict().items()}
        known = optimizer_state(self._optimizer)
        return weights | {f"optimizer.{name}": tensor.cpu().clone() for name, tensor in known.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Sets them to what `state` gave."""
        parts: dict[str, dict[str, Tensor]] = {"peers": {}, "optimizer": {}}
        for name, tensor in state.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        self._peers.load_state_dict(parts["peers"])
        restore_optimizer(self._optimizer, parts["optimizer"])

    def fit(self, teacher: Teacher, pool: Pool, labelled: Labelled, secret: Secret, *place: int) -> None:
        """Trains them, from where they are.

        Args:
            teacher: The task model, in evaluation mode; it learns nothing here.
            pool: All that the client has.
            labelled: What of it is annotated.
            secret: The client's randomness.
            place: What tells this training from others.

        Raises:
            InvalidValue: Nothing is labelled.
            TrainingDiverged: A loss is NaN or infinite.
        """
        _require_some(labelled)
        fitting = self._fitting
        known = SampleStream(len(labelled), fitting.batch_size, secret, *place, purpose="in-class")
        every = SampleStream(len(pool), fitting.pool_batch_size, secret, *place, purpose="out-of-class")
        draws = generator(secret.seed("pairs", *place))
        with _training(self):
            for step in range(fitting.steps):
                interruption.point()
                batch = known.batch(step)
                self._in_class(teacher, pool.read(labelled.indices[batch]), labelled.labels[batch])
                # One peer has nobody to differ from.
                if self._losses.margin > 0 and len(self._peers) > 1:
                    self._out_of_class(pool.read(every.batch(step)), draws)

    def _in_class(self, teacher: Teacher, inputs: Tensor, labels: Tensor) -> None:
        with torch.no_grad():
            told = teacher(inputs)
        losses = self._losses
        loss = in_class_loss(self(inputs), told, labels, losses.alpha, losses.temperature).mean()
        _descend(self._optimizer, loss, "the In-Class loss")

    def _out_of_class(self, inputs: Tensor, draws: torch.Generator) -> None:
        logits = self(inputs)
        dissenting, agreeing = pair(consensus_split(logits.detach()), draws)
        if not len(dissenting):
            return
        apart = discrepancy(logits)
        loss = out_of_class_loss(apart[dissenting], apart[agreeing], self._losses.margin, form=self._losses.form)
        _descend(self._optimizer, loss.mean(), "the Out-of-Class loss")


def _adamw(model: nn.Module, fitting: Fitting) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=fitting.learning_rate, weight_decay=fitting.weight_decay)


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor, what: str) -> None:
    if not bool(torch.isfinite(loss)):
        raise TrainingDiverged(
            what, expected="a finite value", received=float(loss.detach()), action="lower the learning rate"
        )
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _require_some(labelled: Labelled) -> None:
    if not len(labelled):
        raise InvalidValue("Labelled samples to learn from", expected="1 or more", received=0)
