"""The settings of a group of clients in experiments, and the script that they make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from comity.experiments.datasets import Datasets, Samples, SetName, normalization, title
from comity.node.sessions.script import Script
from comity.node.validation import validated

PartitionName = Literal["UNI", "POW", "CLA"]
"""Equal shares, shares that grow, and shares with more and more of the classes (section 4.1)."""


@dataclass(frozen=True)
class Consortium:
    """Clients that learn together.

    Attributes:
        data: Their data set.
        model: Their model.
        clients: How many they are.
        samples: Training samples of each, on average where they differ.
        partition: How samples are shared out.
        rounds: Rounds.
        length: Γ.
        beta: β.
        epochs: E.
        optimizer: The clients' optimiser.
        learning_rate: In the first round.
        decay: What the learning rate is multiplied with from round to round.
        batch_size: Samples in a training step.
        classes: Classes of the data.
        test_per_class: Test samples of each class; None for all.
        wrong: Share of wrong labels of each client; empty for none.
        seed: Of shares, weights and everything else.
    """

    data: SetName
    model: str
    clients: int
    samples: int
    rounds: int
    length: float
    partition: PartitionName = "UNI"
    beta: float = 1.0
    epochs: int = 3
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    decay: float = 1.0
    batch_size: int = 32
    classes: int = 10
    test_per_class: int | None = None
    wrong: tuple[float, ...] = ()
    seed: int = 0

    @property
    def measured_on(self) -> tuple[str, ...]:
        """The data, as people call them."""
        return (title(self.data),)

    def script(self, datasets: Datasets) -> Script:
        """The session as a script.

        Raises:
            MissingFile: The data set is not there.
        """
        data = datasets.section(Samples(self.data, self._per_class, self.test_per_class), self.seed)
        party: dict[str, Any] = {
            "server": {"role": "server", "secret": f"server-{self.seed}", "data": data},
        }
        for index in range(self.clients):
            name = f"client-{index + 1}"
            party[name] = {
                "role": "client",
                "secret": f"{name}-{self.seed}",
                # The first share of a power law is small, and nobody's.
                "policy": {"min_samples": 1},
                "data": data | {"partition": self._share(index)},
            }
            if self.wrong:
                party[name]["data"]["label_noise"] = self.wrong[index]
        session = {
            "protocol": "gradient_rewards",
            "id": "reproduction",
            "acceptors": ["server"],
            "rounds": self.rounds,
            "seed": self.seed,
            "model": {"name": self.model},
            "normalization": normalization(self.data),
            "terms": {
                "clients": self.clients,
                "min_clients": self.clients,
                "optimizer": self.optimizer,
                "learning_rate": self.learning_rate,
                "learning_rate_decay": self.decay,
                "batch_size": self.batch_size,
                "epochs": self.epochs,
                "length": self.length,
                "beta": self.beta,
            },
        }
        return validated(Script, {"session": session, "party": party}, "the experiment's script")

    @property
    def _per_class(self) -> int:
        """Samples of each class to share out; those of classes that all hold are most in demand (CLA)."""
        if self.partition != "CLA":
            return self.clients * self.samples // self.classes
        held = [1 + index * (self.classes - 1) // max(1, self.clients - 1) for index in range(self.clients)]
        return sum(-(-self.samples // count) + 1 for count in held)

    def _share(self, index: int) -> dict[str, Any]:
        share: dict[str, Any] = {"parties": self.clients, "index": index, "seed": self.seed}
        match self.partition:
            case "UNI":
                return share | {"name": "uniform"}
            case "POW":
                return share | {"name": "power-law"}
            case "CLA":
                return share | {"name": "classes", "samples": self.samples}
