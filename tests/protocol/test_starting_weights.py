"""Weights that models begin with, in every registered protocol: who lacks them gets them where their owner's policy says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from comity.errors import UnknownWeights
from comity.protocol.registry import protocol
from comity.simulation.in_process import parties, simulate
from tests.beginnings import begun, with_files
from tests.cases import PROTOCOLS, plain


@pytest.mark.parametrize("name", PROTOCOLS)
def test_whoever_lacks_them_gets_them_and_the_session_is_the_same(name: str, tmp_path: Path) -> None:
    script = plain(name).script
    initiators, acceptors = parties(script)
    many = protocol(name).topology.is_joined
    center, others = (acceptors[0], initiators) if many else (initiators[0], acceptors)
    script, files, size = begun(script, tmp_path)
    if not files:
        pytest.skip(f"no model crosses in {name}")
    shared, _ = simulate(with_files(script, files, *script.party, sends=False))
    assert "initial" not in shared.bytes_sent
    sent, _ = simulate(with_files(script, files, center.name, sends=True))
    assert sent.digest == shared.digest
    assert sent.bytes_sent["initial"] == size * len(others)
    with pytest.raises(UnknownWeights, match="does not have the weights"):
        simulate(with_files(script, files, center.name, sends=False))
