"""The figures and tables of Wu et al. 2025, on a client and a server in one place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from comity.experiments.datasets import Samples
from comity.experiments.reproduction import Claim, Experiment, Printed, Scale
from comity.protocols.learning_to_help.studies.bounded import Bounded, beats, bounded, draw_bounded
from comity.protocols.learning_to_help.studies.copies import Copies, draw_copies, intermittent
from comity.protocols.learning_to_help.studies.lab import Pair
from comity.protocols.learning_to_help.studies.pairs import pairs, paper
from comity.protocols.learning_to_help.studies.sides import draw_groups, draw_samples, draw_sides, table
from comity.protocols.learning_to_help.studies.sweep import Sweep, below_ends, draw_sweep, falls_with_cost, sweep
from comity.protocols.learning_to_help.studies.widths import Widths, draw_widths, spread, wider

if TYPE_CHECKING:
    pass

_SEES_ALL = pairs(missing=None, share=0.1)
_COLOUR: dict[Scale, Pair] = _SEES_ALL | {
    "small": Pair(Samples("cifar10", 300, 100), missing=None),
    "paper": paper(Samples("cifar10"), None),
}
_NO_NINE = pairs()
_INSTEAD = "digits for CIFAR-10 and SVHN, an MLP on features of m for AlexNet"

_FIG_2 = (
    Claim("the dearer asking is, the less is asked", falls_with_cost),
    Claim(
        "the risk is at most that of never and of always asking",
        lambda metrics: all(below_ends(each) for each in metrics["points"].values()),
    ),
)
_TABLE_1 = (
    Claim(
        "e is better than m by more where r says REMOTE",
        lambda metrics: _gains_most_where_asked(metrics["sides"]),
    ),
    Claim("the risk is below both ends", lambda metrics: below_ends([metrics["point"]])),
)


def _gains_most_where_asked(sides: Mapping[str, Mapping[str, float | None]]) -> bool | None:
    """Whether e is ahead of m by more where r says REMOTE; None where it never says one of both."""
    gains = {}
    for side, found in sides.items():
        if found["e"] is None or found["m"] is None:
            return None
        gains[side] = found["e"] - found["m"]
    return gains["REMOTE"] > gains["LOCAL"]


def _sides(data: str, local: tuple[float, ...], remote: tuple[float, ...]) -> tuple[Printed, ...]:
    """A half of the paper's table 1."""
    return tuple(
        Printed(f"{data}, {side}: {name}", ("sides", side, name), value)
        for side, values in (("LOCAL", local), ("REMOTE", remote))
        for name, value in zip(("ratio", "m", "e"), values, strict=True)
    )


EXPERIMENTS = (
    *(
        Experiment(
            f"learning-to-help/fig-2{suffix}",
            "Fig. 2: accuracy and reject rate by the costs c_e and c_1; the risk beside them" + of,
            {scale: Sweep(pair) for scale, pair in pairs.items()},
            _INSTEAD,
            sweep,
            draw_sweep,
            _FIG_2,
        )
        for suffix, of, pairs in (("", "", _SEES_ALL), ("-cifar10", "; CIFAR-10", _COLOUR))
    ),
    Experiment(
        "learning-to-help/table-1",
        "Table 1: m and e where r says LOCAL and where it says REMOTE, at c_e = .25 and c_1 = 1.25",
        dict(_SEES_ALL),
        _INSTEAD,
        table,
        draw_sides,
        _TABLE_1,
        _sides("SVHN", (91.71, 90.6, 93.3), (8.29, 61.2, 72.8)),
    ),
    Experiment(
        "learning-to-help/table-1-cifar10",
        "Table 1: m and e where r says LOCAL and where it says REMOTE, at c_e = .25 and c_1 = 1.25; CIFAR-10",
        dict(_COLOUR),
        _INSTEAD,
        table,
        draw_sides,
        _TABLE_1,
        _sides("CIFAR-10", (44.11, 73.9, 81.9), (55.9, 54.5, 67.7)),
    ),
    Experiment(
        "learning-to-help/table-6",
        'Table 6: a client whose model never saw a "9"; samples kept and sent are in samples',
        dict(_NO_NINE),
        _INSTEAD,
        table,
        draw_groups,
        (
            Claim(
                "together they know the missing class, and lose at most 3 points elsewhere",
                lambda metrics: (
                    metrics["groups"]["joint"]["missing_class"] >= 75
                    and metrics["groups"]["joint"]["other_classes"] >= metrics["groups"]["local"]["other_classes"] - 3
                ),
            ),
            Claim("the risk is below both ends", lambda metrics: below_ends([metrics["point"]])),
        ),
        tuple(
            Printed(f"{who}, {group}", ("groups", who, group), value)
            for who, values in {
                "local": (0, 92.2, 83.0),
                "remote": (94.5, 89.5, 90.0),
                "joint": (90.0, 88.9, 89.0),
                "asked": (93.5, 12.0, 17.8),
            }.items()
            for group, value in zip(("missing_class", "other_classes", "all"), values, strict=True)
        ),
    ),
    Experiment(
        "learning-to-help/samples",
        "Samples that r keeps and sends, of a client whose model never saw a 9",
        dict(_NO_NINE),
        _INSTEAD,
        table,
        draw_samples,
        (
            Claim(
                "the missing class is sent, the others are kept",
                lambda metrics: (
                    metrics["groups"]["asked"]["missing_class"] > 3 * metrics["groups"]["asked"]["other_classes"]
                ),
            ),
        ),
    ),
    Experiment(
        "learning-to-help/fig-4",
        "Fig. 4: intermittent availability, by the steps S between two copies of e",
        {scale: Copies(pair) for scale, pair in _NO_NINE.items()},
        _INSTEAD,
        intermittent,
        draw_copies,
        (
            Claim("copies that are S steps old cost at most .02 of risk", lambda metrics: spread(metrics) <= 0.02),
            Claim(
                "the risk is below both ends for each S",
                lambda metrics: below_ends([*metrics["points"].values()]),
            ),
        ),
    ),
    Experiment(
        "learning-to-help/fig-7",
        "Fig. 7: bounded reject rates at c_e = .25 and c_1 = 1.12",
        {scale: Bounded(pair) for scale, pair in _NO_NINE.items()},
        _INSTEAD,
        bounded,
        draw_bounded,
        (
            Claim("post hoc is better than asking at random", lambda metrics: beats(metrics, "post hoc", "random")),
            Claim("a threshold is better than post hoc", lambda metrics: beats(metrics, "threshold", "post hoc")),
            Claim("and than m's own confidence", lambda metrics: beats(metrics, "threshold", "confidence")),
        ),
    ),
    Experiment(
        "learning-to-help/scale",
        "A larger e for the same client: m and r stay",
        {scale: Widths(pair) for scale, pair in _NO_NINE.items()}
        | {"paper": Widths(Pair(Samples("svhn"), batch_size=16))},
        _INSTEAD,
        wider,
        draw_widths,
        (
            Claim(
                "a wider e is better together with the same m and r",
                lambda metrics: (
                    [*metrics["points"].values()][-1]["accuracy"] > next(iter(metrics["points"].values()))["accuracy"]
                ),
            ),
        ),
    ),
)
"""What this module runs."""
