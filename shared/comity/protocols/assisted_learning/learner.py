"""The learner: trains, has its trajectory go from party to party, and keeps the best of what comes back."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, cast

from comity.contract import Json
from comity.errors import MalformedMessage
from comity.ledger.ledger import in_round
from comity.protocols.assisted_learning.algorithm import Loss, argmin
from comity.protocols.assisted_learning.messages import (
    Assistance,
    Checkpoint,
    assessment_digest,
    idle,
    trajectory_digest,
)
from comity.protocols.assisted_learning.party import Party
from comity.protocols.assisted_learning.report import Help, Round, metrics
from comity.protocols.assisted_learning.schedule import guarantees
from comity.session.events import Event, Observer
from comity.session.outcome import Outcome, OwnModel
from comity.session.receipt_book import ReceiptBook
from comity.session.stopping import RoundProgress, ended_early
from comity.tasks.scores import score_of
from comity.tensors import Layout
from comity.training import AssistedDistillation

_STALLS = {
    "short": (
        "nothing was gained, and phases are too short: {parties} ended training with a greater loss than it began with",
        "raise iterations in session.terms, or lower learning_rate",
    ),
    "converged": (
        "nothing was gained: training lowered each party's own loss, but no checkpoint the loss of all",
        "a session that stays so has converged, and ends by itself with stop_when_stalled in session.terms",
    ),
}
"""What it means that each party kept the model that a round began with, and what to do about it."""


@dataclass(frozen=True, slots=True)
class _Provider:
    """A provider, and what passes between it and the learner in a round.

    Attributes:
        name: Its name.
        port: The provider, in process or over the network.
        receipt_book: Signs statements to it and checks its own.
        losses: Its losses in the active round, of the models that it was asked about.
    """

    name: str
    port: Assistance
    receipt_book: ReceiptBook
    losses: dict[bytes, Loss]


class Learner:
    """The asking role. A round is a chain of trajectories: its own, and one of each provider that trains.

    From each trajectory whoever comes next picks the model of least global loss, and trains on from there; the last pick
    is the learner's. Everybody else says what the models cost on its own data, so that each choice is by all losses.

    Its state follows from its journal: records `trained`, `assessed`, `closed`, `received`, `picked`, `finished`.

    Args:
        party: This party's side of the session.
        acceptors: Each provider's port, in process or over the network, and the receipt_book for it, in the contract's order.
        observe: Is told what happens.
    """

    def __init__(self, party: Party, acceptors: Sequence[tuple[Assistance, ReceiptBook]], observe: Observer) -> None:
        self._party = party
        names = party.schedule.providers
        self._acceptors = {
            name: _Provider(name, *acceptor, {}) for name, acceptor in zip(names, acceptors, strict=True)
        }
        self._observe = observe
        self._rounds: list[Round] = []
        self._closed: set[str] = set()
        self._picked = False
        # What the learner's tests say of models, those of the active round.
        self._tests: dict[bytes, Mapping[str, Json]] = {}
        self._score = score_of(party.contract.task.kind).name
        self._initial = party.task.layout.pack(party.task.initial_state)
        for record in party.journal.records():
            party.replay(record)
            fields: Any = record.fields
            match record.kind:
                case "assessed" if fields["party"] in self._acceptors:
                    self._acceptors[fields["party"]].losses[bytes.fromhex(fields["digest"])] = Loss(
                        fields["sum"], fields["count"]
                    )
                case "closed":
                    self._closed.add(fields["party"])
                case "picked":
                    self._picked = True
                case "finished":
                    self._finish(Round.from_json(fields))

    def work(self) -> Iterator[None]:
        """Runs what is left of the rounds that were bought."""
        self._party.blobs.add(self._initial)
        while len(self._rounds) < self._party.schedule.rounds and self._enough() is None:
            self._run_round(len(self._rounds) + 1)
            why = self._enough()
            if why is not None:
                # It goes on to its end at once: there is nothing that others have to do before.
                self._observe(ended_early(len(self._rounds), why))
                return
            yield

    def _enough(self) -> str | None:
        """Why no more rounds follow, before all that were bought."""
        party = self._party
        rounds = [RoundProgress(each.tested, gained=each.worsened is None) for each in self._rounds]
        return party.schedule.terms.reason_to_stop(party.contract, rounds)

    def outcome(self) -> Outcome:
        """The best θ^r with the session's metrics."""
        best = self._best()
        digest = bytes.fromhex(best.model)
        model = self._party.blobs.get(digest)
        found = metrics(self._rounds, best, self._party.schedule.providers, self._score)
        privacy = guarantees(self._party.contract, self._party.own, self._party.peers)
        if privacy is not None:
            found["privacy"] = privacy
        kept = self._own_model(digest)
        if kept is None:
            return Outcome((model,), found)
        own, tested = kept
        return Outcome((model,), found | {"own_model": tested.get(self._score), "own_model_tested": tested}, own=own)

    def _own_model(self, digest: bytes) -> tuple[OwnModel, dict[str, Json]] | None:
        """The model of its own that learned from one that crossed, and what a test says of it; None without one."""
        party = self._party
        if not isinstance(party.task, AssistedDistillation):
            return None
        state = party.task.own_model(party.losses.view(digest), party.schedule.rounds + 1, party.making.kept)
        return OwnModel(Layout.of(state).pack(state), party.task.spec), party.task.own_tested(state)

    def _run_round(self, number: int) -> None:
        began = time.monotonic()
        party = self._party
        trajectory, length = self._train(number), party.making.checkpoints
        for name in party.schedule.trainers(number):
            if name not in self._closed:
                self._offer(number, name, trajectory, length)
            trajectory, length = self._receive(number, name), len(party.schedule.sampled(name))
        for _ in self._assessed(number, trajectory, party.own.party):
            pass
        self._settle(number)
        if not self._picked:
            party.select(number)
        picked = party.choosing.pick
        if picked is None:
            raise MalformedMessage(
                f"no provider sent a trajectory in round {number}",
                expected="checkpoint 0",
                received="nothing",
                action="ask the provider's operator what happened",
            )
        helps = self._helps(number, picked)
        finished = Round(
            provider_pick=None if party.schedule.is_shared else helps[0].pick,
            learner_pick=picked.index,
            global_loss=party.choosing.pick_total,
            global_return=party.schedule.mean_return(party.choosing.pick_total),
            tested=self._tested(picked.digest),
            screening_work=party.choosing.work,
            seconds=time.monotonic() - began,
            model=picked.digest.hex(),
            rows_held=party.making.rows_held,
            helps=helps,
            worsened=self._worsened() if picked.index == 0 and not any(each.pick for each in helps) else None,
        )
        party.journal.append("finished", number, **finished.to_json())
        self._finish(finished)
        party.retain(bytes.fromhex(self._best().model))
        self._observe(Event("round-finished", number, finished.to_json()))
        self._advise(number, finished.worsened)

    def _advise(self, number: int, worsened: tuple[str, ...] | None) -> None:
        """Says what it means that each party kept the model that a round began with; the same but once in a session."""
        said = [bool(each.worsened) for each in self._rounds[:-1] if each.worsened is not None]
        if worsened is None or bool(worsened) in said:
            return
        what, action = _STALLS["short" if worsened else "converged"]
        fields: dict[str, Json] = {"what": what.format(parties=" and ".join(worsened)), "action": action}
        self._observe(Event("stalled", number, fields))

    def _worsened(self) -> tuple[str, ...]:
        """The parties whose training ended with a greater loss of their own than it began with, as far as they said."""
        party = self._party
        trajectories = {party.own.party: party.making.trained}
        trajectories |= {name: party.trajectory_of(name) for name in self._acceptors}
        ends = {name: (made[0].loss, made[-1].loss) for name, made in trajectories.items() if made}
        return tuple(
            name
            for name, (first, last) in ends.items()
            if isinstance(first, Loss) and isinstance(last, Loss) and last.sum > first.sum
        )

    def _train(self, number: int) -> Iterator[Checkpoint]:
        """The learner's own trajectory: what was made before a restart, then the rest as it is made."""
        party = self._party
        yield from [*party.making.trained]
        start = bytes.fromhex(self._rounds[-1].model) if self._rounds else self._initial.digest
        yield from party.train(start, number)

    def _assessed(self, number: int, trajectory: Iterable[Checkpoint], to: str) -> Iterator[Checkpoint]:
        """A trajectory's checkpoints in their order, each once everybody but the one that picks has said its loss."""
        party = self._party
        waiting: deque[tuple[Checkpoint, dict[str, Future[Loss]]]] = deque()

        def answered() -> Checkpoint:
            checkpoint, answers = waiting.popleft()
            for name, answer in answers.items():
                loss = answer.result()
                party.record(checkpoint.digest, name, loss, number)
                self._acceptors[name].losses[checkpoint.digest] = loss
            return checkpoint

        for checkpoint in trajectory:
            missing = party.missing(checkpoint.digest, to)
            if party.own.party in missing:
                missing.remove(party.own.party)
                party.assess(checkpoint.digest, number)
            asked = {name: self._acceptors[name].port.assess(number, checkpoint.digest) for name in missing}
            waiting.append((checkpoint, asked))
            while waiting and all(answer.done() for answer in waiting[0][1].values()):
                yield answered()
        while waiting:
            yield answered()

    def _offer(self, number: int, name: str, trajectory: Iterable[Checkpoint], length: int) -> None:
        """Offers a trajectory, each checkpoint as soon as it can be, and closes the provider's round."""
        party, acceptor = self._party, self._acceptors[name]
        offered: list[Checkpoint] = []
        # What was offered before a restart is offered again: the provider knows what it has.
        for checkpoint in self._assessed(number, trajectory, name):
            offered.append(party.offered(checkpoint, name))
            acceptor.port.offer(number, offered[-1])
            fields: dict[str, Json] = {"index": checkpoint.index, "of": length, "to": name}
            if isinstance(checkpoint.loss, Loss):
                fields["loss"] = checkpoint.loss.sum
            self._observe(Event("checkpoint-offered", number, fields))
        self._close(number, acceptor, len(offered), trajectory_digest(number, offered))

    def _close(self, number: int, acceptor: _Provider, count: int, subject: bytes) -> None:
        request = acceptor.receipt_book.sign("request", in_round(number), subject)
        receipt = acceptor.port.close(number, count, request)
        with self._party.journal.transaction():
            acceptor.receipt_book.accept(receipt, "receipt", in_round(number), subject)
            self._party.journal.append("closed", number, party=acceptor.name)
        self._closed.add(acceptor.name)

    def _receive(self, number: int, name: str) -> Iterator[Checkpoint]:
        """A provider's trajectory, from its beginning, evaluating while it waits where the next pick is the learner's."""
        party = self._party
        received = party.trajectory_of(name)
        expected = len(party.schedule.sampled(name))
        yield from [*received]
        meanwhile = party.advance if name == party.schedule.trainers(number)[-1] else idle
        for checkpoint in self._acceptors[name].port.results(number, len(received), meanwhile=meanwhile):
            if checkpoint.index == 0:
                # Before it is kept: a wrong start leaves the round as it was.
                self._pick_of(number, name, checkpoint.digest)
            party.receive(checkpoint, number, name)
            fields: dict[str, Json] = {"index": checkpoint.index, "of": expected, "from": name}
            if isinstance(checkpoint.loss, Loss):
                fields["loss"] = checkpoint.loss.sum
            self._observe(Event("checkpoint-received", number, fields))
            yield checkpoint
        if len(received) != expected:
            raise MalformedMessage(
                f"the trajectory of {name} in round {number} is not whole",
                expected=f"{expected} checkpoints",
                received=len(received),
                action="ask the provider's operator what happened",
            )

    def _settle(self, number: int) -> None:
        """Ends the round with every provider: with those that only said their losses, and then with all."""
        for name, acceptor in self._acceptors.items():
            if name in self._party.schedule.trainers(number):
                subject = trajectory_digest(number, self._party.trajectory_of(name))
            else:
                subject = assessment_digest(number, acceptor.losses)
                if name not in self._closed:
                    self._close(number, acceptor, len(acceptor.losses), subject)
            acceptor.port.acknowledge(number, acceptor.receipt_book.sign("acknowledgement", in_round(number), subject))

    def _pick_of(self, number: int, name: str, initial: bytes) -> int:
        """Index, in the trajectory that a provider was offered, of the checkpoint that it started from.

        Args:
            number: The round.
            name: The provider.
            initial: Digest of the model that it started from.

        Raises:
            MalformedMessage: It started from another model.
        """
        trainers = self._party.schedule.trainers(number)
        place = trainers.index(name)
        offered = self._party.making.trained if place == 0 else self._party.trajectory_of(trainers[place - 1])
        digests = [checkpoint.digest for checkpoint in offered]
        if initial not in digests:
            raise MalformedMessage(
                f"{name} did not start round {number} from an offered checkpoint",
                expected="the digest of one of them",
                received=initial.hex(),
                action="ask the provider's operator what happened",
            )
        return digests.index(initial)

    def _helps(self, number: int, picked: Checkpoint) -> tuple[Help, ...]:
        """What each provider's training came to: from the model that it began with to the one that was picked of it."""
        party, names = self._party, self._party.schedule.trainers(number)
        models = [*(party.trajectory_of(name)[0].digest for name in names), picked.digest]
        losses = [*(party.global_loss(digest) for digest in models[:-1]), party.choosing.pick_total]
        tested = [self._test_of(digest) for digest in models]
        return tuple(
            Help(name, self._pick_of(number, name, models[at]), losses[at], losses[at + 1], tested[at], tested[at + 1])
            for at, name in enumerate(names)
        )

    def _test_of(self, digest: bytes) -> float | None:
        """A model's score in the learner's test."""
        score = self._tested(digest).get(self._score)
        return None if score is None else float(cast(float, score))

    def _tested(self, digest: bytes) -> Mapping[str, Json]:
        if digest not in self._tests:
            self._tests[digest] = self._party.task.tested(self._party.losses.view(digest))
        return self._tests[digest]

    def _finish(self, finished: Round) -> None:
        self._rounds.append(finished)
        self._closed.clear()
        self._picked = False
        for acceptor in self._acceptors.values():
            acceptor.losses.clear()
        model = bytes.fromhex(finished.model)
        self._tests = {digest: tests for digest, tests in self._tests.items() if digest == model}
        self._party.begin_round()

    def _best(self) -> Round:
        # By Proposition 1 the losses never rise, so this is the first that has the least.
        return self._rounds[argmin([each.global_loss for each in self._rounds])]
