"""The client's way of a sample to the server: labelled, released, sent, listed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from comity.contract import Json
from comity.errors import RoundOutOfOrder
from comity.ledger.ledger import in_round
from comity.protocols.peer_study.messages import Averaging
from comity.protocols.peer_study.uploading.consents import CONSENT, STANDING, Consents
from comity.protocols.peer_study.uploading.lists import listed
from comity.protocols.peer_study.uploading.samples import OpenSamples
from comity.session.contexts import PeerContext
from comity.tensors import Blob

UPLOADED = "uploaded"
"""Kind of the records that say which samples the server has."""

_STILL_HERE_S = 60.0
"""How often the server is told that this client still waits for its operator, in seconds."""


class Uploads:
    """Sends samples, in one session.

    Args:
        context: The client's place opposite the server.
        server: The server.
        samples: Those that may leave; no others come here.
        most: How many may be listed.
        is_standing: Whether the node's configuration releases what is labelled.
    """

    def __init__(
        self, context: PeerContext, server: Averaging, samples: OpenSamples, most: int, *, is_standing: bool
    ) -> None:
        self._context = context
        self._server = server
        self._samples = samples
        self._most = most
        self._is_standing = is_standing
        self.consents = Consents(context.contract.session, context.journal)
        # Digests of blobs, by the samples' ids.
        self._sent: dict[str, bytes] = {}

    def replay(self, fields: Mapping[str, Any]) -> None:
        """Takes what a record of kind `uploaded` keeps."""
        self._sent[fields["sample"]] = bytes.fromhex(fields["blob"])

    def __len__(self) -> int:
        """How many samples the server has."""
        return len(self._sent)

    def hand_over(self, round: int, labels: Mapping[str, int], tell: Callable[[], None]) -> Blob | None:
        """Has samples released, sends those that were, and makes durable the list of what the server trains on.

        Args:
            round: The round.
            labels: Of everything that was labelled in the session, by id.
            tell: Tells the server that this client is still there.

        Returns:
            The list; None where nothing was released.

        Raises:
            InvalidValue: A sample may not leave, or a simulation would have to ask somebody.
            DataChanged: A sample is not the one that was released.
            PolicyRefusal: Contract or policy keep samples here.
            RoundOutOfOrder: The server went on without this client.
        """
        self._release(round, labels, tell)
        units = in_round(round)
        for each in self.consents.given():
            if each.sample in self._sent:
                continue
            blob = self._context.blobs.release(self._samples.blob(each.sample, each.digest), "sample", units)
            self._server.upload(round, blob.digest)
            self._context.journal.append(UPLOADED, round, sample=each.sample, blob=blob.hex)
            self._sent[each.sample] = blob.digest
        # Two samples may be equal: they are one to the server.
        named = {digest: labels[sample] for sample, digest in self._sent.items() if sample in labels}
        if not named:
            return None
        return self._context.blobs.release(listed([*named], [*named.values()], self._most), "update", units)

    def crossed(self, subjects: Iterable[str]) -> int:
        """How many of the samples that left, by their subjects in the ledger, are not among those that may."""
        left = {*subjects}
        return len(left - self._samples.blobs()) if left else 0

    def summary(self) -> dict[str, Json]:
        """What there is to report of it."""
        return {"consents": [*self.consents.history], "samples_released": len(self._sent)}

    def _release(self, round: int, labels: Mapping[str, int], tell: Callable[[], None]) -> None:
        waits, consents = self._context.waits, self.consents
        asked = {sample: self._samples.digest(sample) for sample in labels}
        left = consents.ask(round, asked)
        if not left:
            return
        if self._is_standing:
            decided = {str(each["sample"]) for each in consents.history}
            consents.decide([each for each in asked if each not in decided], STANDING, is_given=True)
            return
        waits.require_operator("a session whose samples are released one by one")
        subject = f"{left} labelled samples"
        try:
            tell()
            waits.wait(CONSENT, consents.ready, subject, every_s=_STILL_HERE_S, meanwhile=tell, samples=left)
        except RoundOutOfOrder:
            waits.end(CONSENT, subject)
            raise
