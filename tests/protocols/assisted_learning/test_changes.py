"""Of checkpoints what changed crosses where the terms say so: less, and the session ends in the same model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from comity.ledger.ledger import bytes_by_kind
from comity.protocol.roles import run
from comity.protocols.assisted_learning.definition import PROTOCOL
from comity.transport.bindings.in_process import InProcessChannel


def crossed(pair: Any) -> list[dict[str, int]]:
    entries = list(pair.learner_store.entries()), list(pair.provider_store.entries())
    return [bytes_by_kind(each, direction) for each in entries for direction in ("sent", "received")]


Ending = tuple[str, list[dict[str, int]]]


@pytest.fixture(scope="module")
def undisturbed(make_pair: Callable[..., Any]) -> dict[str, Ending]:
    """How a session ends in one process, by how its checkpoints cross."""
    return {encoding: in_process(make_pair(trajectory_encoding=encoding)) for encoding in ("dense", "delta")}


def in_process(pair: Any) -> Ending:
    helping = PROTOCOL.load().acceptor(pair.provider.place, [pair.provider])
    digest = run(PROTOCOL.load().connected([pair.learner], [InProcessChannel(pair.provider, helping)]))[0].digest
    return digest, crossed(pair)


def test_what_changed_is_less_and_ends_in_the_same_model(undisturbed: dict[str, Ending]) -> None:
    (dense_digest, dense), (delta_digest, delta) = undisturbed["dense"], undisturbed["delta"]
    assert delta_digest == dense_digest
    for changed, whole in zip(delta, dense, strict=True):
        assert 0.2 < changed["checkpoint"] / whole["checkpoint"] < 0.95
