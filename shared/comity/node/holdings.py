"""What a party's data are: samples or games, read once, and never shown to another party."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from comity.contract import Preprocessing, TaskSpec
from comity.data import DataConfig, Splits, load_data
from comity.data.digests import digest
from comity.environments import EnvironmentConfig, EnvironmentSet, load_environments
from comity.errors import InvalidValue
from comity.protocol.implementation import Data
from comity.tasks import kind_for
from comity.tasks.meaning import hidden, hides_names, meaning_of, with_meaning

HeldData = DataConfig | EnvironmentConfig | Splits | EnvironmentSet | None
"""Where a party's data come from, or they themselves; None for a party without."""


_BLOCK = 4096
"""Samples that are looked at at a time."""
_FLAT = 1e-9
"""Standard deviation, as a share of the mean, up to which a feature does not vary."""


class Holdings:
    """A party's data.

    Args:
        party: Name of the party, for errors.
        config: Where they come from, or, of a party in this process, they themselves; None for a party without.
    """

    def __init__(self, party: str, config: HeldData) -> None:
        self._party = party
        self._config = config

    @cached_property
    def splits(self) -> Splits:
        """The party's samples, read once.

        Raises:
            InvalidValue: It has none.
        """
        if isinstance(self._config, Splits):
            return self._config
        if not isinstance(self._config, DataConfig):
            raise InvalidValue(
                f"{self._party} has no samples",
                expected="[data] with a source of samples",
                received="nothing" if self._config is None else "games",
                action="configure [data]",
            )
        return load_data(self._config)

    @cached_property
    def environments(self) -> EnvironmentSet:
        """The party's games, made once.

        Raises:
            InvalidValue: It has none, or they cannot be made here.
            TaskMismatch: A policy of scores cannot act in them.
        """
        if isinstance(self._config, EnvironmentSet):
            return self._config
        if not isinstance(self._config, EnvironmentConfig):
            raise InvalidValue(
                f"{self._party} has no games",
                expected='[data] with a source such as "gymnasium:CartPole-v1"',
                received="no data" if self._config is None else "samples",
                action="configure [data]",
            )
        return load_environments(self._config)

    @property
    def notes(self) -> tuple[str, ...]:
        """What there is to say of its samples: what was passed over, which classes have none."""
        return self.splits.notes if isinstance(self._config, DataConfig | Splits) else ()

    @cached_property
    def digest(self) -> str:
        """What tells these samples from others; empty for games, and for a party without data."""
        return digest(self.splits) if isinstance(self._config, DataConfig | Splits) else ""

    def reload(self) -> None:
        """Has data from elsewhere be read again, when they are next asked for; sessions keep those that they have."""
        if isinstance(self._config, DataConfig):
            for name in ("splits", "digest"):
                self.__dict__.pop(name, None)

    @property
    def is_reinforcement(self) -> bool:
        """Whether its data are games."""
        return isinstance(self._config, EnvironmentConfig | EnvironmentSet)

    @property
    def data(self) -> Data:
        """Its samples or its games; None for a party without."""
        if self.is_reinforcement:
            return self.environments
        return None if self._config is None else self.splits

    @property
    def count(self) -> int:
        """Number of its training samples, or of its games; 0 for a party without data."""
        data = self.data
        if data is None:
            return 0
        return len(data.parameters) if isinstance(data, EnvironmentSet) else len(data.train)

    def normalization(self) -> Preprocessing:
        """Mean and standard deviation of each channel of the training samples, in model range, to two digits.

        Raises:
            InvalidValue: There are none, or a channel does not vary.
        """
        train = self.splits.train
        others = [place for place in range(train.inputs.ndim) if place != 1]
        blocks = torch.arange(len(train)).split(_BLOCK)
        values = train.inputs[blocks[0]][:1].numel() // train.inputs.shape[1] * len(train) if blocks else 0

        def scaled(block: Tensor) -> Tensor:
            return train.inputs[block].double() * train.scale

        average = torch.stack([scaled(each).sum(dim=others) for each in blocks]).sum(dim=0) / values
        # About the mean, in a pass of its own: the difference of squares is all rounding where a feature hardly varies.
        apart = average.view(1, -1, *(1 for _ in others[1:]))
        squares = torch.stack([(scaled(each) - apart).square().sum(dim=others) for each in blocks]).sum(dim=0)
        std = (squares / values).sqrt().tolist()
        mean = average.tolist()
        names = train.meaning.features or tuple(f"channel {number}" for number in range(len(mean)))
        flat = [name for name, where, each in zip(names, mean, std, strict=False) if each <= _FLAT * abs(where)]
        if flat:
            raise InvalidValue(
                f"session.normalization cannot be computed at {self._party}: {flat[0]} is the same in all samples",
                expected="features that vary",
                received=f"{len(flat)} that do not: {', '.join(flat)[:200]}",
                action="leave them out of [data.table] columns at all parties, or write mean and std into the script",
            )
        # Two digits of what varies: enough to train with, and little of any one sample.
        return Preprocessing(
            mean=tuple(round(where, 1 - math.floor(math.log10(each))) for where, each in zip(mean, std, strict=True)),
            std=tuple(float(f"{each:.1e}") for each in std),
        )

    def task_spec(self, preprocessing: Preprocessing, salt: str = "") -> TaskSpec:
        """The task that this party's data are for, with what their numbers mean.

        Args:
            preprocessing: What is done to every input.
            salt: What digests are made with where names are not to cross.

        Raises:
            InvalidValue: It has no data, or the preprocessing does not fit them.
        """
        data = self.environments if self.is_reinforcement else self.splits
        task = with_meaning(kind_for(data).of(data, preprocessing), meaning_of(data))
        return hidden(task, salt) if hides_names(data) else task
