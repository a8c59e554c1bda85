"""What a party's data are: samples or games, read once, and never shown to another party."""

from __future__ import annotations

from functools import cached_property

from comity.contract import Preprocessing, TaskSpec
from comity.data import DataConfig, Splits, load_data
from comity.environments import EnvironmentConfig, EnvironmentSet, load_environments
from comity.errors import InvalidValue
from comity.protocol.implementation import Data
from comity.tasks import kind_for

HeldData = DataConfig | EnvironmentConfig | Splits | EnvironmentSet | None
"""Where a party's data come from, or they themselves; None for a party without."""


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

    def task_spec(self, preprocessing: Preprocessing) -> TaskSpec:
        """The task that this party's data are for.

        Args:
            preprocessing: What is done to every input.

        Raises:
            InvalidValue: It has no data, or the preprocessing does not fit them.
        """
        data = self.environments if self.is_reinforcement else self.splits
        return kind_for(data).of(data, preprocessing)
