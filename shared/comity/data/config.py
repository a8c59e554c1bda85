"""What a node's configuration says about its data. Light: reading a configuration imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from comity.data.spelling import spelled_in

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
    "tiny-imagenet:<dir>": "Tiny ImageNet, the folder with train and val",
    "cityscapes:<dir>": "Cityscapes, the folder with leftImg8bit and gtFine",
    "cityscapes-tasks:<dir>": "Cityscapes as three tasks, with gtFinePanopticParts and disparity too",
    "nyuv2:<dir>": "NYUv2 as three tasks: classes, depth and normals of pixels",
    "synthetic:<name>": "points that a seed makes, for example synthetic:fig2",
    "npz:<file>": "arrays of NumPy: x, y, x_test, y_test",
    "text:<dir>": "a file of sentences for each class",
    "csv:<file>": "a table as text; [data.table] says what its columns are",
    "parquet:<file>": "a table in Apache Parquet's format, likewise (extra table)",
    "python:<module>:<name>": "a function of your own that gives a torch Dataset, or tensors",
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


_NAMES = ("target", "columns", "categories", "fill", "units", "id", "protected")
"""What of a table's description are names."""

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


TABLES = frozenset({"csv", "parquet"})
"""Kinds of source that are tables."""

MARKED = frozenset({"1", "true", "yes"})
"""What a cell says of a row that has a label, or is protected, in small letters."""

MARKS = MARKED | {"0", "false", "no", ""}
"""What a column of labels or marks may hold."""

Column = Annotated[str, Field(min_length=1, max_length=200)]


class TableConfig(_Config):
    """What the columns of a table are. Nothing is guessed: a column that is not named here is not used.

    Attributes:
        target: The column with the class, or with the number to be told; several for several numbers or labels.
        columns: Columns that are inputs, in the order that is agreed.
        categories: Values of columns that hold no numbers, in the agreed order: each becomes an input that is 1 or 0.
        missing: What stands for a value that is missing, beside an empty cell.
        fill: What takes the place of missing values, by column: a number, or a category; a missing value of another column
            is an error.
        kind: What targets are: classes, numbers, or labels, of which a row has any: 1, true or yes, and 0, false, no or
            nothing.
        units: Units of targets that are numbers, in order.
        target_mean: What is taken off each target when a model is trained; as the contract says, if left out.
        target_std: What each target is then divided by, likewise.
        id: Column with an id of each row, each once; left out, rows are numbered.
        protected: Column that marks rows that never leave: 1, true or yes.
        separator: What stands between cells; left out, it is looked for among comma, semicolon and tab.
        decimal: What stands before decimals.
        encoding: How a text is encoded; left out, UTF-8, or UTF-16 where the file begins with its mark.
    """

    target: Column | Annotated[tuple[Column, ...], Field(min_length=1, max_length=1000)]
    columns: Annotated[tuple[Column, ...], Field(min_length=1, max_length=2**16)]
    categories: dict[Column, Annotated[tuple[str, ...], Field(min_length=2, max_length=2**16)]] = {}
    missing: tuple[str, ...] = ("NA", "NaN", "nan", "null", "?")
    fill: dict[Column, float | str] = {}
    kind: Literal["classes", "numbers", "labels"] = "classes"
    units: tuple[str, ...] = ()
    target_mean: tuple[float, ...] = ()
    target_std: tuple[Annotated[float, Field(gt=0)], ...] = ()
    id: Column | None = None
    protected: Column | None = None
    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    decimal: Literal[".", ","] = "."
    encoding: str | None = None

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns with what is to be told."""
        return (self.target,) if isinstance(self.target, str) else self.target

    @model_validator(mode="before")
    @classmethod
    def _spelled(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {name: spelled_in(each) if name in _NAMES else each for name, each in value.items()}

    @model_validator(mode="after")
    def _each_column_once(self) -> Self:
        used = [*self.targets, *self.columns, *(each for each in (self.id, self.protected) if each)]
        if twice := [name for name in used if used.count(name) > 1]:
            raise ValueError(
                f"the column {twice[0]} is named twice: inputs, targets, id and protected are other columns"
            )
        for name, places in (("categories", self.categories), ("fill", self.fill)):
            if unknown := [each for each in places if each not in self.columns]:
                raise ValueError(f"{name} names {unknown[0]}, which is none of the columns")
        if self.kind != "numbers" and (self.units or self.target_mean or self.target_std):
            raise ValueError(f'{self.kind} have no units and no scale; kind = "numbers" has')
        if self.kind == "classes" and len(self.targets) > 1:
            raise ValueError('classes have one column; kind = "numbers" or "labels" has several')
        for name in ("units", "target_mean", "target_std"):
            if len(getattr(self, name)) not in {0, len(self.targets)}:
                raise ValueError(f"{name} needs one for each target, or none")
        return self


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
        source: `digits`, `torchvision:<Name>`, `cinic10:<dir>`, `tiny-imagenet:<dir>`, `cityscapes:<dir>`, `imagefolder:<dir>`, `npz:<file>`, `text:<dir>`,
            `csv:<file>`, `parquet:<file>`, `python:<module>:<name>`, `synthetic:fig2`, or one that a package adds.
        root: Where torchvision's files are, or what a relative path in `source` starts from.
        seed: Decides the test split of `digits` and of a `text` that brings none, the points of `synthetic:fig2`, and
            which labels are corrupted.
        image_size: The height and width to bring an `imagefolder`'s images to, in pixels; of `cityscapes` the height, and half
            the width.
        channels: How many channels to bring an `imagefolder`'s images to: 1 for grey, 3 for colours; theirs if left out.
        table: What the columns of a `csv` or a `parquet` are.
        in_memory: Whether inputs are read at once; false for more than fit in memory, of an `imagefolder`, `cityscapes` or a function that
            gives a torch data set: they are then read when a step asks for them.
        words: How many words of each sentence of a `text` to keep.
        per_class: Keep only the first samples of each class for training, this many; the test split stays whole.
        partition: Keep only a share of those; absent for data that are this node's own.
        without: Classes, by their numbers, of which no sample is kept to train on, in experiments; other splits keep theirs.
        splits: Further splits: `test`, where the source brings none or another is wanted, `validation`, `calibration`,
            `pool`.
        classes: The classes in the order that is agreed, as a list, or as a table from this node's own names to those that
            are agreed; left out, they are as the source has them.
        features: Names of the features, in order, of a source that has none itself.
        hide_names: Whether names of classes and features cross as salted digests alone, which tell whether the other side
            has the same.
        label_noise: Give this share of the samples to train on the label of another class, in experiments.
        relabel: What the label of each class becomes, in the order of the classes: `[0, 1, 0, 1]` makes two classes of
            four; left out, labels stay.
    """

    source: str = Field(examples=["imagefolder:scans"])
    root: Path | None = None
    seed: int = Field(default=0, ge=0, lt=2**32)
    image_size: int | None = Field(default=None, ge=1)
    channels: Literal[1, 3] | None = None
    in_memory: bool = True
    table: TableConfig | None = None
    words: int | None = Field(default=None, ge=1)
    per_class: int | None = Field(default=None, ge=1)
    partition: PartitionConfig | None = None
    without: tuple[Annotated[int, Field(ge=0)], ...] = ()
    splits: dict[SplitName, SplitConfig] = {}
    classes: Classes = ()
    features: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(max_length=2**16)] = ()
    hide_names: bool = False
    label_noise: float = Field(default=0.0, ge=0, le=1)
    relabel: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] | None = None

    @field_validator("classes", "features", mode="before")
    @classmethod
    def _spelled(cls, value: object) -> object:
        return spelled_in(value)

    @model_validator(mode="after")
    def _trained_on_the_source(self) -> Self:
        if "train" in self.splits:
            raise ValueError("splits.train is what `source` is: name the others")
        return self
