"""Tables 1 and 2 of Shamsian et al. 2023: three tasks of each pixel, of rooms (NYUv2) and of streets (Cityscapes)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from comity.contract import Preprocessing, TaskSpec
from comity.data import Splits
from comity.experiments.charts import panels
from comity.experiments.reproduction import Claim, Experiment, ExperimentContext, Metrics
from comity.protocols.nash_bargaining.studies import generated
from comity.protocols.nash_bargaining.studies.segnet import WIDTHS, SegNet
from comity.randomness import derive, seeded
from comity.tasks import objective_of, task_kind
from comity.training import OptimizerSpec, Supervised
from comity.training.device import choose_device
from comity.training.samples import Secret
from comity.training.settings import TrainingSettings, WeightingSettings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_METHODS = ("single-task", "linear", "nash-mtl", "auxinash")
_MAIN = "mask.iou"
_SHOWN = {
    "rooms": ("mask.iou", "mask.accuracy", "depth.mae", "normal.angle", "normal.median_angle", "normal.within_30"),
    "streets": ("mask.iou", "mask.accuracy", "part.iou", "part.accuracy", "disparity.mae"),
}
_LOSSES = {
    "rooms": {"depth.loss": "absolute", "normal.loss": "cosine"},
    "streets": {"disparity.loss": "absolute"},
}


@dataclass(frozen=True)
class Scenes:
    """Pictures of which three things are to be told at each pixel, and trainings on them.

    Attributes:
        of: `rooms`, of which these are classes, depth and normals, or `streets`: classes, parts and disparity.
        counts: Pictures to train and to test on, which are generated; None for the real set.
        height: Of the pictures; of rooms that are real, None, which is as they are.
        methods: Of weighting.
        seeds: Trainings by each method.
        steps: Of a training.
        batch_size: Pictures in a step.
        learning_rate: Of Adam.
        widths: Channels of SegNet's stages.
        main_power: The main task's bargaining power.
    """

    of: Literal["rooms", "streets"]
    counts: tuple[int, int] | None = None
    height: int | None = None
    methods: tuple[str, ...] = _METHODS
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 300
    batch_size: int = 8
    learning_rate: float = 1e-3
    widths: tuple[int, ...] = (8, 16, 32)
    main_power: float = 0.4

    @property
    def measured_on(self) -> tuple[str, ...]:
        """The data, as people call them."""
        real = "NYUv2" if self.of == "rooms" else "Cityscapes"
        return (real if self.counts is None else f"generated {self.of}",)


def measure(settings: Scenes, context: ExperimentContext) -> Metrics:
    """What tests say of each task, by method, in the mean over the seeds, and each seed's."""
    splits = _splits(settings, context)
    found: dict[str, Any] = {}
    for method in settings.methods:
        runs = [trained(settings, method, splits, seed) for seed in settings.seeds]
        shown = {name: [each[name] for each in runs] for name in _SHOWN[settings.of]}
        found[method] = {name: fmean(values) for name, values in shown.items()} | {"by seed": shown}
        context.say(f"  {method}: " + ", ".join(f"{name} {fmean(values):.4f}" for name, values in shown.items()))
    return found


def _splits(settings: Scenes, context: ExperimentContext) -> Splits:
    source = "nyuv2:nyuv2" if settings.of == "rooms" else "cityscapes-tasks:cityscapes"
    height = settings.height if settings.of == "streets" else None
    if settings.counts is None:
        return context.datasets.whole(source, image_size=height)
    side = settings.height or 32
    counts = dict(zip(("train", "val"), settings.counts, strict=True))

    def make(folder: Any) -> None:
        if settings.of == "rooms":
            generated.rooms(folder, counts, side, 4 * side // 3 // 8 * 8)
        else:
            generated.streets(folder, counts, side)

    name = f"{settings.of}-{'-'.join(map(str, settings.counts))}-{side}"
    return context.datasets.generated(name, make, source.partition(":")[0])


def task_of(settings: Scenes, splits: Splits) -> TaskSpec:
    """The composite task that the scenes are for."""
    task: TaskSpec = task_kind("several").of(splits, Preprocessing())
    return task.model_copy(update={"options": {**task.options, **_LOSSES[settings.of]}})


def trained(settings: Scenes, method: str, splits: Splits, seed: int) -> Mapping[str, Any]:
    """What the test says of a training: as a party trains whose `[training.weighting]` names the method.

    Args:
        settings: How.
        method: Of weighting.
        splits: The pictures.
        seed: Decides weights and batches.
    """
    task = task_of(settings, splits)
    with seeded(derive(seed, "SegNet")):
        model = SegNet({head.name: head.size for head in task.heads}, settings.widths)
    options: dict[str, Any] = {"main_power": settings.main_power} if method == "auxinash" else {}
    local = Supervised(
        model,
        splits,
        normalization=((), ()),
        batch_size=settings.batch_size,
        evaluation_batch_size=settings.batch_size,
        secret=Secret(f"scenes {seed}".encode(), "study"),
        device=choose_device("auto"),
        objective=objective_of(task),
        training=TrainingSettings(weighting=WeightingSettings(method=method, options=options)),
    )
    state = local.initial_state
    spec = OptimizerSpec("adam", settings.learning_rate)
    for made in local.trajectory(state, spec, iterations=settings.steps + 1, period=settings.steps, round=1):
        state = made.state
    return local.tested(state)


def _better(metrics: Metrics, method: str, than: str) -> bool | None:
    return bool(metrics[method][_MAIN] > metrics[than][_MAIN]) if {method, than} <= metrics.keys() else None


def draw(metrics: Metrics, figure: Figure) -> None:
    """What the test says of each task, a group for each method."""
    shown = [name for name in next(iter(metrics.values())) if name != "by seed"]
    for axes, name in zip(panels(figure, shown), shown, strict=True):
        for at, (_, each) in enumerate(metrics.items()):
            axes.bar(at, each[name], 0.7)
            axes.plot([at] * len(each["by seed"][name]), each["by seed"][name], "k.", ms=3)
        axes.set_xticks(range(len(metrics)), [*metrics], rotation=45, fontsize=7)


_CLAIMS = (
    Claim("AuxiNash is better than the main task alone", partial(_better, method="auxinash", than="single-task")),
    Claim("AuxiNash is better than Nash-MTL", partial(_better, method="auxinash", than="nash-mtl")),
)
_SMOKE = {"counts": (4, 2), "methods": ("auxinash",), "seeds": (0,), "steps": 2, "batch_size": 2, "widths": (4, 8)}
_PAPER = {"batch_size": 8, "learning_rate": 1e-4, "widths": WIDTHS}

EXPERIMENTS = (
    Experiment(
        "nash-bargaining/table-1",
        "Table 1: NYUv2: classes, depth and normals of rooms",
        {
            "smoke": Scenes("rooms", height=16, **_SMOKE),  # type: ignore[arg-type]
            "digits": Scenes("rooms", (100, 50), 16, seeds=(0, 1), steps=150, learning_rate=5e-3, widths=(8, 16)),
            "paper": Scenes("rooms", steps=200 * 795 // 2, **(_PAPER | {"batch_size": 2})),  # type: ignore[arg-type]
        },
        "generated rooms, 16 by 16, in the set's layout, and a SegNet of two narrow stages, trained for fewer steps",
        measure,
        draw,
        _CLAIMS,
    ),
    Experiment(
        "nash-bargaining/table-2",
        "Table 2: Cityscapes: classes, parts and disparity of streets",
        {
            "smoke": Scenes("streets", height=16, **_SMOKE),  # type: ignore[arg-type]
            "digits": Scenes("streets", (100, 50), 16, seeds=(0, 1), steps=150, learning_rate=5e-3, widths=(8, 16)),
            "paper": Scenes("streets", height=128, steps=200 * 2975 // 8, **_PAPER),  # type: ignore[arg-type]
        },
        "generated streets, 16 by 32, in the set's layout, and a SegNet of two narrow stages, trained for fewer steps",
        measure,
        draw,
        _CLAIMS,
    ),
)
"""What this module runs."""
