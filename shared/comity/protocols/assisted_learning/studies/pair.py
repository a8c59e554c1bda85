"""The settings of a learner and a provider in experiments, and the script that they make."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from comity.experiments.datasets import Datasets, Samples, SetName, normalization, title
from comity.node.sessions.script import Script
from comity.node.validation import validated


@dataclass(frozen=True)
class OwnModel:
    """A model of both parties' own, of which the session's is taught (A.2).

    Attributes:
        model: It.
        hidden: Option of the model `mlp`; 0 for models without it.
        epochs: In which a picked model teaches it.
    """

    model: str
    hidden: int = 0
    epochs: int = 60


@dataclass(frozen=True)
class Pair:
    """A learner and a provider.

    Attributes:
        data: Their data set.
        model: Their model.
        hidden: Option of the model `mlp`; 0 for models without it.
        norm: Option of the model `resnet18-cifar`; empty for the model's own.
        own: A model of their own, the session's being what they exchange; None for none. Distillations have the session's
            optimiser and learning rate.
        gamma: γ of the learner's data (section 4.2).
        split: `imbalance` as in section 4.2; `categories` where the provider lacks the learner's major class (A.9.1);
            `one-class` where the learner holds a single class, as many samples as the provider (A.1.1); `half-class` where
            it holds a fifth as many, half of them of a single class (A.2.2).
        provider_data: The provider's data set where it is another (A.9.2); empty for the same.
        per_class: Samples of each class to share out; None for all.
        test_per_class: Test samples of each class; None for all.
        rounds: R.
        iterations: T + T'.
        period: I.
        optimizer: Of both.
        learning_rate: η.
        batch_size: Samples in a training step.
        epsilon: ε of every training step, with δ = 1e-5 (A.4); None for training without noise.
        seed: Of shares, weights and everything else.
    """

    data: SetName
    model: str
    hidden: int = 0
    norm: str = ""
    own: OwnModel | None = None
    gamma: float = 0.3
    split: Literal["imbalance", "categories", "one-class", "half-class"] = "imbalance"
    provider_data: SetName | Literal[""] = ""
    per_class: int | None = None
    test_per_class: int | None = None
    rounds: int = 10
    iterations: int = 2000
    period: int = 50
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    batch_size: int = 256
    epsilon: float | None = None
    seed: int = 0

    @property
    def measured_on(self) -> tuple[str, ...]:
        """The data, as people call them."""
        return tuple(title(name) for name in (self.data, self.provider_data) if name)

    @property
    def without_exchange(self) -> Pair:
        """The same, training the model of their own where they have one."""
        if self.own is None:
            return self
        return replace(self, model=self.own.model, hidden=self.own.hidden, norm="", own=None)

    def script(self, datasets: Datasets) -> Script:
        """The session as a script.

        Raises:
            MissingFile: A data set is not there.
        """
        party: dict[str, Any] = {}
        for role, data in (("learner", self.data), ("provider", self.provider_data or self.data)):
            section = datasets.section(Samples(data, self.per_class, self.test_per_class), self.seed)
            party[role] = {
                "role": role,
                "secret": f"{role}-{self.seed}",
                "data": section | {"partition": self._share(role)},
            }
            if self.own is not None:
                own = {
                    "name": self.own.model,
                    "options": _options(self.own.hidden),
                    "optimizer": self.optimizer,
                    "learning_rate": self.learning_rate,
                    "to_own_epochs": self.own.epochs,
                }
                party[role]["protocols"] = {"assisted-learning": {"own_model": own}}
        terms: dict[str, Any] = {
            "optimizer": self.optimizer,
            "learning_rate": self.learning_rate,
            "batch_size": self.batch_size,
            "evaluation_batch_size": self.batch_size,
            "iterations": self.iterations,
            "sampling_period": self.period,
        }
        if self.epsilon is not None:
            terms["privacy"] = {"scope": "per_step", "epsilon": self.epsilon}
        session = {
            "protocol": "assisted_learning",
            "id": "reproduction",
            "acceptors": ["provider"],
            "rounds": self.rounds,
            "seed": self.seed,
            "model": {"name": self.model, "options": _options(self.hidden, self.norm)},
            "normalization": normalization(self.data),
            "terms": terms,
        }
        return validated(Script, {"session": session, "party": party}, "the experiment's script")

    def _share(self, role: str) -> dict[str, Any]:
        share: dict[str, Any] = {"share": role, "seed": self.seed}
        of_class = self.per_class or 5000
        if self.split == "one-class":
            # Half of a class is the learner's; the provider has as many, of all ten.
            each = of_class // 2
            return share | {"name": "dominated", "provider": each, "learner": each, "major": 1.0}
        if self.split == "half-class":
            # Half of every class is the provider's, and of one class the learner has the other.
            return share | {"name": "dominated", "provider": 5 * of_class, "learner": of_class, "major": 0.5}
        return share | {"name": "imbalance", "gamma": self.gamma, "without_major": self.split == "categories"}


def _options(hidden: int, norm: str = "") -> dict[str, Any]:
    return ({"hidden": hidden} if hidden else {}) | ({"norm": norm} if norm else {})
