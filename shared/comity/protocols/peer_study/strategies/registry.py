"""Strategies by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from comity.errors import InvalidValue
from comity.protocols.peer_study.strategies.diverse import AlfaMix, Badge, CoreSet
from comity.protocols.peer_study.strategies.learned import LearnedLoss, Vaal
from comity.protocols.peer_study.strategies.scores import Entropy, PeerStudy, Random
from comity.protocols.peer_study.strategies.strategy import Strategy

STRATEGIES: Mapping[str, Callable[[], Strategy]] = {
    "peer_study": PeerStudy,
    "random": Random,
    "entropy": Entropy,
    "core_set": CoreSet,
    "badge": Badge,
    "alfa_mix": AlfaMix,
    "ll4al": LearnedLoss,
    "vaal": Vaal,
}


def strategy(name: str) -> Strategy:
    """The strategy of a name.

    Raises:
        InvalidValue: There is none.
    """
    if name not in STRATEGIES:
        raise InvalidValue("A strategy", expected=" or ".join(STRATEGIES), received=name)
    return STRATEGIES[name]()
