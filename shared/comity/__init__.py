"""Comity: organisations help each other's models while the data stays where it is.

    import comity

    parties = [comity.Party(model=Net, data=(x, y)), comity.Party(data=a_torch_dataset)]
    result = comity.simulate(protocol, parties, terms, rounds=5)
    result.model, result.rounds, result.digest

`comity.Party` and `comity.simulate` run a session in this process, `comity.connect` drives a node that runs, and
`comity.load_model` gives a model that a session left. Each
protocol's algorithms, and those of installed packages, are attributes under the protocol's name. Everything is imported
when it is used.
"""

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from comity.lazy import lazily

if TYPE_CHECKING:
    from comity.errors import ComityError
    from comity.front.connection import Node, Session, connect
    from comity.front.party import Party
    from comity.front.result import Result
    from comity.front.scripts import terms
    from comity.front.simulate import simulate
    from comity.front.table import Rounds
    from comity.node.artifacts.loading import SessionModel, load_model
    from comity.protocol.registry import protocol_names

_offered = lazily(
    __name__,
    {
        "errors": ["ComityError"],
        "front.connection": ["Node", "Session", "connect"],
        "front.party": ["Party"],
        "front.result": ["Result"],
        "front.scripts": ["terms"],
        "front.simulate": ["simulate"],
        "front.table": ["Rounds"],
        "node.artifacts.loading": ["SessionModel", "load_model"],
        "protocol.registry": ["protocol_names"],
    },
)

__all__ = [
    "ComityError",
    "Node",
    "Party",
    "Result",
    "Rounds",
    "Session",
    "SessionModel",
    "connect",
    "load_model",
    "protocol_names",
    "simulate",
    "terms",
    "version",
]


def version() -> str:
    """The installed version."""
    from importlib.metadata import version as installed  # noqa: PLC0415 - reads files; most callers never ask

    return installed("comity")


def __getattr__(name: str) -> ModuleType:
    """What this module offers, and the algorithms of every protocol that is installed, by the protocol's name."""
    if name in __all__:
        found: Any = _offered(name)
        return found  # type: ignore[no-any-return]
    if not name.startswith("_") and find_spec(f"{__name__}.{name}") is not None:
        return import_module(f"{__name__}.{name}")
    if not name.startswith("_"):
        from comity.protocol.registry import algorithms  # noqa: PLC0415 - reads what is installed

        package = algorithms(name)
        if package is not None:
            return package
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    from comity.protocol.registry import protocol_names as names  # noqa: PLC0415 - see above

    return sorted({*__all__, *names()})
