"""The client and server of the paper's figures and tables, at each scale."""

from __future__ import annotations

from typing import Any

from comity.experiments.datasets import Samples
from comity.experiments.reproduction import Scale
from comity.protocols.learning_to_help.studies.lab import Pair
from comity.protocols.learning_to_help.training import Costs

TABLES = Costs(0.25, 1.25)
BOUNDED = Costs(0.25, 1.12)
RATES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
WAYS = ("random", "post hoc", "confidence", "threshold")

_SMOKE = Samples("digits", 30)
_DIGITS = Samples("digits")
_SMALL = Samples("mnist", 300, 100)


def pairs(**changed: Any) -> dict[Scale, Pair]:
    """The same client and server at each scale."""
    small: dict[str, Any] = {"local": "cnn-small", "features": "4", "hidden": 64, **changed}
    return {
        "smoke": Pair(_SMOKE, (0,), local_epochs=2, epochs=2, **small),
        "digits": Pair(_DIGITS, local_epochs=30, epochs=30, **small),
        "small": Pair(_SMALL, **changed),
        "paper": paper(Samples("svhn"), changed.get("missing", 9)),
    }


def paper(samples: Samples, missing: int | None) -> Pair:
    """LeNet-5 at the client, for m and r, and AlexNet on images of 64x64 at the server, on inputs themselves."""
    return Pair(
        samples,
        features="0",
        server="torchvision:alexnet",
        server_size=64,
        judge="lenet5",
        batch_size=16,
        learning_rate=3e-4,
        missing=missing,
    )
