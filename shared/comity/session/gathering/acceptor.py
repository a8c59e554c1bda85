"""The accepting role of many: takes one blob of each client in a round, settles the round, and answers each."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from comity import faults
from comity.contract import Json, Release
from comity.errors import ComityError, ConflictingOffer, MalformedMessage, RoundOutOfOrder, SessionFailed
from comity.ledger.ledger import in_round
from comity.ledger.receipts import SignedStatement
from comity.session.contexts import PeerContext
from comity.session.events import Event
from comity.session.gathering.messages import Answer, Details, News
from comity.session.gathering.state import GatheringState, Phase
from comity.session.replayable_stream import ReplayableStream
from comity.session.stopping import ended_early
from comity.tensors import Blob


class GatheringAcceptor(GatheringState[Details]):
    """What a role that gathers is derived from; single-threaded.

    It implements `JoinedAcceptor` but for its outcome, and the other side of `Gathering`.
    """

    @abstractmethod
    def _require_fitting(self, blob: Blob) -> None:
        """Checks a client's blob beyond its layout.

        Raises:
            PeerMessageError: It does not fit.
        """

    @abstractmethod
    def _aggregated(self, here: Sequence[str]) -> dict[str, Any]:
        """What the blobs of those who took part come to, with what each gets kept at its `context.blobs`.

        Returns:
            JSON: with `model`, the digest of what this party goes on with, hexadecimal, and whatever `_details` needs.
        """

    def _settled(self, round: int) -> None:
        """Does what else is decided with a round, in the same transaction; nothing, if a role says nothing else."""

    def _kept_of(self, party: str) -> set[bytes]:
        """Digests of a client's blobs that are needed beyond the round; none, if a role says nothing else."""
        del party
        return set()

    def _shown(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Fields of a round as observers get them: all, if a role says nothing else."""
        return fields

    def admit(self, context: PeerContext) -> None:
        """Lets a client in; again, one that was in.

        Raises:
            RoundOutOfOrder: The first round has begun without it.
        """
        if self._failure is not None:
            raise self._failure
        party = context.peer.party
        if self._phase is Phase.JOINING:
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
        self._expect_of(member)
        self._tell(member)
        joined: dict[str, Json] = {"client": party, "clients": len(self._members), "of": self._plan.clients}
        self._session.observe(Event("client-joined", self._round, joined))

    def leave(self, party: str) -> None:
        """Goes on without a client."""
        if party in self._members and not self._members[party].gone:
            self._replay(self._session.journal.append("left", self._round, party=party))
            self._session.observe(Event("client-left", self._round, {"client": party}))

    def submit(self, party: str, round: int, blob: bytes, release: Release) -> None:
        """See `Gathering.submit`."""
        member, submits = self._member(party), self._plan.submits
        known = member.submitted.get(round)
        if known is not None:
            if known != blob:
                raise self._submitted_already(round, known, blob.hex())
            return
        self._require_open(member, round)
        if release.samples < 1 or release.kept != self._plan.kept:
            raise MalformedMessage(
                f"the {submits} cannot be taken as it is released",
                expected=f"1 sample or more behind it, kept for its {self._plan.kept}",
                received=f"{release.samples} samples, kept for the {release.kept}",
                action="state what it was trained on; it is not kept longer",
            )
        received = member.context.blobs.get(blob)
        self._plan.layout.verify(received)
        self._require_fitting(received)
        self._replay(
            self._session.journal.append("submitted", round, party=party, blob=blob.hex(), samples=release.samples)
        )
        faults.point("offering")

    def sit_out(self, party: str, round: int) -> None:
        """See `Gathering.sit_out`."""
        member = self._member(party)
        if member.sat_out == round:
            return
        if round in member.submitted:
            raise self._submitted_already(round, member.submitted[round], "none")
        self._require_open(member, round)
        self._replay(self._session.journal.append("sat-out", round, party=party))

    def confirm(self, party: str, round: int, request: SignedStatement) -> SignedStatement:
        """See `Gathering.confirm`."""
        member = self._member(party)
        blob = member.submitted.get(round)
        if blob is None:
            raise RoundOutOfOrder(
                f"there is no {self._plan.submits} of round {round} to confirm",
                expected=", ".join(map(str, member.submitted)) or "none yet",
                received=f"round {round}",
                action="submit while the round is open",
            )
        with self._session.journal.transaction():
            member.context.receipt_book.accept(request, "request", in_round(round), blob)
            receipt = member.context.receipt_book.sign("receipt", in_round(round), blob)
            if member.confirmed < round:
                self._replay(self._session.journal.append("confirmed", round, party=party))
        return receipt

    def follow(self, party: str, after: int) -> tuple[ReplayableStream[News[Details]], int]:
        """What a client has to know, and where it goes on for one that is done with round `after`.

        A round that was settled before the client had signed for its blob is open to it until it has.
        """
        news = self._member(party).news
        index = 0
        while (found := news.read(index)) is not None and found[0].kind != "over" and found[0].round <= after:
            index = found[1]
        return news, index

    def answer(self, party: str, round: int) -> Answer[Details] | None:
        """What a client gets for a settled round.

        None where it took no part, has not signed for its blob yet, or took part in a later one.
        """
        answer = self._member(party).answer
        return answer if answer is not None and answer.details.round == round else None

    def acknowledge(self, party: str, round: int, acknowledgement: SignedStatement) -> None:
        """See `Gathering.acknowledge`."""
        answer = self.answer(party, round)
        if answer is None:
            raise RoundOutOfOrder(
                f"there is no such {self._plan.answers}",
                expected="the last settled round that the client took part in",
                received=f"round {round}",
                action="acknowledge what was received",
            )
        self._member(party).context.receipt_book.accept(
            acknowledgement, "acknowledgement", in_round(round), answer.details.subject
        )

    def advance(self) -> bool:
        """Begins, or settles the round, if it is time to."""
        if self._phase is Phase.JOINING:
            return self._begin()
        return self._phase is Phase.OPEN and self._settle()

    def wakes_in(self) -> float | None:
        """Seconds until the deadline of the round that is open, or until no client is waited for any more; None before."""
        if self._phase is Phase.JOINING:
            return None
        return 0.0 if self.over else self._seconds_left

    def fail(self, error: ComityError) -> None:
        """Ends the session: those who follow it are told, and every later call is answered with the error."""
        if self._failure is None:
            self._failure = error
            self._phase = Phase.FAILED
            self._opened_at = time.monotonic()
            for member in self._members:
                member.news.close(error)
            self._session.observe(Event("session-failed", self._round, {"what": str(error), "reason": error.reason()}))

    def _begin(self) -> bool:
        """Opens the first round once there are as many clients as the plan says."""
        members = self._members
        if len(members.here) < self._plan.clients:
            return False
        clients: list[Json] = [*sorted(members.here[: self._plan.clients])]
        samples: list[Json] = [members[str(each)].context.peer.samples for each in clients]
        self._replay(self._session.journal.append("begun", 0, clients=clients, samples=samples))
        self._expect_blobs()
        return True

    def _settle(self) -> bool:
        """Settles the open round once all who are awaited have signed for their blobs, or its deadline has passed."""
        members, least = self._members, self._plan.min_clients
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
            self._finish(here)
            return True
        if len(awaited) < least:
            raise SessionFailed(
                f"too few clients have anything to send in round {self._round}",
                expected=f"{self._plan.submits}s of {least} or more",
                received=f"{len(active) - len(awaited)} of {len(active)} sit it out",
                action="begin a session with fewer units, more samples, or fewer min_clients",
            )
        self._opened_at = time.monotonic()
        self._session.observe(Event("deadline-extended", self._round, {"submitted": len(here), "late": len(late)}))
        return False

    def _finish(self, here: Sequence[str]) -> None:
        """Settles the open round with those who took part."""
        round, members = self._round, self._members
        fields = self._aggregated(here)
        fields["participants"] = len(here)
        fields["sat_out"] = [members[party].sat_out == round for party in members.clients]
        with self._session.journal.transaction():
            self._replay(self._session.journal.append("finished", round, **fields))
            self._settled(round)
        self._session.blobs.keep({bytes.fromhex(fields["model"])})
        for member in members:
            answered = {member.details.blob} if member.details is not None else set()
            member.context.blobs.keep(answered | self._kept_of(member.context.peer.party))
        self._expect_blobs()
        self._session.observe(Event("round-finished", round, self._shown(fields)))
        why = self._enough()
        if why is not None:
            self._session.observe(ended_early(round, why))

    def _submitted_already(self, round: int, known: bytes, received: str) -> ConflictingOffer:
        submits = self._plan.submits
        return ConflictingOffer(
            f"another {submits} of round {round} was submitted already",
            expected=known.hex(),
            received=received,
            action=f"a submitted {submits} cannot change",
        )
