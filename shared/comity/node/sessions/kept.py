"""What is kept of a session, read again. Light: looking a session up imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comity.contract import Contract, Json
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.registry import protocol
from comity.store.store import StoredSession


def stored_contract(session: StoredSession) -> tuple[Contract, ProtocolDefinition]:
    """The contract of a session that was kept, and its protocol."""
    return contract_of(session.contract)


def contract_of(kept: Mapping[str, Json]) -> tuple[Contract, ProtocolDefinition]:
    """A contract as it was kept, and its protocol."""
    fields: dict[str, Any] = dict(kept)
    definition = protocol(fields["protocol"])
    terms = definition.terms.model_validate(fields["terms"])
    return Contract.model_validate(fields | {"terms": terms}), definition
