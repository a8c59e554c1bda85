"""The server: waits for the clients' models of a round, averages them, and gives the average to each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from comity import faults
from comity.blobs.session_blobs import Expectation
from comity.contract import Json, Release
from comity.errors import MalformedMessage
from comity.ledger.ledger import in_round
from comity.protocols.peer_study.algorithm import average
from comity.protocols.peer_study.messages import AverageDetails
from comity.protocols.peer_study.report import of_server
from comity.protocols.peer_study.task import TEACHER, StudyTask, study_terms
from comity.protocols.peer_study.uploading.lists import read_list
from comity.protocols.peer_study.uploading.samples import input_of
from comity.session.contexts import PeerContext, SessionContext
from comity.session.gathering.acceptor import GatheringAcceptor
from comity.session.gathering.members import Member
from comity.session.gathering.state import GatheringPlan, Phase
from comity.session.outcome import Outcome
from comity.session.waiting import Reason
from comity.store.store import Record
from comity.tasks.scores import score_of
from comity.tensors import Blob, State

LABELS_ELSEWHERE = Reason(
    "labels-elsewhere",
    "the people of {subject} to label the samples that they were given",
    "goes on when they are done, or when session.terms.label_deadline_s has passed",
    counts=False,
    expires=False,
)
"""Labels, at the server."""


class Server(GatheringAcceptor[AverageDetails]):
    """The role that averages, or, where samples leave, trains; see `GatheringAcceptor`.

    Records, beside those: `sample` with one that a client handed in.

    Args:
        session: This party's context.
        contexts: Its contexts opposite the clients that have joined.
    """

    def __init__(self, session: SessionContext, contexts: Sequence[PeerContext]) -> None:
        self._terms = terms = study_terms(session.contract)
        self._task: StudyTask = session.task
        self._model: bytes | None = None
        # Clients whose people are known to label.
        self._labelling: set[str] = set()
        # Digests of the samples that came of each client.
        self._samples: dict[str, list[bytes]] = {}
        plan = GatheringPlan(
            clients=terms.clients,
            min_clients=terms.min_clients,
            deadline_s=terms.deadline_s,
            submits="update",
            layout=self._task.list_layout if terms.uploads else self._task.layout,
            answers="checkpoint",
        )
        super().__init__(session, contexts, plan)

    def await_labels(self, party: str, round: int, count: int) -> None:
        """See `Averaging.await_labels`."""
        self._require_open(self._member(party), round)
        # A client that missed a step is asked for its samples with those of the next.
        most = self._terms.labels_by(self._terms.step_of(round))
        if not 1 <= count <= most:
            raise MalformedMessage(
                "labels that a client waits for",
                expected=f"1 to {most}, by the terms",
                received=count,
                action="wait for those that were chosen",
            )
        if party not in self._labelling:
            self._labelling.add(party)
            self._session.waits.begin(LABELS_ELSEWHERE, party, labels=count)

    def upload(self, party: str, round: int, sample: bytes) -> None:
        """See `Averaging.upload`."""
        member, known, most = self._member(party), self._samples.get(party, []), self._task.most_samples
        if sample in known:
            return
        if not self._terms.uploads or len(known) >= most:
            raise MalformedMessage(
                "a sample cannot be taken",
                expected=f"at most {most} of a client, by the terms" if self._terms.uploads else "none, by the terms",
                received=f"one after {len(known)}",
                action="keep it",
            )
        self._require_open(member, round)
        self._verify_sample(member.context.blobs.get(sample))
        self._replay(self._session.journal.append("sample", round, party=party, blob=sample.hex()))

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
        member = self._member(party)
        if self._terms.uploads and round not in member.submitted:
            # Of a round that is over, the blob may be gone.
            self._require_open(member, round)
            self._require_known(party, member.context.blobs.get(blob), release)
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
        self._labelling.discard(party)
        self._session.waits.end(LABELS_ELSEWHERE, party)

    def _began(self, samples: Sequence[int]) -> None:
        """What a client's model weighs, is said with it."""

    def _require_fitting(self, blob: Blob) -> None:
        """A model of the layout that was agreed on is taken as it is."""

    def _replay(self, record: Record) -> None:
        if record.kind == "sample":
            fields: Any = record.fields
            self._samples.setdefault(fields["party"], []).append(bytes.fromhex(fields["blob"]))
        super()._replay(record)

    def _expect_of(self, member: Member[AverageDetails]) -> None:
        """Lets a client upload samples too, where they leave."""
        super()._expect_of(member)
        if self._terms.uploads and self._phase is Phase.OPEN:
            task, units = self._task, in_round(self._round)
            lists = Expectation("update", units, task.list_layout.size, 1, task.list_layout.verify)
            samples = Expectation("sample", units, task.sample_layout.size, task.most_samples, self._verify_sample)
            member.context.blobs.expect(lists, samples)

    def _kept_of(self, party: str) -> set[bytes]:
        return {*self._samples.get(party, [])}

    def _verify_sample(self, blob: Blob) -> None:
        layout = self._task.sample_layout
        layout.verify(blob)
        if not bool(torch.isfinite(input_of(blob, layout)).all()):
            raise MalformedMessage("a sample", expected="finite numbers", received="NaN or infinity")

    def _require_known(self, party: str, blob: Blob, release: Release) -> None:
        """Checks that a list is of samples that came."""
        layout = self._task.list_layout
        layout.verify(blob)
        listed = read_list(blob, layout, self._task.classes)
        unknown = {digest for digest, _ in listed} - {*self._samples.get(party, [])}
        if unknown or not 0 < len(listed) <= release.samples:
            raise MalformedMessage(
                "a list of samples cannot be taken",
                expected=f"samples that {party} handed in, 1 to {release.samples}",
                received=f"{len(listed)}, {len(unknown)} of which never came",
                action="hand samples in first",
            )

    def _trained(self, here: Sequence[str]) -> State:
        """The teacher, trained on the samples of those who took part: afresh after each selection, or from where it was."""
        task, layout = self._task, self._task.sample_layout
        inputs, labels = [], []
        for party in here:
            member = self._members[party]
            blobs = member.context.blobs
            for digest, label in read_list(blobs.get(member.submitted[self._round]), task.list_layout, task.classes):
                inputs.append(input_of(blobs.get(digest), layout).clone())
                labels.append(label)
        start = task.initial_state
        if self._model is not None and not (self._terms.restart and self._terms.begins_step(self._round)):
            start = task.layout.view(self._session.blobs.get(self._model).data)
        faults.point("training")
        return task.taught(start, torch.stack(inputs), torch.tensor(labels), self._round)

    def _averaged(self, here: Sequence[str]) -> State:
        """The average of the models of those who took part, weighted by their labels."""
        members, layout = self._members, self._task.layout
        models = [
            layout.view(members[party].context.blobs.get(members[party].submitted[self._round]).data) for party in here
        ]
        return average(models, [members[party].samples[self._round] for party in here])

    def _aggregated(self, here: Sequence[str]) -> dict[str, Any]:
        """What those who took part come to: the average of their models, or a model trained on their samples."""
        round, members, task = self._round, self._members, self._task
        for party in members.clients:
            # Who is late was waited for to the deadline.
            self._labelled(party)
        labels = {party: members[party].samples[round] for party in here}
        faults.point("evaluation")
        state = self._trained(here) if self._terms.uploads else self._averaged(here)
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
