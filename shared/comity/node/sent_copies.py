"""What a node keeps of what it sent, for audits: within a quota, and only where its owner says so."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import structlog
from google.protobuf.message import Message

from comity.blobs.blob_files import BlobKeeper
from comity.blobs.blob_store import BlobFolders, copies_of
from comity.blobs.session_blobs import SessionBlobs
from comity.contract import Contract
from comity.errors import StorageError
from comity.ledger.ledger import Ledger
from comity.node.config_sections import AuditSettings
from comity.protocol.audits import Sent
from comity.session.gate import Inspector, Outgoing
from comity.tensors import Blob
from comity.wire.v1 import blobs_pb2

log = structlog.get_logger()

_DIGEST = re.compile(r"[0-9a-f]{64}")


class SentCopies:
    """Copies of what left.

    Args:
        folder: The node's `state_dir`.
    """

    def __init__(self, folder: Path) -> None:
        self._blobs = BlobFolders(copies_of(folder))
        self._keepers: dict[str, BlobKeeper] = {}
        self._lock = threading.Lock()

    def inspectors(self, contract: Contract, settings: AuditSettings, here: SessionBlobs) -> dict[str, list[Inspector]]:
        """Those who keep a copy of what a session lets out, by kind.

        Of blobs that a message names and the peer has already, such as the model that a training begins with, a copy is
        kept as well.

        Args:
            contract: The session's contract.
            settings: Whether, and how much.
            here: The session's blobs at this node.
        """
        if not settings.keep:
            return {}

        def keep(blob: Blob) -> None:
            # Several senders may let one blob out at a time; and what cannot be kept leaves all the same.
            with self._lock:
                keeper = self._keeper(contract.session)
                try:
                    if keeper.read(blob.digest) is None and blob.size <= min(
                        self._blobs.free(), settings.max_bytes - self._blobs.used()
                    ):
                        keeper.write(blob)
                except StorageError as error:
                    log.warning("sent-copy-not-kept", session=contract.session, detail=str(error))

        def look(outgoing: Outgoing) -> None:
            if isinstance(outgoing.content, Blob):
                keep(outgoing.content)
                return
            for digest in _named(outgoing.content):
                if digest in here:
                    keep(here.get(digest))

        return {kind: [look] for kind in contract.egress}

    def copy(self, session: str, digest: bytes) -> Blob | None:
        """What was kept of a session under a digest; None for nothing."""
        return self._blobs.find(session, digest)

    def find(self, ledger: Ledger, session: str) -> tuple[list[Sent], int]:
        """What a session sent, in the order in which it first left, each once; and how many blobs were not kept."""
        sent, missing = dict[str, Sent](), set[str]()
        for entry in ledger.entries(session):
            fact = entry.fact
            if (
                fact.matter != "intended"
                or fact.direction != "sent"
                or not fact.kind
                or not _DIGEST.fullmatch(fact.subject)
            ):
                continue
            blob = self.copy(session, bytes.fromhex(fact.subject))
            if blob is None:
                missing.add(fact.subject)
            else:
                sent.setdefault(fact.subject, Sent(fact.kind, fact.units, blob))
        return list(sent.values()), len(missing)

    def _keeper(self, session: str) -> BlobKeeper:
        """Where a session's copies are: one for all who send, since a new one clears what a killed node left half written."""
        if session not in self._keepers:
            self._keepers[session] = self._blobs.keeper(session)
        return self._keepers[session]


def _named(message: Message) -> Iterator[bytes]:
    """Digests of the blobs that a message names."""
    if isinstance(message, blobs_pb2.BlobRef):
        yield message.digest
        return
    for field, value in message.ListFields():
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for each in [value] if isinstance(value, Message) else value:
                yield from _named(each)
