"""Tables 1 and 2 and figures 17 to 20 of Chen et al. 2023 (A.5 to A.9): AssistDeep with something changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from comity.experiments.reproduction import Claim, Experiment, Printed
from comity.protocols.assisted_learning.studies.comparisons import (
    ABOVE,
    NEAR,
    THREE,
    Comparison,
    alike,
    comparison,
    draw,
    draw_level,
    draw_together,
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

_FOUR = {
    "AlexNet, CIFAR-10": ALEXNET,
    "ResNet-18, CIFAR-10": RESNET,
    "AlexNet, SVHN": SVHN,
    "ResNet-18, SVHN": SVHN_RESNET,
}
"""The paper's four settings of A.7 and A.8."""


def _first_starts(totals: Mapping[int, int], pair: Pair) -> Comparison:
    """Where the provider starts from, for numbers T of the learner's iterations and T + T' of both."""
    pairs = tuple((f"T = {t}", replace(pair, iterations=total)) for t, total in totals.items())
    return Comparison(pairs, ("AssistDeep", "Revised-AssistDeep"))


_T = (2000, 6000, 12000)
# Iterations are split like samples: at γ = .3 the learner has 2,500 + 9 * 750 = 9,250 and the provider 25,000.
_TOTALS = {t: round(t * (9250 + 25000) / 9250) for t in _T}
# The same with digits: 10 + 9 * 3 = 37 and 100.
_SMALL_TOTALS = {27: 100, 81: 300, 162: 600}
_TABLE_1 = Experiment(
    "assisted-learning/table-1",
    "Table 1: AssistDeep and Revised-AssistDeep by the learner's iterations",
    scales(_first_starts(_TOTALS, ALEXNET), _first_starts(_SMALL_TOTALS, SMALL), _first_starts({2: 8}, TINY)),
    SUBSTITUTE.format("CIFAR-10", 64).replace(
        "T + T' = 100", "T = 27, 81 and 162 of T + T' = 100, 300 and 600 for T = 2,000, 6,000 and 12,000"
    ),
    comparison,
    draw_level,
    (Claim("AssistDeep ends above Revised-AssistDeep for every T", over("AssistDeep", "Revised-AssistDeep")),),
    tuple(
        Printed(f"T = {t}, {name}, %", (f"T = {t}", name, "last"), value)
        for name, values in (("AssistDeep", (66.0, 65.6, 66.2)), ("Revised-AssistDeep", (65.3, 64.8, 64.1)))
        for t, value in zip(_T, values, strict=True)
    ),
    {f"T = {t}": f"T = {small}" for t, small in zip(_T, _SMALL_TOTALS, strict=True)},
)

_ROWS = {
    "CIFAR-10, γ = 0.5": (66.6, 58.4, 64.0, 66.0),
    "CIFAR-10, γ = 1": (68.1, 63.2, 64.0, 68.1),
    "SVHN, γ = 0.5": (86.8, 82.4, 85.6, 86.8),
    "SVHN, γ = 1": (87.5, 83.9, 85.6, 87.3),
}
_ALL = ("SGD", "Learner-SGD", "Provider-SGD", "AssistDeep")


def _with_provider(*pairs: tuple[str, Pair]) -> Comparison:
    named = ((f"{name}, γ = {gamma:g}", replace(pair, gamma=gamma)) for name, pair in pairs for gamma in (0.5, 1.0))
    return Comparison(tuple(named), (*THREE, "Provider-SGD"))


_SMALL_ROWS = [f"digits, mlp of {hidden}, γ = {gamma}" for hidden in (64, 128) for gamma in ("0.5", "1")]
_TABLE_2 = Experiment(
    "assisted-learning/table-2",
    "Table 2: SGD, Learner-SGD, Provider-SGD and AssistDeep, an AlexNet",
    scales(
        _with_provider(("CIFAR-10", ALEXNET), ("SVHN", SVHN)),
        _with_provider(("digits, mlp of 64", SMALL), ("digits, mlp of 128", replace(SMALL, hidden=128))),
        _with_provider(("digits, mlp of 8", TINY)),
    ),
    SUBSTITUTE.format("CIFAR-10 and SVHN", "64 and 128"),
    comparison,
    draw_level,
    (
        Claim("AssistDeep ends above Provider-SGD", over("AssistDeep", "Provider-SGD")),
        Claim("Provider-SGD ends above Learner-SGD", over("Provider-SGD", "Learner-SGD")),
        NEAR,
    ),
    tuple(
        Printed(f"{name}, {algorithm}, %", (name, algorithm, "last_nine"), value)
        for name, values in _ROWS.items()
        for algorithm, value in zip(_ALL, values, strict=True)
    ),
    dict(zip(_ROWS, _SMALL_ROWS, strict=True)),
)


def _resampled(pairs: Mapping[str, Pair]) -> Comparison:
    return Comparison(tuple(pairs.items()), ("AssistDeep", "Learner-SGD", "Resampled-Learner-SGD"))


_FIG_17 = Experiment(
    "assisted-learning/fig-17",
    "Fig. 17: Learner-SGD, Resampled-Learner-SGD and AssistDeep, γ = .3",
    scales(_resampled(_FOUR), _resampled({"digits": SMALL}), _resampled({"digits": TINY})),
    SUBSTITUTE.format("the four settings", 64),
    comparison,
    draw,
    (
        Claim("AssistDeep ends above Resampled-Learner-SGD", over("AssistDeep", "Resampled-Learner-SGD")),
        Claim("resampling alone gains less than 3 points", over("Learner-SGD", "Resampled-Learner-SGD", by=-3)),
    ),
)


def _iterations(pairs: Mapping[str, Pair], *totals: int) -> Comparison:
    named = (
        (f"{name}; T + T' = {total}", replace(pair, iterations=total))
        for name, pair in pairs.items()
        for total in totals
    )
    return Comparison(tuple(named), ("AssistDeep",))


_FIG_18 = Experiment(
    "assisted-learning/fig-18",
    "Fig. 18: AssistDeep by the number T + T' of local iterations, γ = .3",
    scales(
        _iterations(_FOUR, 500, 1000, 2000, 4000),
        _iterations({"digits": SMALL}, 25, 50, 100, 200),
        _iterations({"digits": TINY}, 12, 24),
    ),
    SUBSTITUTE.format("the four settings", 64).replace("T + T' = 100", "T + T' = 25, 50, 100 and 200"),
    comparison,
    draw_together,
    (Claim("the final accuracies lie within 3 points of each other", alike(within=3)),),
)


def _categories(pairs: Mapping[str, Pair]) -> Comparison:
    return Comparison(tuple((name, replace(pair, gamma=0.1, split="categories")) for name, pair in pairs.items()))


_FIG_19 = Experiment(
    "assisted-learning/fig-19",
    "Fig. 19: the provider lacks the learner's major class, γ = .1",
    scales(
        _categories({"AlexNet, SVHN": SVHN, "ResNet-18, CIFAR-10": RESNET}),
        _categories({"digits": SMALL}),
        _categories({"digits": TINY}),
    ),
    SUBSTITUTE.format("SVHN and CIFAR-10", 64),
    comparison,
    draw,
    (ABOVE, NEAR),
)


def _domains(pairs: Mapping[str, Pair]) -> Comparison:
    return Comparison(tuple((name, replace(pair, gamma=0.1)) for name, pair in pairs.items()))


_BLURRED = replace(SMALL, data="digits-scaled", provider_data="digits-blurred", per_class=40)
_FIG_20 = Experiment(
    "assisted-learning/fig-20",
    "Fig. 20: the learner holds CIFAR-10, the provider CINIC-10, γ = .1",
    scales(
        _domains(
            {
                name: replace(pair, provider_data="cinic10")
                for name, pair in (("AlexNet", ALEXNET), ("ResNet-18", RESNET))
            }
        ),
        _domains({"mlp of 64": _BLURRED, "mlp of 128": replace(_BLURRED, hidden=128)}),
        _domains({"mlp of 8": replace(TINY, data="digits-scaled", provider_data="digits-blurred")}),
    ),
    SUBSTITUTE.format("CIFAR-10", "64 and 128").replace("20 handwritten", "40 handwritten")
    + "; in place of CINIC-10 digits halved to 4 by 4 pixels and enlarged again; tested on digits as they are",
    comparison,
    draw,
    (ABOVE, NEAR),
)

EXPERIMENTS = (_TABLE_1, _TABLE_2, _FIG_17, _FIG_18, _FIG_19, _FIG_20)
"""What this module runs."""
