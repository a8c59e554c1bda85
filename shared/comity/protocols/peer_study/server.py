"""The server: waits for the clients' models of a round, averages them, and gives the average to each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from comity import faults
from comity.contract import Json, Release
from comity.errors import MalformedMessage
from comity.ledger.ledger import in_round
from comity.protocols.peer_study.algorithm import average
from comity.protocols.peer_study.messages import AverageDetails
from comity.protocols.peer_study.report import of_server
from comity.protocols.peer_study.task import TEACHER, StudyTask, study_terms
from comity.session.contexts import PeerContext, SessionContext
from comity.session.gathering.acceptor import GatheringAcceptor
from comity.session.gathering.state import GatheringPlan
from comity.session.outcome import Outcome
from comity.session.waiting import Reason
from comity.tasks.scores import score_of
from comity.tensors import Blob

LABELS_ELSEWHERE = Reason(
    "labels-elsewhere",
    "the people of {subject} to label the samples that they were given",
    "goes on when they are done, or when session.terms.label_deadline_s has passed",
    counts=False,
    expires=False,
)
"""Labels, at the server."""


class Server(GatheringAcceptor[AverageDetails]):
    """The role that averages; see `GatheringAcceptor`.

    Args:
        session: This party's context.
        contexts: Its contexts opposite the clients that have joined.
    """

    def __init__(self, session: SessionContext, contexts: Sequence[PeerContext]) -> None:
        self._terms = terms = study_terms(session.contract)
        self._task: StudyTask = session.task
        self._model: bytes | None = None
        plan = GatheringPlan(
            clients=terms.clients,
            min_clients=terms.min_clients,
            deadline_s=terms.deadline_s,
            submits="update",
            layout=self._task.layout,
            answers="checkpoint",
        )
        super().__init__(session, contexts, plan)

    def await_labels(self, party: str, round: int, count: int) -> None:
        """See `Averaging.await_labels`."""
        self._require_open(self._member(party), round)
        most = max(self._terms.initial, self._terms.budget)
        if not 1 <= count <= most:
            raise MalformedMessage(
                "labels that a client waits for",
                expected=f"1 to {most}, by the terms",
                received=count,
                action="wait for those that were chosen",
            )
        self._session.waits.begin(LABELS_ELSEWHERE, party, labels=count)

    def submit(self, party: str, round: int, blob: bytes, release: Release) -> None:
        """See `Gathering.submit`; it stands on no more labels than there can be."""
        most = self._member(party).context.peer.samples + self._terms.step_of(round) * self._terms.budget
        if release.samples > most:
            raise MalformedMessage(
                "the model stands on more labels than the client can have",
                expected=f"at most {most} in round {round}",
                received=release.samples,
                action="say how many samples were labelled",
            )
        super().submit(party, round, blob, release)
        self._labelled(party)

    def sit_out(self, party: str, round: int) -> None:
        """See `Gathering.sit_out`."""
        super().sit_out(party, round)
        self._labelled(party)

    def leave(self, party: str) -> None:
        """Goes on without a client."""
        super().leave(party)
        self._labelled(party)

    def outcome(self) -> Outcome:
        """The average of the last round, and what each came to."""
        model = self._task.layout.pack(self._task.initial_state)
        if self._model is not None:
            model = self._session.blobs.get(self._model)
        score = score_of(self._session.contract.task.kind).name
        metrics = of_server(self._members.clients, self._finished, self._terms, score)
        return Outcome((model,), metrics, names=(TEACHER,))

    def _labelled(self, party: str) -> None:
        self._session.waits.end(LABELS_ELSEWHERE, party)

    def _began(self, samples: Sequence[int]) -> None:
        """What a client's model weighs, is said with it."""

    def _require_fitting(self, blob: Blob) -> None:
        """A model of the layout that was agreed on is taken as it is."""

    def _aggregated(self, here: Sequence[str]) -> dict[str, Any]:
        """The average of the models of those who took part, weighted by their labels."""
        round, members, task = self._round, self._members, self._task
        for party in members.clients:
            # Who is late was waited for to the deadline.
            self._labelled(party)
        labels = {party: members[party].samples[round] for party in here}
        models = [
            task.layout.view(members[party].context.blobs.get(members[party].submitted[round]).data) for party in here
        ]
        faults.point("evaluation")
        state = average(models, list(labels.values()))
        faults.point("selection")
        model = self._session.blobs.add(task.layout.pack(state))
        for party in here:
            members[party].context.blobs.release(model, "checkpoint", in_round(round))
        tested: dict[str, Json] = {f"test_{name}": value for name, value in task.tested(state).items()}
        return {
            "model": model.hex,
            "labels": [labels.get(party) for party in members.clients],
            "labels_of_all": sum(labels.values()),
            **tested,
            "seconds": time.monotonic() - self._opened_at,
        }

    def _take(self, fields: dict[str, Any]) -> None:
        self._model = bytes.fromhex(fields["model"])

    def _details(self, round: int, fields: dict[str, Any], client: int) -> AverageDetails | None:
        if fields["labels"][client] is None:
            return None
        return AverageDetails(round, bytes.fromhex(fields["model"]), fields["participants"])
