"""The server: waits for the clients' updates, settles the round, and pays each client in entries of the aggregate."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Protocol

import torch

from comity import faults
from comity.blobs.session_blobs import Expectation
from comity.contract import Json, Release
from comity.errors import ComityError, ConflictingOffer, MalformedMessage, RoundOutOfOrder, SessionFailed
from comity.ledger.ledger import in_round
from comity.ledger.receipts import SignedStatement
from comity.protocols.gradient_rewards.algorithm import RoundResult, ServerState, aggregate_round
from comity.protocols.gradient_rewards.messages import KEPT, News, Reward, Terms, update_layout
from comity.protocols.gradient_rewards.terms import GradientRewardsTerms
from comity.randomness import derive, generator
from comity.session.contexts import PeerContext, SessionContext
from comity.session.events import Event
from comity.session.outcome import Outcome
from comity.session.replayable_stream import ReplayableStream
from comity.store.store import Record
from comity.tensors import Blob, Layout, State, sparse

_SLACK = 1e-3
"""How far, relative to Γ, an update's length may be from it: float32 rounds."""


class LocalTask(Protocol):
    """The server's model, and its test samples where it has any."""

    layout: Layout
    initial_state: State
    parameters: tuple[str, ...]

    def test_accuracy(self, state: State) -> float | None:
        """Accuracy on the server's test samples, 0 to 1, where it has any."""


class ServerPhase(Enum):
    """What a server is doing."""

    GATHERING = auto()
    """The first clients join."""
    OPEN = auto()
    """A round takes updates."""
    OVER = auto()
    """All rounds are settled."""
    FAILED = auto()
    """The session cannot go on."""


@dataclass
class Member:
    """A client, as the server knows it.

    Attributes:
        context: The server's place opposite it.
        submitted: Digests of its updates, by round: of the one that is open, and of the last that it took part in.
        confirmed: The last round whose update it has signed for.
        terms: What it gets for the last round that it took part in.
        statement: That, signed, once the client has signed for its update.
        gone: Whether it has left.
        news: What it has to know, as it becomes known.
    """

    context: PeerContext
    submitted: dict[int, bytes] = field(default_factory=dict)
    confirmed: int = 0
    terms: Terms | None = None
    statement: SignedStatement | None = None
    gone: bool = False
    news: ReplayableStream[News] = field(default_factory=ReplayableStream)


class Server:
    """The helping role of many clients; single-threaded. Its state follows from its journal.

    Records: `begun` with the clients in their order, `submitted`, `confirmed`, `left`, `returned`, and `finished`, which
    holds who took part in a round and the result; who was in time is decided once, by that record.

    Args:
        place: This party's place in the session.
        contexts: Its places opposite the clients that have joined.
    """

    def __init__(self, place: SessionContext, contexts: Sequence[PeerContext]) -> None:
        if not isinstance(place.contract.terms, GradientRewardsTerms):
            raise MalformedMessage(
                "the terms are another protocol's", expected="gradient_rewards", received=place.contract.protocol
            )
        self._session = place
        self._terms = place.contract.terms
        self._task: LocalTask = place.task
        self._sizes = [self._task.initial_state[name].numel() for name in self._task.parameters]
        self._layout = update_layout(sum(self._sizes))
        self._members = {context.peer.party: Member(context) for context in contexts}
        self._clients: tuple[str, ...] = ()
        self._standing = ServerState.first([1.0])
        self._model: bytes | None = None
        self._round = 0
        self._phase = ServerPhase.GATHERING
        self._failure: ComityError | None = None
        self._finished: list[dict[str, Any]] = []
        self._opened_at = time.monotonic()
        for record in place.journal.records():
            self._replay(record)
        self._expect_updates()

    @property
    def over(self) -> bool:
        """Whether nobody has anything to do here any more.

        All rounds are settled, or the session has failed, and the clients have left; or a round's deadline has passed since.
        """
        return self._is_ended and (all(each.gone for each in self._members.values()) or not self._seconds_left)

    @property
    def _is_ended(self) -> bool:
        return self._phase in {ServerPhase.OVER, ServerPhase.FAILED}

    @property
    def _seconds_left(self) -> float:
        return max(0.0, self._opened_at + self._terms.round_deadline_s - time.monotonic())

    @property
    def failure(self) -> ComityError | None:
        """Why the session cannot go on, where that is so."""
        return self._failure

    @property
    def round(self) -> int:
        """The round that is open, or the last one; 0 before the first."""
        return self._round

    def admit(self, context: PeerContext) -> None:
        """Lets a client in; again, one that was in.

        Raises:
            RoundOutOfOrder: The first round has begun without it.
        """
        if self._failure is not None:
            raise self._failure
        party = context.peer.party
        if self._phase is ServerPhase.GATHERING:
            # Whoever asked while the first round was about to begin comes too late as well.
            self.advance()
        if self._clients and party not in self._clients:
            raise self._began_without(party)
        member = self._members.get(party)
        if member is None or member.gone:
            self._members[party] = member or Member(context)
            if member is not None:
                self._replay(self._session.journal.append("returned", self._round, party=party))
            self._expect_update(self._members[party])
            self._tell(self._members[party])
            joined: dict[str, Json] = {"client": party, "clients": len(self._members), "of": self._terms.clients}
            self._session.observe(Event("client-joined", self._round, joined))

    def leave(self, party: str) -> None:
        """Goes on without a client."""
        member = self._members.get(party)
        if member is not None and not member.gone:
            self._replay(self._session.journal.append("left", self._round, party=party))
            self._session.observe(Event("client-left", self._round, {"client": party}))

    def submit(self, party: str, round: int, update: bytes, release: Release) -> None:
        """See `Rewarding.submit`."""
        member = self._member(party)
        known = member.submitted.get(round)
        if known is not None:
            if known != update:
                raise ConflictingOffer(
                    f"an update of round {round} was submitted already",
                    expected=known.hex(),
                    received=update.hex(),
                    action="a submitted update cannot change",
                )
            return
        if self._phase is not ServerPhase.OPEN or round != self._round:
            on = f"round {self._round}" if self._phase is ServerPhase.OPEN else "no round now"
            raise RoundOutOfOrder(
                f"round {round} is not open",
                expected=on,
                received=f"round {round}",
                action="go on with the one that is",
            )
        if release.samples < 1 or release.kept != KEPT:
            raise MalformedMessage(
                "the update cannot be taken as it is released",
                expected=f"1 sample or more behind it, kept for its {KEPT}",
                received=f"{release.samples} samples, kept for the {release.kept}",
                action="state what it was trained on; no server keeps it longer",
            )
        norm = float(self._update(member, update).norm())
        if not abs(norm - self._terms.length) <= _SLACK * self._terms.length:
            raise MalformedMessage(
                "the update is not normalized",
                expected=f"length {self._terms.length:g}",
                received=f"{norm:g}",
                action="bring it to the length that was agreed on",
            )
        self._replay(
            self._session.journal.append("submitted", round, party=party, update=update.hex(), samples=release.samples)
        )
        faults.point("offering")

    def confirm(self, party: str, round: int, request: SignedStatement) -> SignedStatement:
        """See `Rewarding.confirm`."""
        member = self._member(party)
        update = member.submitted.get(round)
        if update is None:
            raise RoundOutOfOrder(
                f"there is no update of round {round} to confirm",
                expected=", ".join(map(str, member.submitted)) or "none yet",
                received=f"round {round}",
                action="submit while the round is open",
            )
        with self._session.journal.transaction():
            member.context.receipt_book.accept(request, "request", in_round(round), update)
            receipt = member.context.receipt_book.sign("receipt", in_round(round), update)
            if member.confirmed < round:
                self._replay(self._session.journal.append("confirmed", round, party=party))
        return receipt

    def follow(self, party: str, after: int) -> tuple[ReplayableStream[News], int]:
        """What a client has to know, and where it goes on for one that is done with round `after`.

        A round that was settled before the client had signed for its update is open to it until it has.
        """
        news = self._member(party).news
        index = 0
        while (found := news.read(index)) is not None and found[0].kind != "over" and found[0].round <= after:
            index = found[1]
        return news, index

    def reward(self, party: str, round: int) -> Reward | None:
        """What a client gets for a settled round.

        None where it took no part, has not signed for its update yet, or took part in a later one.
        """
        member = self._member(party)
        terms, statement = member.terms, member.statement
        if terms is None or statement is None or terms.round != round:
            return None
        return Reward(terms, statement)

    def acknowledge(self, party: str, round: int, acknowledgement: SignedStatement) -> None:
        """See `Rewarding.acknowledge`."""
        reward = self.reward(party, round)
        if reward is None:
            raise RoundOutOfOrder(
                "there is no such reward",
                expected="the last settled round that the client took part in",
                received=f"round {round}",
                action="acknowledge what was received",
            )
        self._member(party).context.receipt_book.accept(
            acknowledgement, "acknowledgement", in_round(round), reward.terms.subject
        )

    def advance(self) -> bool:
        """Begins, or settles the round, if it is time to."""
        joined = [party for party, member in self._members.items() if not member.gone]
        if self._phase is ServerPhase.GATHERING and len(joined) >= self._terms.clients:
            clients: list[Json] = [*sorted(joined[: self._terms.clients])]
            samples: list[Json] = [self._members[str(each)].context.peer.samples for each in clients]
            self._replay(self._session.journal.append("begun", 0, clients=clients, samples=samples))
            self._expect_updates()
            return True
        if self._phase is not ServerPhase.OPEN:
            return False
        active = [party for party in self._clients if not self._members[party].gone]
        if len(active) < self._terms.min_clients:
            raise SessionFailed(
                "too few clients are left",
                expected=f"{self._terms.min_clients} or more",
                received=len(active),
                action="begin a new session with those who stay",
            )
        # Who has left after submitting is in the round all the same.
        here = [party for party in self._clients if self._round in self._members[party].submitted]
        late = [party for party in active if self._members[party].confirmed != self._round]
        if late and self._seconds_left:
            return False
        if len(here) < self._terms.min_clients:
            self._opened_at = time.monotonic()
            self._session.observe(Event("deadline-extended", self._round, {"submitted": len(here), "late": len(late)}))
            return False
        self._settle(here)
        return True

    def wakes_in(self) -> float | None:
        """Seconds until the deadline of the round that is open, or until nobody is waited for any more; None before."""
        if self._phase is ServerPhase.GATHERING:
            return None
        return 0.0 if self.over else self._seconds_left

    def fail(self, error: ComityError) -> None:
        """Ends the session: those who follow it are told, and every later call is answered with the error."""
        if self._failure is None:
            self._failure = error
            self._phase = ServerPhase.FAILED
            self._opened_at = time.monotonic()
            for member in self._members.values():
                member.news.close(error)
            self._session.observe(Event("session-failed", self._round, {"what": str(error), "reason": error.reason()}))

    def outcome(self) -> Outcome:
        """The server's model, to which every aggregate was added, with what each client contributed and got."""
        rounds = self._finished
        clients = len(self._clients)

        def mean(name: str) -> list[Json]:
            return [
                sum(each[name][client] or 0.0 for each in rounds) / max(1, len(rounds)) for client in range(clients)
            ]

        metrics: dict[str, Json] = {
            "clients": list(self._clients),
            "importance": mean("importance"),
            "kept_fraction": mean("fraction"),
            "importance_by_round": [each["importance"] for each in rounds],
            "contribution_by_round": [each["contribution"] for each in rounds],
            "fraction_by_round": [each["fraction"] for each in rounds],
            "bytes_by_round": [each["bytes"] for each in rounds],
            "server_accuracy": rounds[-1]["test_accuracy"] if rounds else None,
        }
        return Outcome((self._task.layout.pack(self._state(self._parameters())),), metrics)

    def _settle(self, here: Sequence[str]) -> None:
        """What the updates of those who took part come to, and what each is paid."""
        began = time.monotonic()
        round = self._round
        places = [self._clients.index(party) for party in here]
        updates = torch.stack(
            [self._update(self._members[each], self._members[each].submitted[round]) for each in here]
        )
        faults.point("evaluation")
        draws = generator(derive(self._session.contract.seed, "permutations", round))
        mechanism, standing = self._terms.mechanism, self._standing
        settled = aggregate_round(updates, standing, mechanism, present=places, sizes=self._sizes, generator=draws)
        faults.point("selection")
        state = self._state(self._parameters() + settled.aggregate)
        model = self._session.blobs.add(self._task.layout.pack(state))
        fields = self._fields(settled, self._encode_rewards(here, settled))
        fields["participants"] = len(here)
        fields["model"] = model.hex
        fields["test_accuracy"] = self._task.test_accuracy(state)
        fields["seconds"] = time.monotonic() - self._opened_at
        fields["server_seconds"] = time.monotonic() - began
        with self._session.journal.transaction():
            self._replay(self._session.journal.append("finished", round, **fields, standing=_kept(settled.standing)))
        self._session.blobs.keep({model.digest})
        for member in self._members.values():
            member.context.blobs.keep({member.terms.entries} if member.terms is not None else set())
        self._expect_updates()
        self._session.observe(Event("round-finished", round, fields))

    def _encode_rewards(self, here: Sequence[str], settled: RoundResult) -> dict[str, Blob]:
        """Encodes each client's entries, and keeps them until another round is settled."""
        paid = {}
        for party, reward in zip(here, settled.rewards, strict=True):
            encoded = Blob.of(sparse.encode(reward.indices, reward.values, reward.size))
            paid[party] = self._members[party].context.blobs.release(encoded, "reward", self._round)
        return paid

    def _fields(self, settled: RoundResult, paid: dict[str, Blob]) -> dict[str, Any]:
        """What a round came to, for each client in its place; None for those who took no part."""
        clients = range(len(self._clients))
        at = {client: place for place, client in enumerate(settled.present)}

        def those(values: Sequence[Any]) -> list[Any]:
            return [values[at[client]] if client in at else None for client in clients]

        blobs = [paid.get(party) for party in self._clients]
        return {
            "clients": list(self._clients),
            "present": [self._clients[client] for client in settled.present],
            "contribution": those(settled.contribution.tolist()),
            "importance": settled.standing.importance.tolist(),
            "fraction": those(settled.fractions.tolist()),
            "kept": those([len(each.indices) for each in settled.rewards]),
            "bytes": [each.size if each is not None else 0 for each in blobs],
            "entries": [each.hex if each is not None else None for each in blobs],
        }

    def _replay(self, record: Record) -> None:
        """Does again, without the work, what a record says was done."""
        fields: Any = record.fields
        match record.kind:
            case "left" | "returned" if fields["party"] in self._members:
                self._members[fields["party"]].gone = record.kind == "left"
            case "begun":
                self._clients = tuple(fields["clients"])
                for party in self._members.keys() - set(self._clients):
                    self._members[party].news.close(self._began_without(party))
                self._members = {party: self._members[party] for party in self._clients}
                self._standing = ServerState.first(fields["samples"])
                self._open(1)
            case "confirmed":
                member = self._members[fields["party"]]
                member.confirmed = record.round
                self._state_reward(member)
            case "submitted":
                self._members[fields["party"]].submitted[record.round] = bytes.fromhex(fields["update"])
            case "finished":
                self._close(record.round, fields)

    def _close(self, round: int, fields: dict[str, Any]) -> None:
        """Takes note of a settled round, states what each client gets, and opens the next round."""
        kept = fields["standing"]
        first, importance = (torch.tensor(kept[name], dtype=torch.float64) for name in ("first_weights", "importance"))
        self._standing = ServerState(first, importance, torch.tensor(kept["valued"]))
        self._model = bytes.fromhex(fields["model"])
        self._finished.append(fields)
        for client, party in enumerate(self._clients):
            member = self._members[party]
            if fields["entries"][client] is None:
                continue
            member.submitted = {round: member.submitted[round]}
            own = {name: fields[name][client] for name in ("contribution", "importance", "fraction", "kept")}
            entries = bytes.fromhex(fields["entries"][client])
            member.terms = Terms(round, **own, entries=entries, size=fields["bytes"][client])
            member.statement = None
            self._state_reward(member)
        if round < self._session.contract.rounds:
            self._open(round + 1)
        else:
            self._phase = ServerPhase.OVER
            self._opened_at = time.monotonic()
            self._tell(*self._members.values())

    def _open(self, round: int) -> None:
        self._round = round
        self._phase = ServerPhase.OPEN
        self._opened_at = time.monotonic()
        self._tell(*self._members.values())

    def _tell(self, *members: Member) -> None:
        """Lets clients know what is new to them: what they are due, then what is open."""
        for member in members:
            terms, news = member.terms, list[News]()
            if terms is not None and member.statement is None:
                # What it is due is given out when it has signed for its update, and nothing else before that.
                news = [News("opened", terms.round)]
            else:
                if terms is not None and member.statement is not None:
                    news.append(News("settled", terms.round, Reward(terms, member.statement)))
                if self._phase is ServerPhase.OPEN and (terms is None or terms.round < self._round):
                    news.append(News("opened", self._round))
                elif self._phase is ServerPhase.OVER:
                    news.append(News("over", self._round))
            member.news.show(news)
            if news and news[-1].kind == "over":
                member.news.close()

    def _state_reward(self, member: Member) -> None:
        """Signs what a client gets, and gives it out, once the client has signed for its update."""
        terms, context = member.terms, member.context
        if terms is not None and member.confirmed == terms.round:
            member.statement = context.receipt_book.sign(
                "statement", in_round(terms.round), terms.subject, terms.content
            )
            if terms.entries in context.blobs:
                context.blobs.publish(terms.entries, "reward", terms.round)
            self._tell(member)

    def _expect_updates(self) -> None:
        for member in self._members.values():
            self._expect_update(member)

    def _expect_update(self, member: Member) -> None:
        expected = Expectation("update", self._round, self._layout.size, 1, self._layout.verify)
        member.context.blobs.expect(expected if self._phase is ServerPhase.OPEN else None)

    def _member(self, party: str) -> Member:
        """A client.

        Raises:
            ComityError: The session has failed.
            RoundOutOfOrder: The party is none: the first round began without it.
        """
        if self._failure is not None:
            raise self._failure
        if party not in self._members:
            raise self._began_without(party)
        return self._members[party]

    def _began_without(self, party: str) -> RoundOutOfOrder:
        return RoundOutOfOrder(
            "the session has begun",
            expected=f"one of its {len(self._clients)} clients",
            received=party,
            action="join the next session before its first round",
        )

    def _update(self, member: Member, digest: bytes) -> torch.Tensor:
        """An update as it was uploaded.

        Raises:
            UnknownBlob: It was not.
            TensorMismatch: The blob is something else, for example a reward.
        """
        blob = member.context.blobs.get(digest)
        self._layout.verify(blob)
        return self._layout.view(blob.data)["update"]

    def _parameters(self) -> torch.Tensor:
        """The model's parameters in a row, after the last settled round."""
        state = self._task.initial_state
        if self._model is not None:
            state = self._task.layout.view(self._session.blobs.get(self._model).data)
        return torch.cat([state[name].flatten() for name in self._task.parameters])

    def _state(self, parameters: torch.Tensor) -> State:
        state = dict(self._task.initial_state)
        for name, values in zip(self._task.parameters, parameters.split(self._sizes), strict=True):
            state[name] = values.view(state[name].shape)
        return state


def _kept(standing: ServerState) -> dict[str, Json]:
    return {
        "first_weights": standing.first_weights.tolist(),
        "importance": standing.importance.tolist(),
        "valued": standing.valued.tolist(),
    }
