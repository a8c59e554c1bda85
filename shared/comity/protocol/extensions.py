"""What a protocol adds to a node beside its sessions, each named by where it is, so that nothing is imported before it is used."""

from __future__ import annotations

from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import Any

from pydantic import BaseModel

from comity.errors import UnsupportedProtocol


@dataclass(frozen=True, slots=True)
class ServiceExtension:
    """A service of a node for others than the peers of its sessions: it has an address, a trust and limits of its own.

    Attributes:
        name: Its name, as logs and the node's description have it.
        role: The role whose nodes offer it.
        run: `package.module:NAME` of a function that takes a `ServiceContext` and returns a context manager: entering it
            starts the service and gives a `RunningService`, or None where the node's settings leave it out; leaving it
            drains.
    """

    name: str
    role: str
    run: str


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb of the `comity` command.

    Attributes:
        name: What is typed; of two words where it is one of several, such as `labels export`.
        help: What it does, in a line.
        run: `package.module:NAME` of the function, annotated as typer wants it.
    """

    name: str
    help: str
    run: str


@dataclass(frozen=True, slots=True)
class Audit:
    """What a peer could have learned from what this node sent: `comity audit NAME SESSION`.

    Attributes:
        name: What is typed.
        help: What it finds out, in a line.
        run: `package.module:NAME` of a function that takes an `AuditContext` and returns what it found, by name.
    """

    name: str
    help: str
    run: str


@dataclass(frozen=True, slots=True)
class Extensions:
    """What a protocol adds to a node.

    Attributes:
        settings: `package.module:NAME` of the pydantic class of `[protocols.NAME]` in a node's configuration; empty for
            none.
        settings_template: `package:FILE` of the lines on them that a new node's configuration gets; empty for none.
        script_template: `package:FILE` of the first script of a new node that asks, or that opens sessions for others to join;
            `$acceptor` stands for the acceptor, or for all known peers where all may help at once, `$acceptor_value` for
            them as TOML, and `$normalization` for what may be done to inputs. Empty for none.
        services: Services of either side.
        verbs: Verbs of the command. A protocol of this project that has some is named in the entry-point group
            `comity.verbs` too, so that help need not look at those that have none.
        audits: Audits.
        predictor: `package.module:NAME` of a `PredictorFactory`, where a session's help goes on when its model answers:
            `comity predict --session` uses it. Empty where the models that a session leaves answer by themselves.
    """

    settings: str = ""
    settings_template: str = ""
    script_template: str = ""
    services: tuple[ServiceExtension, ...] = field(default=())
    verbs: tuple[Verb, ...] = field(default=())
    audits: tuple[Audit, ...] = field(default=())
    predictor: str = ""

    def settings_type(self) -> type[BaseModel] | None:
        """The class of the settings; None where there are none.

        Raises:
            UnsupportedProtocol: It cannot be imported.
        """
        return loaded(self.settings) if self.settings else None


def loaded(place: str) -> Any:
    """What an extension names.

    Raises:
        UnsupportedProtocol: It cannot be imported.
    """
    try:
        return resolve_name(place)
    except (Exception, SystemExit) as error:
        raise UnsupportedProtocol(
            f"{place} cannot be imported: {type(error).__name__}: {error}",
            action="repair or remove the package that has it",
        ) from error
