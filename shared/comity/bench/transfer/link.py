"""The product's way: pack, hash, `PeerConnection.put` and `PeerConnection.get`."""

from __future__ import annotations

import time

from comity.bench.transfer.process import Peer
from comity.bench.transfer.workload import RECEIVER, ROUND, Workload
from comity.ledger.ledger import in_round
from comity.tensors import Blob
from comity.transport.peer_connection import PeerConnection


class Courier:
    """Moves checkpoints between this process and the other one.

    Args:
        link: A line to the other process, which quotes the session already.
        peer: The other process.
        workload: What is moved.
    """

    def __init__(self, link: PeerConnection, peer: Peer, workload: Workload) -> None:
        self._link = link
        self._peer = peer
        self._workload = workload
        self._gate = workload.gate(RECEIVER)

    def upload(self) -> float:
        """Seconds from a state dict here to its tensors there; the answer comes when they are verified."""
        self._peer.ask("expect")
        self._workload.train()
        began = time.perf_counter()
        blob = self.pack()
        self._link.put(blob, "checkpoint", in_round(ROUND), before=lambda _: self._intend(blob))
        return time.perf_counter() - began

    def download(self) -> float:
        """Seconds from a state dict there to its verified tensors here."""
        layout = self._workload.layout
        began = time.perf_counter()
        digest = bytes.fromhex(self._peer.ask("publish")["digest"])
        blob = self._link.get(digest, layout.size, layout.verify)
        layout.view(blob.data)
        return time.perf_counter() - began

    def pack(self) -> Blob:
        """A blob of the state dict here."""
        return self._workload.layout.pack(self._workload.state)

    def _intend(self, blob: Blob) -> None:
        self._gate.send_blob(blob, "checkpoint", in_round(ROUND))
