"""The settings of the paper's figures and tables, at each scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from comity.experiments.datasets import Samples
from comity.experiments.reproduction import Scale
from comity.protocols.peer_study.labelling import Plan
from comity.protocols.peer_study.strategies import STRATEGIES
from comity.protocols.peer_study.students import Fitting
from comity.protocols.peer_study.studies.lab import Line, Model, Setting

STRATEGY_NAMES = tuple(STRATEGIES)
"""All strategies, in the order in which figures show them."""

_COARSE = (
    *(4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0, 11, 1),
    *(10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2),
    *(12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15),
    *(6, 0, 17, 8, 14, 13),
)
"""The superclass of each of CIFAR-100's classes, as its files have them."""

_DIGITS = Setting(
    Samples("digits"), Model("mlp", 64), Model("mlp", 24), Plan(20, 20, 4, 1, fitting=Fitting(200)), protected=0.8
)
_MNIST = Setting(
    Samples("mnist"),
    Model("strided", 16),
    Model("strided", 8),
    Plan(100, 100, 5, 1, fitting=Fitting(300, 32, 32, 2e-3)),
    scaled=2,
)
_CIFAR = Setting(
    Samples("cifar10"),
    Model("resnet18-cifar"),
    Model("resnet8"),
    Plan(500, 500, 5, 1, fitting=Fitting(8000, 128, 128, 1e-3)),
)
_CIFAR100 = replace(_CIFAR, samples=Samples("cifar100"))
_TINY = replace(_CIFAR, samples=Samples("tinyimagenet"), plan=replace(_CIFAR.plan, initial=1000, budget=1000))

SENSITIVE: Mapping[Scale, Setting] = {
    "smoke": replace(
        _DIGITS,
        samples=Samples("digits", 20),
        plan=Plan(10, 4, 1, 1, fitting=Fitting(3)),
        protected=0.5,
        learning_steps=3,
    ),
    "digits": _DIGITS,
    "small": _MNIST,
    "paper": _CIFAR,
}
"""Section 4.1: most samples are protected."""
MANY_CLASSES: Mapping[str, Mapping[Scale, Setting]] = {
    "cifar100": {**SENSITIVE, "paper": _CIFAR100},
    "tiny-imagenet": {**SENSITIVE, "paper": _TINY},
}
"""Section 4.1 with 100 and 200 classes, for which smaller scales have what stands in for CIFAR-10; by what figures are called."""

SUPERCLASSES = tuple(
    tuple(fine for fine, coarse in enumerate(_COARSE) if coarse == superclass) for superclass in range(20)
)
"""CIFAR-100's classes that are alike, five each, by their numbers in the order of their names."""

STANDARD: Mapping[Scale, Setting] = {
    "smoke": replace(SENSITIVE["smoke"], protected=0.0),
    "digits": replace(
        _DIGITS, samples=Samples("digits", 50), plan=replace(_DIGITS.plan, initial=50, budget=25), protected=0.0
    ),
    "small": replace(
        _MNIST, samples=Samples("mnist", 200), plan=replace(_MNIST.plan, initial=200, budget=100), protected=0.0
    ),
    "paper": replace(_CIFAR, plan=replace(_CIFAR.plan, initial=5000, budget=2500, steps=6), protected=0.0),
}
"""Section 4.4: nothing is, a tenth is labelled at first, and a twentieth at a time."""

FEDERATED: Mapping[Scale, Setting] = {
    "smoke": replace(SENSITIVE["smoke"], clients=2, plan=Plan(5, 2, 1, 2, fitting=Fitting(3))),
    "digits": replace(_DIGITS, clients=4, plan=Plan(5, 5, 4, 2, fitting=Fitting(60)), protected=0.8),
    "small": replace(
        _MNIST, clients=10, task_model=_MNIST.student, plan=Plan(10, 10, 5, 2, fitting=Fitting(60, 16, 16, 2e-3))
    ),
    "paper": replace(
        _CIFAR, clients=10, task_model=_CIFAR.student, plan=Plan(50, 50, 5, 50, fitting=Fitting(160, 128, 128, 1e-3))
    ),
}
"""Section 4.5: ten clients, whose models have one architecture."""

_INK = Setting(
    Samples("digits"),
    Model("fcn"),
    Model("fcn"),
    Plan(10, 10, 3, 1, fitting=Fitting(60, 8, 8)),
    protected=0.8,
    draws_masks=True,
)
MASKS: Mapping[Scale, Setting] = {
    "smoke": replace(
        _INK,
        samples=Samples("digits", 20),
        plan=Plan(6, 4, 1, 1, fitting=Fitting(3, 8, 8)),
        protected=0.5,
        learning_steps=3,
    ),
    "digits": _INK,
    "small": replace(
        _INK,
        samples=Samples("mnist", 300, 100),
        plan=Plan(30, 30, 5, 1, fitting=Fitting(800, 8, 8)),
        protected=0.9,
        scaled=2,
    ),
    "paper": Setting(
        Samples("cityscapes"),
        Model("torchvision:deeplabv3_mobilenet_v3_large"),
        Model("torchvision:lraspp_mobilenet_v3_large"),
        Plan(30, 30, 5, 1, fitting=Fitting(1000, 8, 8, 1e-3)),
    ),
}
"""Figure 4: the class of each pixel."""


def strategies(setting: Setting, names: tuple[str, ...] = STRATEGY_NAMES) -> tuple[Line, ...]:
    """A curve for each strategy."""
    return tuple(Line(name, setting, name) for name in names)
