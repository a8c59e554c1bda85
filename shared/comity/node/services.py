"""The services that protocols add to a node: started when it is ready, drained when it stops."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import structlog

from comity.errors import InvalidValue
from comity.node.config import NodeConfig
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.extensions import loaded
from comity.protocol.services import RunService, ServiceContext
from comity.session.session_registry import SessionRegistry

log = structlog.get_logger()

Result = TypeVar("Result")


def start_services(
    stack: contextlib.ExitStack,
    role: str,
    config: NodeConfig,
    definitions: Sequence[ProtocolDefinition],
    hosted: SessionRegistry,
) -> dict[str, str]:
    """Starts what the protocols of a node add to it.

    Args:
        stack: Ends them.
        role: The node's role.
        config: Its configuration.
        definitions: The protocols that it takes part in.
        hosted: The sessions in which it helps.

    Returns:
        Their addresses by name, of those that the node's settings do not leave out.

    Raises:
        UsageError: The settings of one cannot be used.
    """
    addresses = {}
    for definition in definitions:
        for service in definition.extensions.services:
            if service.role != role:
                continue
            run: RunService = loaded(service.run)
            context = ServiceContext(
                config.party,
                role,
                config.settings_of(definition),
                config.identity,
                config.state_dir.resolve(),
                config.drain_s,
                _InSession(hosted, definition.name),
            )
            address = stack.enter_context(run(context))
            if address is not None:
                addresses[service.name] = address
                log.info("service-ready", service=service.name, protocol=definition.name, address=address)
    return addresses


class _InSession:
    """See `InSession`; a protocol reaches sessions of its own alone.

    Args:
        hosted: The node's sessions.
        protocol: The protocol.
    """

    def __init__(self, hosted: SessionRegistry, protocol: str) -> None:
        self._hosted = hosted
        self._protocol = protocol

    def __call__(self, session: str, request: Callable[[Any], Result]) -> Result:
        """See `InSession`."""
        found = self._hosted.find(session)
        if found is None or found.contract.protocol != self._protocol:
            raise InvalidValue(
                f"no such session of {self._protocol} is active here",
                expected="one in which this node helps",
                received=session,
                action="comity sessions lists them",
            )
        return found.worker.call(lambda: request(found.role))
