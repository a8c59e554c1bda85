"""The settings of a learner and a provider in experiments, and the script that they make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from comity.experiments.samples import Samples, SetName, Shelf, normalization
from comity.node.script import Script
from comity.node.validation import validated


@dataclass(frozen=True)
class Pair:
    """A learner and a provider.

    Attributes:
        data: Their data set.
        model: Their model.
        hidden: Option of the model `mlp`; 0 for models without it.
        gamma: γ of the learner's data (section 4.2).
        split: `imbalance` as in section 4.2; `categories` where the provider lacks the learner's major class (A.9.1);
            `one-class` where the learner holds a single class, as many samples as the provider (A.1.1).
        provider_data: The provider's data set where it is another (A.9.2); empty for the same.
        per_class: Samples of each class to share out; None for all.
        test_per_class: Test samples of each class; None for all.
        rounds: R.
        iterations: T + T'.
        period: I.
        optimizer: Of both.
        learning_rate: η.
        batch_size: Samples in a training step.
        seed: Of shares, weights and everything else.
    """

    data: SetName
    model: str
    hidden: int = 0
    gamma: float = 0.3
    split: Literal["imbalance", "categories", "one-class"] = "imbalance"
    provider_data: SetName | Literal[""] = ""
    per_class: int | None = None
    test_per_class: int | None = None
    rounds: int = 10
    iterations: int = 2000
    period: int = 50
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    batch_size: int = 256
    seed: int = 0

    def script(self, shelf: Shelf) -> Script:
        """The session as a script.

        Raises:
            MissingFile: A data set is not there.
        """
        party = {}
        for role, data in (("learner", self.data), ("provider", self.provider_data or self.data)):
            section = shelf.section(Samples(data, self.per_class, self.test_per_class), self.seed)
            party[role] = {
                "role": role,
                "secret": f"{role}-{self.seed}",
                "data": section | {"partition": self._share(role)},
            }
        session = {
            "protocol": "assisted_learning",
            "id": "reproduction",
            "helpers": ["provider"],
            "rounds": self.rounds,
            "seed": self.seed,
            "model": {"name": self.model, "options": {"hidden": self.hidden} if self.hidden else {}},
            "normalization": normalization(self.data),
            "terms": {
                "optimizer": self.optimizer,
                "learning_rate": self.learning_rate,
                "batch_size": self.batch_size,
                "evaluation_batch_size": self.batch_size,
                "iterations": self.iterations,
                "sampling_period": self.period,
            },
        }
        return validated(Script, {"session": session, "party": party}, "the experiment's script")

    def _share(self, role: str) -> dict[str, Any]:
        share: dict[str, Any] = {"share": role, "seed": self.seed}
        if self.split == "one-class":
            # Half of a class is the learner's; the provider has as many, of all ten.
            each = (self.per_class or 5000) // 2
            return share | {"name": "dominated", "provider": each, "learner": each, "major": 1.0}
        return share | {"name": "imbalance", "gamma": self.gamma, "without_major": self.split == "categories"}
