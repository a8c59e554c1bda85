"""What the checks work on; what one of them found is there for the next."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from comity.errors import ComityError, PeerUnreachable
from comity.node.config import NodeConfig, load_config
from comity.node.garbage import is_occupied, was_killed
from comity.node.preflight.rows import NotChecked
from comity.protocol.registry import protocols, protocols_for
from comity.store.secrets import GivenSecrets
from comity.transport.addresses import socket_url
from comity.transport.identity import Identity

if TYPE_CHECKING:
    from comity.node.party import LocalParty
    from comity.wire.v1 import control_pb2


_ANSWERS_S = 20.0
"""How long a node that is at work may take until it answers, in seconds: it reads its data first."""

_AGAIN_S = 0.2


@dataclass
class Context:
    """What is checked.

    Attributes:
        path: The node's configuration file.
        named_role: The role that was named; empty to find it out.
        script: A script that the node is to run, if one was named.
    """

    path: Path
    named_role: str = ""
    script: Path | None = None

    def load(self) -> NodeConfig:
        """Reads the configuration.

        Raises:
            UsageError: It cannot be used.
        """
        return load_config(NodeConfig, self.path)

    @cached_property
    def config(self) -> NodeConfig:
        """The configuration.

        Raises:
            NotChecked: It cannot be used; the check of the configuration says why.
        """
        try:
            return self.load()
        except ComityError as error:
            raise NotChecked("the configuration cannot be used") from error

    @cached_property
    def identity(self) -> Identity:
        """Certificate and trust.

        Raises:
            NotChecked: There are none; the check of the keys says so.
        """
        try:
            return self.config.identity
        except ComityError as error:
            raise NotChecked("there is neither [tls] nor insecure = true") from error

    @cached_property
    def running(self) -> control_pb2.NodeDescription | None:
        """The node itself, where it runs; one that is just starting, or busy, is waited for."""
        end = time.monotonic() + _ANSWERS_S
        while True:
            found = self._described()
            if found is not None or not self.has_node or time.monotonic() > end:
                return found
            time.sleep(_AGAIN_S)

    @property
    def has_node(self) -> bool:
        """Whether a node is at work in the `state_dir`, be it that it does not answer: it starts, or is about to end."""
        state = self.config.state_dir
        return is_occupied(state) and was_killed(state)

    def _described(self) -> control_pb2.NodeDescription | None:
        socket = self.config.control_socket
        if not socket.exists():
            return None
        from comity.node.control_client import ControlClient

        try:
            with ControlClient(socket_url(socket)) as control:
                return control.describe()
        except PeerUnreachable:
            # Left by a node that was killed, or of one that does not answer now.
            return None

    @cached_property
    def roles(self) -> tuple[str, ...]:
        """The roles that the node can have: the one that was named, or that it has or runs in; else those that fit."""
        if self.named_role:
            return (self.named_role,)
        if self.config.role:
            return (self.config.role,)
        if self.running is not None:
            return (self.running.role,)
        # An acceptor listens.
        fitting = (each.acceptor if self.config.listen else each.initiator for each in protocols())
        return tuple(dict.fromkeys(fitting))

    @cached_property
    def role(self) -> str:
        """The node's role.

        Raises:
            NotChecked: Nobody named it, and the configuration fits several.
        """
        if len(self.roles) != 1:
            raise NotChecked("the node's role is not known")
        return self.roles[0]

    @property
    def helps(self) -> bool:
        """Whether peers call this node."""
        return any(each.acceptor == self.role for each in protocols_for(self.role))

    @property
    def asks(self) -> bool:
        """Whether this node calls peers."""
        return any(each.initiator == self.role for each in protocols_for(self.role))

    @cached_property
    def local(self) -> LocalParty:
        """The party with its data, and with a store and a key that are thrown away."""
        from comity.node.party import LocalParty
        from comity.node.trials.apart import Trials
        from comity.store.memory_store import MemoryStore

        config = self.config
        local = LocalParty(config.party, config, GivenSecrets(b"preflight"), MemoryStore(), config.state_dir)
        local.trials = Trials(config.party, config, config.state_dir)
        return local
