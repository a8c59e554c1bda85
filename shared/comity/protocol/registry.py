"""The protocols of this installation: its own, and those that other packages add.

A package that cannot be used is passed over, and said once where a node starts or a command lists protocols: the others
work.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from pkgutil import resolve_name
from types import ModuleType

from pydantic import BaseModel

from comity.errors import ComityError, UnsupportedProtocol
from comity.protocol.definition import ProtocolDefinition
from comity.suggestions import did_you_mean

GROUP = "comity.protocols"
_OWN = "comity"


@dataclass(frozen=True, slots=True)
class Unusable:
    """A package whose protocol cannot be used.

    Attributes:
        package: The package, as it is installed.
        name: What it calls its protocol.
        what: Why not.
    """

    package: str
    name: str
    what: str

    def __str__(self) -> str:
        """All of it in a line."""
        what = " ".join(self.what.split())
        return f"the protocol {self.name} of package {self.package} is left out: {what}; repair or remove the package"


def spelled(name: str) -> str:
    """A protocol's name with underscores, as contracts have it; hyphens are taken too."""
    return name.replace("-", "_")


def protocol_names() -> list[str]:
    """Names of all registered protocols, without loading any."""
    return sorted(_registered()[0])


def protocol(name: str) -> ProtocolDefinition:
    """A protocol by its name, with underscores or hyphens.

    Raises:
        UnsupportedProtocol: There is none of that name, or its package cannot be used.
    """
    registered, _ = _registered()
    wanted = spelled(name)
    if wanted not in registered:
        action = did_you_mean(wanted, registered, "install the package that registers it")
        raise UnsupportedProtocol(
            "no such protocol here", expected=", ".join(sorted(registered)), received=name, action=action
        )
    found = _loaded(wanted)
    if isinstance(found, Unusable):
        raise UnsupportedProtocol(
            f"the protocol {wanted} cannot be used here: {found.what}",
            action=f"repair or remove the package {found.package}",
        )
    return found


def algorithms(name: str) -> ModuleType | None:
    """The package of a registered protocol, which offers its algorithms; None where there is no such protocol.

    Raises:
        UnsupportedProtocol: Its package cannot be used.
    """
    point = _registered()[0].get(name)
    if point is None:
        return None
    protocol(name)
    return import_module(point.module.rpartition(".")[0] or point.module)


def protocols() -> list[ProtocolDefinition]:
    """Every protocol that can be used, by name; see `unusable` for the others."""
    found = map(_loaded, protocol_names())
    return [each for each in found if isinstance(each, ProtocolDefinition)]


def protocols_for(role: str) -> list[ProtocolDefinition]:
    """The protocols in which a role helps or asks."""
    return [each for each in protocols() if role in each.roles]


def roles() -> list[str]:
    """The roles that there are in any protocol, those that ask first."""
    return list(dict.fromkeys([each.initiator for each in protocols()] + [each.acceptor for each in protocols()]))


def unusable(*, implementations: bool = False) -> list[Unusable]:
    """What cannot be used, and why; in the order of the names.

    Args:
        implementations: Look too at what needs torch, grpc and protobuf.
    """
    found = list(_registered()[1])
    for name in protocol_names():
        definition = _loaded(name)
        if isinstance(definition, Unusable):
            found.append(definition)
        elif implementations and (broken := _broken(name)) is not None:
            found.append(broken)
    return sorted(found, key=lambda each: (each.name, each.package))


def usable_for(role: str) -> list[ProtocolDefinition]:
    """The protocols in which a role helps or asks, whose implementations load."""
    return [each for each in protocols_for(role) if _broken(each.name) is None]


@cache
def _registered() -> tuple[dict[str, EntryPoint], tuple[Unusable, ...]]:
    """Entry points by name, and those that take a name that is taken."""
    # To look through all that is installed takes its time.
    found: dict[str, EntryPoint] = {}
    refused = []
    # The project's own protocols are nobody else's to replace; of others, the order does not change.
    for point in sorted(entry_points(group=GROUP), key=lambda each: (_package(each) != _OWN, _package(each))):
        name = spelled(point.name)
        if name in found and _package(found[name]) != _package(point):
            refused.append(Unusable(_package(point), name, f"package {_package(found[name])} has one of that name"))
        else:
            found[name] = point
    return found, tuple(refused)


@cache
def _loaded(name: str) -> ProtocolDefinition | Unusable:
    point = _registered()[0][name]
    try:
        definition = point.load()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever somebody else's package does, the others work
        return Unusable(_package(point), name, f"it cannot be imported from {point.value}: {_said(error)}")
    if not isinstance(definition, ProtocolDefinition):
        what = f"{point.value} is a {type(definition).__name__} and no ProtocolDefinition"
        return Unusable(_package(point), name, what)
    if definition.name != name:
        return Unusable(_package(point), name, f"its definition calls itself {definition.name}")
    for place in filter(None, (definition.extensions.settings_template, definition.extensions.script_template)):
        if not _is_there(place):
            return Unusable(_package(point), name, f"it has no file {place}")
    return definition


def _is_there(place: str) -> bool:
    """Whether there is a file `package:FILE`."""
    package, _, file = place.partition(":")
    try:
        return bool(file) and files(package).joinpath(file).is_file()
    except (Exception, SystemExit):  # noqa: BLE001 - see above
        return False


@cache
def _broken(name: str) -> Unusable | None:
    """Why a protocol's implementation cannot be used; None where it can."""
    definition = _loaded(name)
    if isinstance(definition, Unusable):
        return definition
    package = _package(_registered()[0][name])
    try:
        what = _unfit(definition, package)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - see above
        what = _said(error)
    return None if what is None else Unusable(package, name, what)


def _unfit(definition: ProtocolDefinition, package: str) -> str | None:
    """What of a protocol's implementation does not go with its definition or with other protocols; None for nothing."""
    implementation = definition.load()
    # By name, since it needs torch.
    if not isinstance(implementation, resolve_name("comity.protocol.implementation:Implementation")):
        return f"{definition.implementation} is a {type(implementation).__name__} and no Implementation"
    settings = definition.extensions.settings_type()
    if settings is not None and not (isinstance(settings, type) and issubclass(settings, BaseModel)):
        return f"{definition.extensions.settings} is no pydantic class"
    message = {each.name for each in definition.terms_message().DESCRIPTOR.fields}
    if message != set(definition.terms.model_fields):
        differ = ", ".join(sorted(message ^ set(definition.terms.model_fields)))
        return f"its terms and their message have other fields: {differ}"
    service = implementation.service.name
    taken = None if package == _OWN else _has_service(service, definition.name)
    return None if taken is None else f"{taken} has the calls of {service}"


def _has_service(service: str, name: str) -> str | None:
    """The protocol that goes before one of this name and whose calls are those of a service."""
    for other in protocols():
        goes_first = other.name < name or _package(_registered()[0][other.name]) == _OWN
        if other.name != name and goes_first and _broken(other.name) is None and other.load().service.name == service:
            return other.name
    return None


def _said(error: BaseException) -> str:
    return str(error) if isinstance(error, ComityError) else f"{type(error).__name__}: {error}"


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.module.partition(".")[0]
