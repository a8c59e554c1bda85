"""The server: waits for the clients' updates, settles the round, and pays each client in entries of the aggregate."""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import Enum, auto
from typing import Any

import torch

from comity import faults
from comity.contract import Json, Release
from comity.errors import ComityError, ConflictingOffer, MalformedMessage, RoundOutOfOrder, SessionFailed
from comity.ledger.ledger import in_round
from comity.ledger.receipts import SignedStatement
from comity.protocols.gradient_rewards import free_riders
from comity.protocols.gradient_rewards.aggregation import Aggregation, state_to_json
from comity.protocols.gradient_rewards.algorithm import RoundResult
from comity.protocols.gradient_rewards.history import History, signs_to_json
from comity.protocols.gradient_rewards.members import Member, Members
from comity.protocols.gradient_rewards.messages import KEPT, News, Reward, RewardDetails
from comity.protocols.gradient_rewards.report import of_round, of_rounds
from comity.protocols.gradient_rewards.rewards import SparseUpdate
from comity.protocols.gradient_rewards.terms import GradientRewardsTerms
from comity.session.contexts import PeerContext, SessionContext
from comity.session.events import Event
from comity.session.outcome import Outcome
from comity.session.replayable_stream import ReplayableStream
from comity.store.store import Record
from comity.tasks.scores import score_of
from comity.tensors import Blob, sparse


class ServerPhase(Enum):
    """What a server is doing."""

    GATHERING = auto()
    """The first clients join."""
    OPEN = auto()
    """A round takes updates."""
    OVER = auto()
    """All rounds are result."""
    FAILED = auto()
    """The session cannot go on."""


class Server:
    """The helping role of many clients; single-threaded. Its state follows from its journal.

    Records: `begun` with the clients in their order, `submitted`, `sat-out`, `confirmed`, `left`, `returned`, `excluded`, and
    `finished`, which holds who took part in a round and the result; who was in time is decided once, by that record.

    Args:
        place: This party's context.
        contexts: Its contexts opposite the clients that have joined.
    """

    def __init__(self, place: SessionContext, contexts: Sequence[PeerContext]) -> None:
        if not isinstance(place.contract.terms, GradientRewardsTerms):
            raise MalformedMessage(
                "the terms are another protocol's", expected="gradient_rewards", received=place.contract.protocol
            )
        self._session = place
        self._terms = place.contract.terms
        self._members = Members(contexts)
        self._aggregation = Aggregation(place, self._terms)
        self._round = 0
        self._phase = ServerPhase.GATHERING
        self._failure: ComityError | None = None
        self._finished: list[dict[str, Any]] = []
        self._history = History(self._finished)
        self._opened_at = time.monotonic()
        for record in place.journal.records():
            self._replay(record)
        self._expect_updates()

    @property
    def over(self) -> bool:
        """Whether nobody has anything to do here any more.

        All rounds are result, or the session has failed, and the clients have left; or a round's deadline has passed since.
        """
        return self._is_ended and (all(each.is_out for each in self._members) or not self._seconds_left)

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
        if self._members.clients:
            self._members[party].require_admitted()
        is_new = party not in self._members
        member = self._members.join(context)
        if not is_new and not member.gone:
            return
        if not is_new:
            self._replay(self._session.journal.append("returned", self._round, party=party))
        member.expect_update(self._open_round, self._aggregation.layout)
        self._tell(member)
        joined: dict[str, Json] = {"client": party, "clients": len(self._members), "of": self._terms.clients}
        self._session.observe(Event("client-joined", self._round, joined))

    def leave(self, party: str) -> None:
        """Goes on without a client."""
        if party in self._members and not self._members[party].gone:
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
        self._require_open(member, round)
        if release.samples < 1 or release.kept != KEPT:
            raise MalformedMessage(
                "the update cannot be taken as it is released",
                expected=f"1 sample or more behind it, kept for its {KEPT}",
                received=f"{release.samples} samples, kept for the {release.kept}",
                action="state what it was trained on; no server keeps it longer",
            )
        self._aggregation.require_normalized(self._aggregation.update(member.context.blobs.get(update)))
        self._replay(
            self._session.journal.append("submitted", round, party=party, update=update.hex(), samples=release.samples)
        )
        faults.point("offering")

    def sit_out(self, party: str, round: int) -> None:
        """See `Rewarding.sit_out`."""
        member = self._member(party)
        if member.sat_out == round:
            return
        if round in member.submitted:
            raise ConflictingOffer(
                f"an update of round {round} was submitted already",
                expected=member.submitted[round].hex(),
                received="none",
                action="a submitted update cannot change",
            )
        self._require_open(member, round)
        self._replay(self._session.journal.append("sat-out", round, party=party))

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

        A round that was result before the client had signed for its update is open to it until it has.
        """
        news = self._member(party).news
        index = 0
        while (found := news.read(index)) is not None and found[0].kind != "over" and found[0].round <= after:
            index = found[1]
        return news, index

    def reward(self, party: str, round: int) -> Reward | None:
        """What a client gets for a result round.

        None where it took no part, has not signed for its update yet, or took part in a later one.
        """
        reward = self._member(party).reward
        return reward if reward is not None and reward.details.round == round else None

    def acknowledge(self, party: str, round: int, acknowledgement: SignedStatement) -> None:
        """See `Rewarding.acknowledge`."""
        reward = self.reward(party, round)
        if reward is None:
            raise RoundOutOfOrder(
                "there is no such reward",
                expected="the last result round that the client took part in",
                received=f"round {round}",
                action="acknowledge what was received",
            )
        self._member(party).context.receipt_book.accept(
            acknowledgement, "acknowledgement", in_round(round), reward.details.subject
        )

    def advance(self) -> bool:
        """Begins, or settles the round, if it is time to."""
        if self._phase is ServerPhase.GATHERING:
            return self._begin()
        return self._phase is ServerPhase.OPEN and self._settle()

    def _begin(self) -> bool:
        """Opens the first round once there are as many clients as the terms say."""
        members = self._members
        if len(members.here) < self._terms.clients:
            return False
        clients: list[Json] = [*sorted(members.here[: self._terms.clients])]
        samples: list[Json] = [members[str(each)].context.peer.samples for each in clients]
        self._replay(self._session.journal.append("begun", 0, clients=clients, samples=samples))
        self._expect_updates()
        return True

    def _settle(self) -> bool:
        """Aggregates the open round once all who are awaited have signed for their updates, or its deadline has passed."""
        members, least = self._members, self._terms.min_clients
        active = members.here
        if len(active) < least:
            raise SessionFailed(
                "too few clients are left",
                expected=f"{least} or more",
                received=len(active),
                action="begin a new session with those who stay",
            )
        # Who has left after submitting is in the round all the same.
        here = [party for party in members.clients if self._round in members[party].submitted]
        awaited = [party for party in active if members[party].sat_out != self._round]
        late = [party for party in awaited if members[party].confirmed != self._round]
        if late and self._seconds_left:
            return False
        if len(here) >= least:
            self._aggregate(here)
            return True
        if len(awaited) < least:
            raise SessionFailed(
                f"too few clients have anything to send in round {self._round}",
                expected=f"updates of {least} or more",
                received=f"{len(active) - len(awaited)} of {len(active)} sit it out",
                action="begin a session with fewer units, more samples, or fewer min_clients",
            )
        self._opened_at = time.monotonic()
        self._session.observe(Event("deadline-extended", self._round, {"submitted": len(here), "late": len(late)}))
        return False

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
            for member in self._members:
                member.news.close(error)
            self._session.observe(Event("session-failed", self._round, {"what": str(error), "reason": error.reason()}))

    def outcome(self) -> Outcome:
        """The server's model, to which every aggregate was added, with what each client contributed and got."""
        excluded = [each for each in self._members.clients if self._members[each].excluded is not None]
        score = score_of(self._session.contract.task.kind).name
        metrics = (
            of_rounds(self._members.clients, self._finished, score)
            | self._history.metrics()
            | {"excluded": [*excluded]}
        )
        return Outcome((self._aggregation.model(),), metrics)

    def _aggregate(self, here: Sequence[str]) -> None:
        """What the updates of those who took part come to, and what each is paid."""
        began = time.monotonic()
        round, aggregation, members = self._round, self._aggregation, self._members
        submitted = [(members[party].context.blobs, members[party].submitted[round]) for party in here]
        updates = torch.stack([aggregation.update(blobs.get(digest)) for blobs, digest in submitted])
        faults.point("evaluation")
        present = [members.clients.index(party) for party in here]
        signs = aggregation.signs(updates, present, self._last_rewards(here))
        findings = free_riders.findings(signs, [self._history.news_of(client) for client in present])
        shares = None if self._terms.free_riders == "warn" else free_riders.shares(signs, findings)
        left = [
            client
            for client, party in enumerate(members.clients)
            if client not in present and (members[party].is_out or self._history.is_away(client))
        ]
        result = aggregation.aggregate(round, updates, present, left, shares)
        faults.point("selection")
        state = aggregation.model_after(result)
        model = self._session.blobs.add(aggregation.task.layout.pack(state))
        fields = of_round(members.clients, result, self._encode_rewards(here, result))
        fields |= signs_to_json(len(members.clients), present, signs, findings)
        fields["participants"] = len(here)
        fields["sat_out"] = [members[party].sat_out == round for party in members.clients]
        fields["model"] = model.hex
        fields |= {f"test_{name}": value for name, value in aggregation.task.tested(state).items()}
        fields["seconds"] = time.monotonic() - self._opened_at
        fields["server_seconds"] = time.monotonic() - began
        fields["standing"] = state_to_json(result.state)
        with self._session.journal.transaction():
            self._replay(self._session.journal.append("finished", round, **fields))
            self._exclude(round)
        self._session.blobs.keep({model.digest})
        for member in members:
            member.context.blobs.keep({member.details.entries} if member.details is not None else set())
        self._expect_updates()
        del fields["standing"]
        self._session.observe(Event("round-finished", round, fields))

    def _last_rewards(self, here: Sequence[str]) -> dict[int, SparseUpdate]:
        """What those who took part were paid last, by place, as far as it is still here."""
        parameters = self._aggregation.layout.tensors["update"].shape[0]
        found = {}
        for place, party in enumerate(here):
            member = self._members[party]
            if member.details is not None and member.details.entries in member.context.blobs:
                encoded = bytes(member.context.blobs.get(member.details.entries).data)
                found[place] = SparseUpdate(*sparse.decode(encoded, parameters), parameters)
        return found

    def _exclude(self, round: int) -> None:
        """Decides, once, who takes part in no more rounds, if the terms say so."""
        if self._terms.free_riders != "exclude":
            return
        for client, why in self._history.due_for_exclusion(self._terms.exclude_after).items():
            party = self._members.clients[client]
            if not self._members[party].is_out:
                self._replay(self._session.journal.append("excluded", round, party=party, why=why))
                self._session.observe(Event("client-excluded", round, {"client": party, "why": why}))

    def _encode_rewards(self, here: Sequence[str], result: RoundResult) -> dict[str, Blob]:
        """Encodes each client's entries, and keeps them until another round is result."""
        paid = {}
        for party, reward in zip(here, result.rewards, strict=True):
            encoded = Blob.of(sparse.encode(reward.indices, reward.values, reward.size))
            paid[party] = self._members[party].context.blobs.release(encoded, "reward", in_round(self._round))
        return paid

    def _replay(self, record: Record) -> None:
        """Does again, without the work, what a record says was done."""
        fields: Any = record.fields
        match record.kind:
            case "left" | "returned" if fields["party"] in self._members:
                self._members[fields["party"]].gone = record.kind == "left"
            case "excluded":
                member = self._members[fields["party"]]
                member.exclude(record.round, fields["why"], self._terms.exclude_after)
                self._tell(member)
            case "begun":
                self._members.begin(fields["clients"])
                self._aggregation.begin(fields["samples"])
                self._open(1)
            case "confirmed":
                member = self._members[fields["party"]]
                member.confirmed = record.round
                if member.state_reward():
                    self._tell(member)
            case "sat-out":
                self._members[fields["party"]].sat_out = record.round
            case "submitted":
                self._members[fields["party"]].submitted[record.round] = bytes.fromhex(fields["update"])
            case "finished":
                self._close(record.round, fields)

    def _close(self, round: int, fields: dict[str, Any]) -> None:
        """Takes note of a round whose updates are aggregated, states what each client gets, and opens the next."""
        self._aggregation.keep(bytes.fromhex(fields["model"]), fields["standing"])
        self._finished.append(fields)
        for client, party in enumerate(self._members.clients):
            if fields["entries"][client] is None:
                continue
            member = self._members[party]
            own = {name: fields[name][client] for name in ("contribution", "importance", "fraction", "kept")}
            entries = bytes.fromhex(fields["entries"][client])
            member.due(RewardDetails(round, **own, entries=entries, size=fields["bytes"][client]))
            if member.state_reward():
                self._tell(member)
        if round < self._session.contract.rounds:
            self._open(round + 1)
        else:
            self._phase = ServerPhase.OVER
            self._opened_at = time.monotonic()
            self._tell(*self._members)

    def _open(self, round: int) -> None:
        self._round = round
        self._phase = ServerPhase.OPEN
        self._opened_at = time.monotonic()
        self._tell(*self._members)

    @property
    def _open_round(self) -> int | None:
        """The round that takes updates, if one does."""
        return self._round if self._phase is ServerPhase.OPEN else None

    def _tell(self, *members: Member) -> None:
        """Lets clients know what is new to them."""
        over = self._round if self._phase is ServerPhase.OVER else None
        for member in members:
            member.tell(self._open_round, over)

    def _require_open(self, member: Member, round: int) -> None:
        """Checks that a client takes part, and that a round is the one that is open.

        Raises:
            PolicyRefusal: The client is excluded.
            RoundOutOfOrder: Another round is open, or none.
        """
        member.require_admitted()
        if self._phase is not ServerPhase.OPEN or round != self._round:
            on = f"round {self._round}" if self._phase is ServerPhase.OPEN else "no round now"
            raise RoundOutOfOrder(
                f"round {round} is not open",
                expected=on,
                received=f"round {round}",
                action="go on with the one that is",
            )

    def _expect_updates(self) -> None:
        for member in self._members:
            member.expect_update(self._open_round, self._aggregation.layout)

    def _member(self, party: str) -> Member:
        """A client.

        Raises:
            ComityError: The session has failed.
            RoundOutOfOrder: The party is none: the first round began without it.
        """
        if self._failure is not None:
            raise self._failure
        return self._members[party]
