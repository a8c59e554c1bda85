"""The other process: a node's blob service, and the baselines' servers, driven by lines of JSON.

It answers each line on standard input with one on standard output, and ends with the input.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from comity.bench.memory import PeakMemory
from comity.bench.transfer import plain, sockets
from comity.bench.transfer.workload import RECEIVER, ROUND, SENDER, Workload
from comity.blobs.session_blobs import Expectation, SessionBlobs
from comity.contract import Membership
from comity.errors import ComityError
from comity.ledger.ledger import in_round
from comity.ledger.receipts import Signer
from comity.session.contexts import PeerContext, SessionContext
from comity.session.events import ignore
from comity.session.gate import EgressGate
from comity.session.policy import Policy
from comity.session.receipt_book import ReceiptBook
from comity.session.session_registry import AcceptedSession, SessionRegistry
from comity.session.waiting import Waits
from comity.session.worker import SessionWorker
from comity.store.journal import Journal
from comity.store.memory_store import MemoryStore
from comity.tensors import Blob
from comity.transport.blobs import SERVICE, BlobServicer
from comity.transport.identity import Identity
from comity.transport.server import NodeServer
from comity.transport.sessions import session_of


class _Idle:
    """A role with nothing to do."""

    def advance(self) -> bool:
        """See `Steppable`."""
        return False

    def fail(self, error: ComityError) -> None:
        """See `Steppable`."""


class PeerProcess:
    """What the other process does.

    Args:
        workload: What is moved.
        identities: Its certificates by name of the security; None for plaintext.
    """

    def __init__(self, workload: Workload, identities: dict[str, Identity | None]) -> None:
        self._workload = workload
        self._identities = identities
        self._blobs = SessionBlobs()
        self._memory: PeakMemory | None = None
        self._commands: dict[str, Callable[[], dict[str, Any]]] = {
            "expect": self._expect,
            "publish": self._publish,
            "mark": self._mark,
            "peak": self._peak,
        }

    def serve(self) -> None:
        """Serves until standard input ends."""
        with ExitStack() as stack:
            sessions = self._session(stack)
            ports = {name: self._start(identity, sessions, stack) for name, identity in self._identities.items()}
            self._answer(ports)
            for line in sys.stdin:
                self._answer(self._commands[line.strip()]())

    def _session(self, stack: ExitStack) -> SessionRegistry:
        """The one session that all services look into."""
        contract = self._workload.contract
        signers = {name: Signer.from_seed(name.encode().ljust(32), name) for name in (RECEIVER, SENDER)}
        own, peer = (
            Membership(party=name, role=name, samples=1, receipt_key=signer.public_key)
            for name, signer in signers.items()
        )
        store = MemoryStore()
        journal, waits = Journal(store, contract.session), Waits(store, contract.session)
        place = SessionContext(contract, own, None, self._blobs, journal, ignore, waits)
        gate, receipt_book = (
            EgressGate(contract, Policy(), store, SENDER),
            ReceiptBook(signers[RECEIVER], store, contract, peer),
        )
        peer_context = PeerContext(place, peer, self._blobs, gate, receipt_book)
        worker = SessionWorker(_Idle(), "idle")
        stack.callback(worker.stop)
        sessions = SessionRegistry()
        sessions.add(AcceptedSession(peer_context, _Idle(), worker))
        return sessions

    def _start(self, identity: Identity | None, sessions: SessionRegistry, stack: ExitStack) -> dict[str, int]:
        """Starts the node's blob service and both baselines; returns their ports."""
        node = NodeServer(identity, [SERVICE])
        BlobServicer(lambda context: session_of(sessions, context)).add_to(node.server)
        address = node.start("127.0.0.1:0")
        stack.callback(node.stop, 0)
        server, port = plain.serve(identity)
        stack.callback(lambda: server.stop(0).wait())
        context = None if identity is None else sockets.server_context(identity)
        raw = sockets.serve(self._workload.layout.size, context)
        return {"comity": int(address.rpartition(":")[2]), "plain": port, "raw": raw}

    def _expect(self) -> dict[str, Any]:
        """Drops what came, and waits for the next."""
        layout = self._workload.layout

        def verify(blob: Blob) -> None:
            layout.verify(blob)
            layout.view(blob.data)

        self._blobs.keep(())
        self._blobs.expect(Expectation("checkpoint", in_round(ROUND), layout.size, 1, verify))
        return {}

    def _publish(self) -> dict[str, Any]:
        """Makes a checkpoint that can be asked for."""
        self._blobs.keep(())
        blob = self._blobs.add(self._workload.layout.pack(self._workload.state))
        self._blobs.publish(blob.digest, "checkpoint", in_round(ROUND))
        self._workload.train()
        return {"digest": blob.hex}

    def _mark(self) -> dict[str, Any]:
        """Counts memory from here."""
        self._blobs.keep(())
        self._memory = PeakMemory()
        return {}

    def _peak(self) -> dict[str, Any]:
        """The memory that was needed since the mark."""
        return {"growth": self._memory.growth() if self._memory is not None else 0}

    @staticmethod
    def _answer(reply: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


def main(model: str, directory: Path) -> None:
    """Runs the other process.

    Args:
        model: Name of the model whose checkpoints are moved.
        directory: Its certificates, as `Authority.issue` writes them.
    """
    files = (directory / "certificate.pem", directory / "key.pem", directory / "trust.pem")
    PeerProcess(Workload.of(model), {"plaintext": None, "mTLS": Identity(RECEIVER, *files)}).serve()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
