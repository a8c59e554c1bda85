"""What a node keeps of what it sent, for audits: within a quota, and only where its owner says so."""

from __future__ import annotations

import re
from pathlib import Path

from comity.blobs.blob_store import BlobFolders
from comity.contract import Contract
from comity.ledger.ledger import Ledger
from comity.node.config import AuditSettings
from comity.protocol.audits import Sent
from comity.session.gate import Inspector, Outgoing
from comity.tensors import Blob

_DIGEST = re.compile(r"[0-9a-f]{64}")


class SentCopies:
    """Copies of what left.

    Args:
        folder: The node's `state_dir`.
    """

    def __init__(self, folder: Path) -> None:
        self._blobs = BlobFolders(folder / "audit")

    def inspectors(self, contract: Contract, settings: AuditSettings) -> dict[str, list[Inspector]]:
        """Those who keep a copy of what a session lets out, by kind."""
        if not settings.keep:
            return {}
        keeper = self._blobs.keeper(contract.session)

        def keep(outgoing: Outgoing) -> None:
            blob = outgoing.content
            if not isinstance(blob, Blob) or keeper.read(blob.digest) is not None:
                return
            if blob.size <= min(self._blobs.free(), settings.max_bytes - self._blobs.used()):
                keeper.write(blob)

        return {kind: [keep] for kind in contract.egress}

    def find(self, ledger: Ledger, session: str) -> tuple[list[Sent], int]:
        """What a session sent, in the order in which it first left, each once; and how many blobs were not kept."""
        keeper, sent, missing = self._blobs.keeper(session), dict[str, Sent](), set[str]()
        for entry in ledger.entries(session):
            fact = entry.fact
            if (
                fact.matter != "intended"
                or fact.direction != "sent"
                or not fact.kind
                or not _DIGEST.fullmatch(fact.subject)
            ):
                continue
            blob = keeper.read(bytes.fromhex(fact.subject))
            if blob is None:
                missing.add(fact.subject)
            else:
                sent.setdefault(fact.subject, Sent(fact.kind, fact.units, blob))
        return list(sent.values()), len(missing)
