"""What a node's configuration says about its data. Light: whoever reads a configuration waits for no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

SplitName = Literal["train", "test", "validation", "calibration", "pool"]
"""What samples are for."""

SPLITS: tuple[SplitName, ...] = get_args(SplitName)

Share = Literal["learner", "provider"]
"""Which of two shares a party holds."""

POWER_LAW_EXPONENT = 1.65911332899
"""That of the experiments of Xu et al. 2021."""


SOURCES = {
    "digits": "scikit-learn's digits, which come with it",
    "torchvision:<Name>": "a data set in torchvision's own layout under `root`, for example torchvision:MNIST",
    "imagefolder:<dir>": "a folder of images for each class",
    "cinic10:<dir>": "CINIC-10, its folder",
    "synthetic:<name>": "points that a seed makes, for example synthetic:fig2",
    "npz:<file>": "arrays of NumPy: x, y, x_test, y_test",
    "text:<dir>": "a file of sentences for each class",
}
"""What data may be had from, and what each is."""


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class UniformPartition(_Config):
    """One of equal random shares.

    Attributes:
        parties: How many shares there are.
        index: Which of them this node holds, in [0, parties).
        seed: The same at every party.
    """

    name: Literal["uniform"]
    parties: int = Field(ge=1)
    index: int = Field(ge=0)
    seed: int = 0


class ImbalancePartition(_Config):
    """The learner's imbalanced share or the provider's balanced one (Chen et al. 2023, section 4.2).

    Attributes:
        gamma: The size of the learner's minor classes over that of its major class, in [0, 1].
        share: Which of the two this node holds.
        seed: The same at both parties.
        without_major: Whether the provider lacks the learner's major class: different categories (section A.9.1).
    """

    name: Literal["imbalance"]
    gamma: float = Field(ge=0, le=1)
    share: Share
    seed: int = 0
    without_major: bool = False


class DominatedPartition(_Config):
    """A balanced share, or one of which a class makes up most (Chen et al. 2023, sections A.1.1 and A.2.2).

    Attributes:
        provider: Samples of the provider, as many of each class.
        learner: Samples of the learner.
        major: Share of the learner's samples that its one class makes up, in [0, 1].
        share: Which of the two this node holds.
        seed: The same at both parties.
    """

    name: Literal["dominated"]
    provider: int = Field(ge=1)
    learner: int = Field(ge=1)
    major: float = Field(ge=0, le=1)
    share: Share
    seed: int = 0


class PowerLawPartition(_Config):
    """One of random shares that grow from the first to the last.

    Attributes:
        parties: How many shares there are.
        index: Which of them this node holds, in [0, parties).
        exponent: That of the power law, above 0; the smaller, the more the sizes differ.
        seed: The same at every party.
    """

    name: Literal["power-law"]
    parties: int = Field(ge=1)
    index: int = Field(ge=0)
    exponent: float = Field(default=POWER_LAW_EXPONENT, gt=0, allow_inf_nan=False)
    seed: int = 0


class ClassesPartition(_Config):
    """One of shares of one size, the first with one class, the last with all.

    Attributes:
        parties: How many shares there are.
        index: Which of them this node holds, in [0, parties).
        samples: How many each holds; absent for as many as there can be.
        seed: The same at every party.
    """

    name: Literal["classes"]
    parties: int = Field(ge=1)
    index: int = Field(ge=0)
    samples: int | None = Field(default=None, ge=1)
    seed: int = 0


class ComplementaryPartition(_Config):
    """Most of one half of the classes (Chen et al. 2023, figure 2).

    Attributes:
        fraction: What the learner holds of each class in the lower half, and the provider of the others, in [0, 1].
        share: Which of the two this node holds.
        seed: The same at both parties.
    """

    name: Literal["complementary"]
    fraction: float = Field(default=0.9, ge=0, le=1)
    share: Share
    seed: int = 0


Classes = (
    Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(max_length=2**16)]
    | Annotated[dict[str, Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=2**16)]
)
"""Names of classes: in the agreed order, or from a node's own names to the agreed ones, in the agreed order."""

PartitionConfig = Annotated[
    UniformPartition
    | ImbalancePartition
    | DominatedPartition
    | ComplementaryPartition
    | PowerLawPartition
    | ClassesPartition,
    Field(discriminator="name"),
]
"""A partition, told apart by its `name`."""


class SplitConfig(_Config):
    """Samples for something else than training: of a source of their own, or a share of those to train on.

    Attributes:
        source: Their source, read with the settings that `[data]` has; exactly one of this and `share`.
        share: The share of the training samples that is taken out for them, of each class the same, in (0, 1); drawn by
            `[data] seed` and by the samples' ids, so that it stays the same whatever else there is.
        protected: Samples of them that never leave this node: a file with an id a line, or, for experiments, a share drawn
            likewise.
        labelled: Whether their labels are known here; of a pool that people have yet to label they are not.
    """

    source: str | None = Field(default=None, examples=["imagefolder:pool"])
    share: float | None = Field(default=None, gt=0, lt=1)
    protected: Annotated[float, Field(ge=0, le=1)] | Path | None = None
    labelled: bool = True

    @model_validator(mode="after")
    def _of_one_origin(self) -> Self:
        if (self.source is None) == (self.share is None):
            raise ValueError("give a source, or the share of the training samples, one of the two")
        return self


class DataConfig(_Config):
    """A node's data.

    Attributes:
        source: `digits`, `torchvision:<Name>`, `cinic10:<dir>`, `imagefolder:<dir>`, `npz:<file>`, `text:<dir>` or
            `synthetic:fig2`.
        root: Where torchvision's files are, or what a relative path in `source` starts from.
        seed: Decides the test split of `digits` and of a `text` that brings none, the points of `synthetic:fig2`, and
            which labels are corrupted.
        image_size: The height and width to bring an `imagefolder`'s images to, in pixels.
        words: How many words of each sentence of a `text` to keep.
        per_class: Keep only the first samples of each class for training, this many; the test split stays whole.
        partition: Keep only a share of those; absent for data that are this node's own.
        splits: Further splits: `test`, where the source brings none or another is wanted, `validation`, `calibration`,
            `pool`.
        classes: The classes in the order that is agreed, as a list, or as a table from this node's own names to those that
            are agreed; left out, they are as the source has them.
        label_noise: Give this share of the samples to train on the label of another class, in experiments.
    """

    source: str = Field(examples=["imagefolder:scans"])
    root: Path | None = None
    seed: int = Field(default=0, ge=0, lt=2**32)
    image_size: int | None = Field(default=None, ge=1)
    words: int | None = Field(default=None, ge=1)
    per_class: int | None = Field(default=None, ge=1)
    partition: PartitionConfig | None = None
    splits: dict[SplitName, SplitConfig] = {}
    classes: Classes = ()
    label_noise: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _trained_on_the_source(self) -> Self:
        if "train" in self.splits:
            raise ValueError("splits.train is what `source` is: name the others")
        return self
