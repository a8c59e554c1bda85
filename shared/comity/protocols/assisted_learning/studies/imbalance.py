"""Figures 3 to 8 of Chen et al. 2023 (section 4.2): AssistDeep by the learner's imbalance and by sampling period."""

from __future__ import annotations

from dataclasses import replace

from comity.experiments.reproduction import Claim, Experiment
from comity.protocols.assisted_learning.studies.comparisons import (
    ABOVE,
    MONOTONE,
    NEAR,
    Comparison,
    comparison,
    draw,
    draw_level,
    gain_grows,
    over,
)
from comity.protocols.assisted_learning.studies.pair import Pair
from comity.protocols.assisted_learning.studies.sizes import (
    ALEXNET,
    RESNET,
    SMALL,
    SUBSTITUTE,
    SVHN,
    SVHN_RESNET,
    TINY,
    scales,
)


def _gammas(pair: Pair, *gammas: float) -> Comparison:
    return Comparison(tuple((f"γ = {gamma:g}", replace(pair, gamma=gamma)) for gamma in gammas))


def _imbalance(
    number: int, pair: Pair, what: str, hidden: int, seeds: tuple[int, ...] = (0,)
) -> Experiment[Comparison]:
    gammas = (0.0, 0.3, 0.7, 1.0)
    return Experiment(
        f"assisted-learning/fig-{number}",
        f"Fig. {number}: AssistDeep, SGD and Learner-SGD by the learner's imbalance, {what}",
        scales(
            _gammas(pair, *gammas),
            _gammas(replace(SMALL, hidden=hidden), *gammas),
            _gammas(TINY, 0.0, 1.0),
            seeds,
        ),
        SUBSTITUTE.format(what, hidden),
        comparison,
        draw,
        (
            NEAR,
            ABOVE,
            Claim("the more imbalanced the learner's data, the greater its gain", gain_grows),
            MONOTONE,
        ),
    )


def _periods(number: int, pair: Pair, what: str, hidden: int) -> Experiment[Comparison]:
    def of(pair: Pair, *periods: int) -> Comparison:
        pairs = tuple(
            (f"γ = {gamma:g}, I = {period}", replace(pair, gamma=gamma, period=period))
            for gamma in (0.0, 1.0)
            for period in periods
        )
        return Comparison(pairs, ("AssistDeep", "SGD"))

    return Experiment(
        f"assisted-learning/fig-{number}",
        f"Fig. {number}: sampling periods, {what}",
        scales(of(pair, 20, 50), of(replace(SMALL, hidden=hidden), 2, 5), of(TINY, 4), (0,)),
        SUBSTITUTE.format(what, hidden).replace("I = 5", "I = 2 and 5 for 20 and 50"),
        comparison,
        draw_level,
        (Claim("a low sampling frequency already comes within 3 points of SGD", over("AssistDeep", "SGD", by=-3)),),
    )


EXPERIMENTS = (
    _imbalance(3, ALEXNET, "an AlexNet on CIFAR-10", 64, (0, 1, 2)),
    _imbalance(4, RESNET, "a ResNet-18 on CIFAR-10", 128, (0, 1, 2)),
    _imbalance(5, SVHN, "an AlexNet on SVHN", 32),
    _imbalance(6, SVHN_RESNET, "a ResNet-18 on SVHN", 256),
    _periods(7, ALEXNET, "an AlexNet on CIFAR-10", 64),
    _periods(8, RESNET, "a ResNet-18 on CIFAR-10", 128),
)
"""What this module runs."""
