"""Strategies by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from comity.errors import InvalidValue, MissingFile
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


ACTIVE_ML = "skactiveml:"
"""With what the name of one of scikit-activeml's strategies begins."""


def strategy(name: str) -> Strategy:
    """The strategy of a name.

    Raises:
        InvalidValue: There is none.
        MissingFile: It is scikit-activeml's, which is not installed.
    """
    of_active_ml = name.removeprefix(ACTIVE_ML)
    if of_active_ml != name:
        try:
            from comity.protocols.peer_study.strategies.activeml import from_activeml  # noqa: PLC0415 - extra `active`
        except ImportError as error:
            raise MissingFile(
                "scikit-activeml's strategies cannot be asked",
                expected="the extra active",
                received="none installed",
                action="pip install 'comity[active]'",
            ) from error
        return from_activeml(of_active_ml)
    if name not in STRATEGIES:
        raise InvalidValue("A strategy", expected=" or ".join(STRATEGIES), received=name)
    return STRATEGIES[name]()
