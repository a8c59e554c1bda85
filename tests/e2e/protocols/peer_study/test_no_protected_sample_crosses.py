"""Nothing of a client's samples crosses to the server of peer study: by the ledger, and by all that was on the line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from safetensors.torch import load as load_safetensors

from comity.data import load_data
from comity.ledger.ledger import Entry
from comity.node.sessions.script import parse_script
from tests.e2e.network import network
from tests.e2e.wiretap import Recording, Samples, make_samples, undo
from tests.ledgers import kept
from tests.protocols.peer_study.sessions import SESSIONS, UPLOADS

CLIENTS = ("ann", "bob")


@dataclass
class Watched:
    """A session that is over.

    Attributes:
        metrics: What it came to.
        recordings: What was on each client's line, as plain bytes.
        samples: Each client's.
        protected: Which of them are protected.
        sent: What left each client, by its ledger.
    """

    metrics: dict[str, Any]
    recordings: dict[str, Recording]
    samples: dict[str, Samples]
    protected: dict[str, list[int]]
    sent: dict[str, list[Entry]]


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    yield from watch(SESSIONS["plain"].text)


@pytest.fixture(scope="module")
def uploading() -> Iterator[Watched]:
    yield from watch(UPLOADS)


def watch(session: str) -> Iterator[Watched]:
    """Runs a session between processes, over TLS."""
    with TemporaryDirectory(prefix="e2e-") as name:
        folder, text = Path(name), session.replace("classes = 10", "classes = 4")
        samples = {}
        for number, client in enumerate(CLIENTS):
            samples[client] = make_samples(number, 80, as_floats=number == 0)
            samples[client].save(folder / f"{client}.npz")
            head, mark, tail = text.partition(f"[party.{client}.data]")
            tail = tail.replace('source = "digits"', f'source = "npz:{folder / client}.npz"', 1)
            for line in ("per_class = 12\n", f'partition = {{ name = "uniform", parties = 2, index = {number} }}\n'):
                tail = tail.replace(line, "", 1)
            text = head + mark + tail
        script = parse_script(text)
        protected = {}
        for client in CLIENTS:
            data = script.party[client].data
            assert data is not None
            pool = load_data(data).find("pool")
            assert pool is not None
            assert pool.protected is not None
            protected[client] = [int(pool.ids[at]) for at in pool.protected.nonzero().flatten().tolist()]
        with network(script, folder / "nodes") as found:
            metrics = found.run()["metrics"]
            recordings = {client: undo(found.lines[client, "server"].connections) for client in CLIENTS}
        chains = {client: kept(folder / "nodes" / client) for client in CLIENTS}
        sent = {client: [each for chain in found for each in chain.entries] for client, found in chains.items()}
        yield Watched(metrics, recordings, samples, protected, sent)


def protected_found(watched: Watched, client: str) -> set[int]:
    """The protected samples of which a part is on the client's line, in any form."""
    found = set()
    for form, samples in watched.samples[client].forms().items():
        for each in watched.protected[client]:
            parts = [samples[each, begin : begin + 16].tobytes() for begin in range(0, samples.shape[1], 16)]
            if watched.recordings[client].find([(form, part) for part in parts]):
                found.add(each)
    return found


def test_all_that_crossed_was_seen(watched: Watched) -> None:
    for client in CLIENTS:
        models = [load_safetensors(each) for each in watched.recordings[client].blobs() if each[8:9] == b"{"]
        # A model up and an average down in each of four rounds.
        assert len(models) == 8
        (name, tensor) = next(iter(models[0].items()))
        part = np.ascontiguousarray(tensor.numpy()).tobytes()[:16]
        assert watched.recordings[client].find([(name, part)]) == [name]


def test_no_protected_sample_crossed_by_the_ledger_and_on_the_line(watched: Watched) -> None:
    assert watched.metrics["protected_crossed"] == 0
    for client in CLIENTS:
        assert len(watched.protected[client]) > 20
        assert len(protected_found(watched, client)) == watched.metrics["protected_crossed"]
        kinds = {each.fact.kind for each in watched.sent[client] if each.fact.direction == "sent"}
        assert "update" in kinds
        assert "sample" not in kinds


def test_nor_did_any_other_sample_or_label(watched: Watched) -> None:
    for client in CLIENTS:
        for whose in CLIENTS:
            assert watched.recordings[client].find([*watched.samples[whose].needles()]) == []


def test_where_samples_leave_those_that_were_released_cross_and_no_protected_one(uploading: Watched) -> None:
    assert uploading.metrics["protected_crossed"] == 0
    for client in CLIENTS:
        assert len(uploading.protected[client]) > 20
        assert protected_found(uploading, client) == set()
        released = {each.fact.subject for each in uploading.sent[client] if each.fact.kind == "sample"}
        assert len(released) == 16
        # What the ledger calls a sample is what was on the line: the test would find a protected one there.
        crossed = {blake3(each).hexdigest() for each in uploading.recordings[client].blobs()}
        assert released <= crossed
        others = set(range(80)) - {*uploading.protected[client]}
        found = set()
        for form, samples in uploading.samples[client].forms().items():
            for each in others:
                parts = [samples[each, begin : begin + 16].tobytes() for begin in range(0, samples.shape[1], 16)]
                if uploading.recordings[client].find([(form, part) for part in parts]):
                    found.add(each)
        assert len(found) == 16
