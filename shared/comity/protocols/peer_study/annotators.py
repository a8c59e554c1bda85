"""Who labels what a client has chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Int
from torch import Tensor

from comity.contract import Json
from comity.errors import RoundOutOfOrder
from comity.protocols.peer_study.annotation.annotation_queue import AnnotationBatch, AnnotationQueue
from comity.protocols.peer_study.annotation.masks import pixels
from comity.protocols.peer_study.annotation.views import digest_of
from comity.protocols.peer_study.client_pool import ClientPool
from comity.protocols.peer_study.oracle import SimulatedOracle
from comity.session.waiting import Reason, Waits

LABELS = Reason(
    "labels",
    "this node's people to label {subject}",
    "comity annotate serve --session {session}, or comity annotate export and import; comity annotate show says who labelled",
    counts=False,
    expires=False,
)
"""Labels, at the client."""

_STILL_HERE_S = 60.0
"""How often the server is told that this client still waits for labels, in seconds."""


@dataclass(frozen=True, slots=True, eq=False)
class Annotated:
    """What annotators said.

    Attributes:
        indices: Samples with a label, of those that were asked for.
        labels: What they said, in the same order.
    """

    indices: Int[Tensor, " n"]
    labels: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Selected:
    """What was chosen.

    Attributes:
        step: The labelling step.
        round: The round that begins with it.
        indices: The samples.
        digests: Of each as it was when it was chosen, by its id; empty where nobody has to see it.
    """

    step: int
    round: int
    indices: Int[Tensor, " n"]
    digests: Mapping[str, str]


class Annotators(Protocol):
    """Who labels."""

    def digests(self, indices: Int[Tensor, " n"]) -> dict[str, str]:
        """What tells whether samples are still those that were chosen, by their ids."""
        ...

    def label(self, selected: Selected, tell: Callable[[], None]) -> Annotated:
        """Labels samples of the pool; it may take days, and be asked again after a restart.

        Args:
            selected: Which.
            tell: Tells the server that labels are waited for.

        Raises:
            RoundOutOfOrder: The server went on without this client; what was said so far is kept.
        """
        ...

    def summary(self) -> dict[str, Json]:
        """What there is to report of the labels, by name."""
        ...


class SimulatedAnnotators:
    """The labels that the pool comes with, as a simulated oracle says them.

    Args:
        pool: The client's samples.
        oracle: What says their labels.
    """

    def __init__(self, pool: ClientPool, oracle: SimulatedOracle) -> None:
        self._first = len(pool.known)
        self._oracle = oracle

    def digests(self, indices: Int[Tensor, " n"]) -> dict[str, str]:
        """See `Annotators.digests`."""
        del indices
        return {}

    def label(self, selected: Selected, tell: Callable[[], None]) -> Annotated:
        """See `Annotators.label`."""
        tell()
        return Annotated(selected.indices, self._oracle.label(selected.indices - self._first))

    def summary(self) -> dict[str, Json]:
        """See `Annotators.summary`."""
        return {}


class People:
    """People, for whom samples wait in a queue, and the session with them.

    Args:
        pool: The client's samples.
        queue: Where their samples wait.
        waits: What the session waits for.
    """

    def __init__(self, pool: ClientPool, queue: AnnotationQueue, waits: Waits) -> None:
        self._pool = pool
        self._queue = queue
        self._waits = waits

    def digests(self, indices: Int[Tensor, " n"]) -> dict[str, str]:
        """See `Annotators.digests`."""
        places = (indices - len(self._pool.known)).tolist()
        return {self._pool.pool.ids[each]: digest_of(self._pool.pool, each) for each in places}

    def label(self, selected: Selected, tell: Callable[[], None]) -> Annotated:
        """See `Annotators.label`.

        Raises:
            InvalidValue: This is a simulation.
            DataChanged: The samples are not those any more that were chosen.
        """
        self._waits.require_operator("a session whose samples people label")
        indices = selected.indices.tolist()
        ids = self._pool.ids(selected.indices)
        places = {sample: each - len(self._pool.known) for sample, each in zip(ids, indices, strict=True)}
        self._queue.ask(AnnotationBatch(selected.step, selected.round, places, selected.digests))
        if self._queue.left():
            self._wait(selected, tell)
        counted = self._queue.close()
        said = [(index, counted[sample]) for sample, index in zip(ids, indices, strict=True)]
        labelled = [(index, label) for index, label in said if label is not None]
        found = torch.tensor([index for index, _ in labelled], dtype=torch.int64)
        masks = [torch.from_numpy(pixels(label)) for _, label in labelled if isinstance(label, str)]
        if masks:
            return Annotated(found, torch.stack(masks))
        return Annotated(found, torch.tensor([label for _, label in labelled], dtype=torch.int64))

    def summary(self) -> dict[str, Json]:
        """See `Annotators.summary`."""
        return {"annotations": [*self._queue.history], "agreement": [*self._queue.agreement]}

    def _wait(self, selected: Selected, tell: Callable[[], None]) -> None:
        subject = f"{len(selected.indices)} samples of step {selected.step}"
        try:
            tell()
            self._waits.wait(
                LABELS,
                self._queue.ready,
                subject,
                every_s=_STILL_HERE_S,
                meanwhile=tell,
                labels=self._queue.left(),
                annotators=self._queue.annotators,
            )
        except RoundOutOfOrder:
            self._waits.end(LABELS, subject)
            self._queue.leave()
            raise
