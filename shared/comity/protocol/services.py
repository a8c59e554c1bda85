"""Services of a node for others than the peers of its sessions; a protocol's extensions name them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import grpc
import structlog
from pydantic import BaseModel, ConfigDict, Field

from comity.errors import UnknownSession, UsageError
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.extensions import ServiceExtension, loaded
from comity.session.egress_rules import require_service
from comity.transport.identity import Identity
from comity.transport.server import NodeServer

log = structlog.get_logger()


class ServiceSettings(BaseModel):
    """Where a service listens and whom it trusts, for the settings of a protocol that has one.

    Attributes:
        listen: Where it listens, `host:port`; empty for not at all.
        trust: Folder with a card for each party that may call it, or a file of certificates that theirs must lead to; left
            out, those whom the node trusts, or, of a service for operators, this party alone. Relative paths count from
            where the node was started.
        drain_s: How long calls may take when the node is stopped, in seconds.
    """

    model_config = ConfigDict(extra="forbid")

    listen: str = ""
    trust: Path | None = None
    drain_s: Annotated[float, Field(ge=0)] = 5.0


InSession = Callable[[str, Callable[[Any], Any]], Any]


def _none_here(session: str, request: Callable[[Any], Any]) -> Any:
    del request
    raise UnknownSession("there are no sessions here", received=session)


@dataclass(frozen=True)
class ServiceContext:
    """What a service is built from.

    Attributes:
        party: This party.
        role: The node's role.
        settings: The node's settings of the protocol.
        identity: The node's certificate, and whom its peers' server trusts.
        state_dir: What the node keeps.
        in_session: Reaches the role of a session of the protocol in which the node helps: takes its identifier and what is
            done with the role between two units of its work, and returns the result.
        servers: The node's servers, to which a service adds its own: whoever is revoked while the node runs is then refused
            there, too.
    """

    party: str
    role: str
    settings: Any
    identity: Identity
    state_dir: Path
    in_session: InSession = _none_here
    servers: list[NodeServer] = field(default_factory=list)


@dataclass(frozen=True)
class RunningService:
    """A service that runs.

    Attributes:
        address: Where it is reached.
        handle: What the protocol's roles in this process get, so that the two find each other.
    """

    address: str
    handle: Any = None


Service = Callable[[ServiceContext], AbstractContextManager[RunningService | None]]
"""What an extension names."""


@contextmanager
def served(
    context: ServiceContext,
    settings: ServiceSettings,
    names: Sequence[str],
    register: Callable[[grpc.Server], None],
) -> Iterator[str]:
    """Serves gRPC with the same identity, error boundary, health and reflection as a node's server for its peers.

    What is served has rules, as everything that leaves has: there is no session, so nothing but `control` and statements
    may leave. Messages that are for operators only need none, and nobody is let in but this party itself, with the node's
    certificate, and whom `settings.trust` names.

    Args:
        context: The service's.
        settings: Where, and for whom.
        names: Full names of the services; no other is served.
        register: Adds their handlers.

    Yields:
        The address.

    Raises:
        InvalidValue: It is no address, or plaintext would leave this machine.
        AddressInUse: The address is in use.
        UnsupportedProtocol: A message could tell something, or has no rule.
    """
    for_operators = [require_service(name) for name in names]
    only = context.party if any(for_operators) and settings.trust is None else None
    identity = context.identity if settings.trust is None else replace(context.identity, trust=settings.trust)
    server = NodeServer(identity if identity.is_secure else None, list(names), only=only)
    register(server.server)
    address = server.start(settings.listen)
    context.servers.append(server)
    try:
        yield address
    finally:
        server.stop(settings.drain_s)


@dataclass
class Services:
    """The services of a node.

    Attributes:
        running: Those that run, by name.
    """

    running: dict[str, RunningService] = field(default_factory=dict)

    @property
    def handles(self) -> Mapping[str, Any]:
        """What roles get of them, by name."""
        return {name: service.handle for name, service in self.running.items()}

    def start(
        self,
        stack: ExitStack,
        role: str,
        definitions: Sequence[ProtocolDefinition],
        context_of: Callable[[ProtocolDefinition], ServiceContext],
    ) -> None:
        """Starts what the protocols have for a node's role.

        Args:
            stack: Drains them when it is left.
            role: The node's role.
            definitions: The protocols.
            context_of: What a protocol's services are built from.

        Raises:
            UsageError: One cannot be started as it is configured. Of one that fails otherwise, or whose name is taken, there
                is a line in the log.
        """
        for definition in definitions:
            context = partial(context_of, definition)
            for each in definition.extensions.services:
                if each.role == role:
                    self._start(stack, definition, each, context)

    def _start(
        self,
        stack: ExitStack,
        definition: ProtocolDefinition,
        service: ServiceExtension,
        context: Callable[[], ServiceContext],
    ) -> None:
        if service.name in self.running:
            what = "another has that name; repair or remove the package of one of them"
            log.warning("service-unusable", service=service.name, protocol=definition.name, error=what)
            return
        try:
            run: Service = loaded(service.run)
            started = stack.enter_context(run(context()))
        except UsageError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the node does without it
            log.warning("service-unusable", service=service.name, protocol=definition.name, error=str(error))
            return
        if started is not None:
            self.running[service.name] = started
            log.info("service-ready", service=service.name, protocol=definition.name, address=started.address)
