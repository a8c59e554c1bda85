"""What a protocol says of itself costs nothing to know."""

from __future__ import annotations

import subprocess
import sys
from typing import ClassVar

import pytest

from comity.errors import MalformedMessage
from comity.protocol.registry import protocol, protocol_names
from comity.protocol.topology import Topology
from comity.transport.negotiation import require_models

PROGRAM = """
import sys
from typing import ClassVar
from comity.errors import MalformedMessage
from comity.protocol.registry import protocols
assert protocols()
heavy = {"torch", "grpc", "google.protobuf", "sqlalchemy", "numpy"} & set(sys.modules)
assert not heavy, heavy
"""


def test_loading_every_definition_imports_neither_torch_nor_grpc_nor_protobuf() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("name", protocol_names())
def test_a_protocol_is_found_by_either_spelling(name: str) -> None:
    assert protocol(name) is protocol(name.replace("_", "-"))
    assert protocol(name).name == name


@pytest.mark.parametrize("name", protocol_names())
def test_everything_that_a_definition_names_is_there(name: str) -> None:
    definition = protocol(name)
    assert definition.load().service.name
    message = definition.terms_message()
    assert {field.name for field in message.DESCRIPTOR.fields} == set(definition.terms.model_fields)
    assert set(definition.presentation.view.columns) == set(definition.roles)
    settings = definition.extensions.settings_type()
    assert settings is None or settings() is not None


@pytest.mark.parametrize("name", protocol_names())
def test_what_each_side_sends_follows_from_its_calls(name: str) -> None:
    definition = protocol(name)
    service = definition.load().service
    by_initiator, by_acceptor = (service.kinds_sent(by_initiator=each) for each in (True, False))
    assert by_initiator | by_acceptor == {*definition.egress}
    assert "contract" in by_initiator & by_acceptor


def test_a_topology_says_who_sees_the_whole_session() -> None:
    assert Topology.OPEN.is_joined
    assert Topology.OPEN.center("client", "server") == "server"
    assert not Topology.FAN_OUT.is_joined
    assert Topology.FAN_OUT.many_acceptors
    assert not Topology.PAIR.many_acceptors
    assert Topology.PAIR.center("client", "server") == "client"


def test_terms_may_do_without_models_and_kinds() -> None:
    definition = protocol("teacher_votes")
    plain, scored = (definition.terms.model_validate({"scored": scored}) for scored in (False, True))
    assert definition.egress_of(plain) == ("contract", "vote")
    assert definition.egress_of(scored) == definition.egress
    assert definition.models_of(plain) == definition.models

    class Alone(definition.terms):  # type: ignore[misc,name-defined]
        """Terms with which the student stays where it is."""

        without: ClassVar[frozenset[str]] = frozenset({"student"})

    assert definition.models_of(Alone()) == ()
    with pytest.raises(MalformedMessage, match="expected none, received student"):
        require_models(["student"], definition, Alone())
