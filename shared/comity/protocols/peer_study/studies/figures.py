"""The curves of the paper: figures 3, 5, 6 and 8, accuracy by labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from comity.experiments.charts import legend_below, panels
from comity.experiments.reproduction import SCALES, Claim, Experiment, ExperimentContext, Metrics, Printed, Scale
from comity.protocols.peer_study.studies.lab import Line, Lines, Model, Setting, curves
from comity.protocols.peer_study.studies.sizes import (
    FEDERATED,
    MANY_CLASSES,
    MASKS,
    SENSITIVE,
    STANDARD,
    SUPERCLASSES,
    strategies,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SEEDS: Mapping[Scale, tuple[int, ...]] = {
    "smoke": (0,),
    "digits": (0, 1, 2, 3, 4),
    "small": (0, 1, 2, 3, 4),
    "paper": (0, 1, 2, 3, 4),
}
_FEW = {**_SEEDS, "small": (0, 1, 2)}
"""Of what is beside the main figure, so that each takes minutes."""
_COMPARED = ("peer_study", "random", "entropy", "badge")
_NOISE = (0.1, 0.2, 0.3)
_ALIKE = ((3, 5, 8), (4, 7, 9), (0, 6), (1, 2))
"""Digits that people take for one another."""


def draw(metrics: Metrics, figure: Figure) -> None:
    """Curves by labels, and the mean over each curve."""
    left, right = panels(figure, ["test score by labels, %", "mean over the curve, %"])
    for name, values in metrics["curves"].items():
        left.errorbar(
            metrics["labels"][name],
            values,
            metrics["deviations"][name],
            marker="o",
            markersize=2,
            capsize=2,
            label=name,
        )
    left.set_xlabel("labels")
    legend_below(figure)
    means = metrics["over_curve"]
    right.barh(range(len(means)), list(means.values()))
    right.set_yticks(range(len(means)), list(means))
    right.invert_yaxis()
    right.set_xlim(min(means.values()) - 2, max(means.values()) + 1)


def draw_noise(metrics: Metrics, figure: Figure) -> None:
    """A panel for each share of noise."""
    shares = list(metrics["by_noise"])
    for axes, share in zip(panels(figure, [f"{share} noise" for share in shares], level=True), shares, strict=True):
        found = metrics["by_noise"][share]
        for name, values in found["curves"].items():
            axes.plot(found["labels"][name], values, "o-", markersize=2, label=name)
        axes.set_xlabel("labels")
    figure.axes[0].set_ylabel("test score, %")
    legend_below(figure)


def noisy(settings: Lines, context: ExperimentContext) -> Metrics:
    """As `curves`, for each share of noise."""
    shares = dict.fromkeys(line.setting.noise for line in settings.lines)
    return {
        "by_noise": {
            f"{100 * share:.0f} %": curves(
                replace(settings, lines=tuple(line for line in settings.lines if line.setting.noise == share)), context
            )
            for share in shares
        }
    }


def _beats_chance(metrics: Metrics) -> bool:
    """In at least four of five seeds, or as large a share of fewer."""
    seeds = len(metrics["by_seed"]["random"])
    return bool(metrics["better_than_random"]["peer_study"] >= 0.8 * seeds)


def _is_best(metrics: Metrics) -> bool:
    means: Mapping[str, float] = metrics["over_curve"]
    return means["peer_study"] >= max(means.values())


def _above(better: str, worse: str) -> Callable[[Metrics], bool]:
    return lambda metrics: metrics["over_curve"][better] > metrics["over_curve"][worse]


def _within(one: str, other: str, points: float) -> Callable[[Metrics], bool]:
    return lambda metrics: abs(metrics["over_curve"][one] - metrics["over_curve"][other]) <= points


_CHANCE = Claim("peer study is better than chance over the curve, in at least four of five seeds", _beats_chance)
_BEST = Claim("peer study is the best of all", _is_best)


def _scales(lines: Callable[[Scale], tuple[Line, ...]], seeds: Mapping[Scale, tuple[int, ...]]) -> dict[Scale, Lines]:
    return {scale: Lines(lines(scale), seeds[scale]) for scale in SCALES}


def _without(in_class: bool, out_of_class: bool) -> Callable[[Setting], Setting]:
    """A setting whose students lack the teacher, the Out-of-Class steps, or both."""

    def changed(setting: Setting) -> Setting:
        losses = setting.plan.losses
        losses = replace(losses, alpha=0.0 if in_class else losses.alpha, margin=0.0 if out_of_class else losses.margin)
        return replace(setting, plan=replace(setting.plan, losses=losses))

    return changed


_PARTS: Mapping[str, Callable[[Setting], Setting]] = {
    "both": lambda setting: setting,
    "no Out-of-Class": _without(in_class=False, out_of_class=True),
    "no In-Class": _without(in_class=True, out_of_class=False),
    "neither": _without(in_class=True, out_of_class=True),
}
_PEERS: Mapping[Scale, Mapping[str, Model]] = {
    "smoke": {"small": Model("mlp", 8), "middle": Model("mlp", 24), "large": Model("mlp", 64)},
    "digits": {"small": Model("mlp", 8), "middle": Model("mlp", 24), "large": Model("mlp", 64)},
    "small": {"small": Model("strided", 4), "middle": Model("strided", 8), "large": Model("strided", 16)},
    "paper": {"small": Model("resnet8"), "middle": Model("resnet14"), "large": Model("resnet18-cifar")},
}


def _noisy(scale: Scale) -> tuple[Line, ...]:
    if scale == "paper":
        setting = replace(MANY_CLASSES["cifar100"]["paper"], superclasses=SUPERCLASSES)
    else:
        setting = replace(SENSITIVE[scale], superclasses=_ALIKE)
    return tuple(line for share in _NOISE for line in strategies(replace(setting, noise=share), names=_COMPARED))


_INSTEAD = "digits for the paper's pictures, an MLP of 64 units for ResNet-18, of 24 for ResNet-8; fewer labels"
_SMALL = "MNIST at 14x14 for the paper's pictures, two strided convolutions for ResNet-18, half as wide for ResNet-8; 100 to 600 labels"

EXPERIMENTS: tuple[Experiment[Any], ...] = (
    Experiment(
        "peer-study/fig-3",
        "Fig. 3 (a): every strategy in the sensitive protection setting",
        _scales(lambda scale: strategies(SENSITIVE[scale]), _SEEDS),
        _INSTEAD,
        curves,
        draw,
        (_CHANCE, _BEST),
        (
            Printed("CIFAR-10, peer_study", ("final", "peer_study"), 78.06),
            Printed("CIFAR-10, ll4al", ("final", "ll4al"), 76.5),
            Printed("CIFAR-10, random", ("final", "random"), 73.8),
        ),
        small=_SMALL,
    ),
    *(
        Experiment(
            f"peer-study/fig-3-{name}",
            f"Fig. 3 ({panel}): every strategy in the sensitive protection setting, {called}",
            {scale: Lines(strategies(setting), _SEEDS[scale]) for scale, setting in MANY_CLASSES[name].items()},
            _INSTEAD,
            curves,
            draw,
            (_CHANCE, _BEST),
            printed,
            small=_SMALL,
        )
        for name, panel, called, printed in (
            ("cifar100", "b", "CIFAR-100", ()),
            ("tiny-imagenet", "c", "Tiny ImageNet", (Printed("peer_study", ("final", "peer_study"), 17.3),)),
        )
    ),
    Experiment(
        "peer-study/fig-3-standard",
        "Fig. 3 (d): every strategy where nothing is protected; a tenth is labelled first, a twentieth at a time",
        _scales(lambda scale: strategies(STANDARD[scale]), _FEW),
        _INSTEAD,
        curves,
        draw,
        (_CHANCE, _BEST),
        small="2,000 samples of MNIST at 14x14, and small networks",
    ),
    Experiment(
        "peer-study/fig-4",
        "Fig. 4 (a): classes of pixels, of which mean IoU is the score",
        _scales(lambda scale: strategies(MASKS[scale], ("peer_study", "random", "entropy", "vaal")), _FEW),
        "digits for Cityscapes, each pixel of ink with the digit's class; FCNs for DRN and MobileNetV3; Core-set and LL4AL, "
        "which want features of a sample, are left out",
        curves,
        draw,
        (_CHANCE, _BEST),
        (Printed("Cityscapes, peer_study", ("final", "peer_study"), 47.5),),
        small="3,000 of MNIST at 14x14 for Cityscapes, each pixel of ink with the digit's class; FCNs; the paper's 30 to 180 "
        "labels; Core-set and LL4AL, which want features of a sample, are left out",
    ),
    Experiment(
        "peer-study/fig-5-parts",
        "Fig. 5 (a): without In-Class Peer Study, without Out-of-Class Peer Study, and without both",
        _scales(lambda scale: tuple(Line(name, part(SENSITIVE[scale])) for name, part in _PARTS.items()), _FEW),
        _INSTEAD,
        curves,
        draw,
        (
            Claim("without Out-of-Class it is worse", _above("both", "no Out-of-Class")),
            Claim("without In-Class it is worse", _above("both", "no In-Class")),
            Claim("without both it is worse", _above("both", "neither")),
        ),
        small=_SMALL,
    ),
    Experiment(
        "peer-study/fig-5-peers",
        "Fig. 5 (b): one peer, whose score is its entropy, to four",
        _scales(
            lambda scale: tuple(Line(f"P = {peers}", replace(SENSITIVE[scale], peers=peers)) for peers in (1, 2, 3, 4)),
            _FEW,
        ),
        _INSTEAD,
        curves,
        draw,
        (
            Claim("two peers are better than one", _above("P = 2", "P = 1")),
            Claim("four are better than two", _above("P = 4", "P = 2")),
        ),
        small=_SMALL,
    ),
    Experiment(
        "peer-study/fig-5-students",
        "Fig. 5 (c): peers of ResNet-8, ResNet-14 and ResNet-18",
        _scales(
            lambda scale: tuple(
                Line(name, replace(SENSITIVE[scale], student=model)) for name, model in _PEERS[scale].items()
            ),
            _FEW,
        ),
        "digits for CIFAR-10, MLPs of 8, 24 and 64 units for the three",
        curves,
        draw,
        (
            Claim("small and middle peers do about the same, within a point", _within("small", "middle", 1.0)),
            Claim("the largest are the best", _above("large", "small")),
        ),
        small="MNIST at 14x14, two strided convolutions of 4, 8 and 16 channels for the three",
    ),
    Experiment(
        "peer-study/fig-6",
        "Fig. 6: an oracle that mistakes 10, 20 and 30 % within superclasses",
        _scales(_noisy, _FEW),
        "digits for CIFAR-100, four groups of digits that look alike for its superclasses",
        noisy,
        draw_noise,
        (
            Claim(
                "peer study is better than chance at each share of noise",
                lambda metrics: all(_above("peer_study", "random")(each) for each in metrics["by_noise"].values()),
            ),
            Claim(
                "peer study is the best at each share of noise",
                lambda metrics: all(_is_best(each) for each in metrics["by_noise"].values()),
            ),
        ),
        small="MNIST at 14x14 for CIFAR-100, four groups of digits that look alike for its superclasses",
    ),
    Experiment(
        "peer-study/fig-8",
        "Fig. 8: ten clients, whose models are averaged",
        _scales(lambda scale: strategies(FEDERATED[scale], (*_COMPARED, "core_set")), _FEW),
        "four clients with digits, MLPs; two averages a step",
        curves,
        draw,
        (_CHANCE, _BEST),
        small="MNIST at 14x14 for CIFAR-10, two strided convolutions for ResNet-8; two averages of 60 steps a step",
    ),
)
"""What this module runs."""
