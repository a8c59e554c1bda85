"""What a node agrees to, whatever a contract asks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from comity.contract import WEEK_S, Contract, Duration, Membership
from comity.errors import PolicyRefusal

Fingerprint = Annotated[
    str,
    BeforeValidator(lambda value: value.replace(":", "").lower() if isinstance(value, str) else value),
    Field(pattern=r"^[0-9a-f]{64}$"),
]
"""SHA-256 of a certificate, hexadecimal; read with the colons that openssl prints."""

ProtocolName = Annotated[
    str, BeforeValidator(lambda value: value.replace("-", "_") if isinstance(value, str) else value)
]
"""A protocol as contracts call it; read with hyphens as well, as everywhere."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a party asks of this node already.

    Attributes:
        active: Sessions with it that are not over, those that wait and proposals that nobody has decided on among them.
        within_an_hour: Sessions that it has begun within the last hour.
    """

    active: int = 0
    within_an_hour: int = 0


NEVER_ASKED = Asked()


@dataclass(frozen=True, slots=True)
class Reserved:
    """What is promised already of something of which there is only so much.

    Attributes:
        all: Bytes that are promised in all.
        theirs: Those that are promised for what one party asks.
    """

    all: int = 0
    theirs: int = 0

    def __add__(self, other: Reserved) -> Reserved:
        """Both together."""
        return Reserved(self.all + other.all, self.theirs + other.theirs)


NOTHING_RESERVED = Reserved()


class Policy(BaseModel):
    """The limits of what this node agrees to; a contract outside them is refused with the reason.

    Attributes:
        parties: Parties that may have sessions with this node; empty for all whose certificate it trusts.
        protocols: Protocols that it takes part in; empty for all that it offers.
        egress: Kinds that may leave this node; none that is not named here does, also not one that a package adds.
        max_rounds: Most rounds of one session.
        max_sessions: Most sessions at a time, beside those that wait for a decision or for something that may take days.
        max_sessions_a_party: Most that are not over with one party, of those in which this node is asked; these count here.
        max_new_sessions: Most that one party may begin within an hour, of those: what is recorded of each stays.
        max_silence_s: Most that a contract may say of how long a session goes on whose initiator does not call, in seconds.
            None for ever.
        max_duration_s: Most that a contract may say of how long it is valid, in seconds. None for ever.
        min_samples: Fewest samples behind what this node sends: an update from very few is nearly those samples. A node
            that does not train is not concerned.
        min_clients: Fewest clients whose updates are mixed, in sessions that many join: of two, each can compute the
            other's update from what both made together.
        max_acceptors: Most acceptors of one session: where there are several, what one sends may reach the others, or be
            asked for what came of them. 1 for a node that helps alone.
        max_losses: Most exact losses on this node's samples that a session may ask for: each is a question to them.
        approve: Who decides on a proposal that this policy admits: the policy alone (`policy`), or an operator of this node
            (`ask`), until whom the session waits.
        max_wait_s: Longest that a session may wait where its reason to wait is bounded, in seconds; None for ever.
        max_state_bytes: Most that the tensors of all sessions, and what is recorded of them, may take on disk; None for what
            the disk holds.
        max_memory_bytes: Most that the models of all sessions may take in memory; None for three quarters of the machine's.
        max_party_share: Most of that disk and of that memory that the sessions may take that one party asks for, as a part
            of 1: what is left is for others.
        max_epsilon: Most ε that all sessions together may spend on this node's samples, by the PRV accountant; sessions
            that train on them without noise are then refused. None for no limit.
        revoked: SHA-256 fingerprints of certificates that are refused though they are trusted, with colons or without.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    parties: tuple[str, ...] = ()
    protocols: tuple[ProtocolName, ...] = ()
    egress: tuple[str, ...] = ("contract", "checkpoint", "loss", "update", "reward", "answer")
    max_rounds: Annotated[int, Field(ge=1)] = 1000
    max_sessions: Annotated[int, Field(ge=1)] = 16
    max_sessions_a_party: Annotated[int, Field(ge=1)] = 4
    max_new_sessions: Annotated[int, Field(ge=1)] = 1000
    max_silence_s: Duration | None = WEEK_S
    max_duration_s: Duration | None = None
    min_samples: Annotated[int, Field(ge=1)] = 10
    min_clients: Annotated[int, Field(ge=1)] = 3
    max_acceptors: Annotated[int, Field(ge=1)] = 8
    max_losses: Annotated[int, Field(ge=0)] = 10_000
    approve: Literal["policy", "ask"] = "policy"
    max_wait_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    max_state_bytes: Annotated[int, Field(ge=0)] | None = None
    max_memory_bytes: Annotated[int, Field(ge=0)] | None = None
    max_party_share: Annotated[float, Field(gt=0, le=1)] = 0.75
    max_epsilon: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    revoked: frozenset[Fingerprint] = frozenset()

    def review(
        self,
        contract: Contract,
        own: Membership,
        peers: tuple[str, ...],
        *,
        active: int,
        asked: Asked = NEVER_ASKED,
        received_only: Collection[str] = (),
    ) -> None:
        """Decides whether this node may enter a contract.

        Args:
            contract: The contract.
            own: This node's part in it.
            peers: The other parties.
            active: Sessions that this node has already.
            asked: What the party that asks has already.
            received_only: Kinds of the contract that only the other side sends: this policy need not name them.

        Raises:
            PolicyRefusal: The contract is outside this policy; names the first limit that it passes.
        """
        for peer in peers:
            self.require_admitted(own.party, peer)
        if self.protocols and contract.protocol not in self.protocols:
            raise _refusal(
                own.party, "protocols", ", ".join(self.protocols), contract.protocol, "choose one of these protocols"
            )
        fewer = "name fewer acceptors, or raise the limit if what this node says may be of use to so many"
        wait = "wait until a session has ended"
        losses = contract.terms.most_losses(contract.rounds, len(contract.acceptors))
        ask_less = "buy fewer rounds or sample fewer models, or raise the limit if so many exact losses may be known"
        # How many others there are is confidential.
        for limit, most, wanted, received, action in (
            ("max_rounds", self.max_rounds, contract.rounds, str(contract.rounds), "buy fewer rounds"),
            ("max_acceptors", self.max_acceptors, len(contract.acceptors), str(len(contract.acceptors)), fewer),
            ("max_losses", self.max_losses, losses, str(losses), ask_less),
            ("max_sessions_a_party", self.max_sessions_a_party, asked.active + 1, "one more", wait),
            ("max_new_sessions", self.max_new_sessions, asked.within_an_hour + 1, "one more", "wait for an hour"),
            ("max_sessions", self.max_sessions, active + 1, "one more", wait),
        ):
            if wanted > most:
                raise _refusal(own.party, limit, f"at most {most}", received, action)
        self._require_bounded(contract, own)
        if 0 < own.samples < self.min_samples:
            action = "use more data, or lower the limit if what so few samples reveal may be known"
            raise _refusal(own.party, "min_samples", f"at least {self.min_samples}", own.samples, action)
        fewest = contract.terms.min_participants
        if fewest is not None and fewest < self.min_clients:
            action = "raise the session's min_clients, or lower the limit if each may know the other's update"
            raise _refusal(own.party, "min_clients", f"at least {self.min_clients}", fewest, action)
        for kind in contract.egress:
            if kind not in self.egress and kind not in received_only:
                raise _refusal(
                    own.party,
                    "egress",
                    ", ".join(self.egress),
                    kind,
                    "ask its operator whether this may leave; if so, it is added to policy.egress",
                )

    def _require_bounded(self, contract: Contract, own: Membership) -> None:
        """Checks how long a contract keeps this node at work where nobody calls, and in all."""
        limits = [("max_duration_s", self.max_duration_s, contract.max_duration_s)]
        if own.party in contract.acceptors and not contract.is_open:
            limits.append(("max_silence_s", self.max_silence_s, contract.max_silence_s))
        for limit, most, wanted in limits:
            if most is not None and (wanted is None or wanted > most):
                received = "no limit" if wanted is None else f"{wanted:g} s"
                raise _refusal(
                    own.party, limit, f"at most {most:g} s", received, f"set session.{limit} to that or less"
                )

    def require_admitted(self, own: str, peer: str) -> None:
        """Checks that a party may have sessions with this node, before anything else is said to it.

        Args:
            own: This node's party.
            peer: The other party.

        Raises:
            PolicyRefusal: It may not.
        """
        if self.parties and peer not in self.parties:
            raise _refusal(own, "parties", "a party that it names", peer, "ask its operator to add the party")

    def require_enough(self, samples: int) -> None:
        """Checks that what is about to leave stands on enough samples; data change within a session.

        Args:
            samples: Samples behind it; 0 where it is about none.

        Raises:
            PolicyRefusal: They are fewer than this policy wants.
        """
        if 0 < samples < self.min_samples:
            raise PolicyRefusal(
                "policy.min_samples keeps this from leaving",
                expected=f"at least {self.min_samples}",
                received=samples,
                action="use more data, or lower the limit if what so few samples reveal may be known",
            )

    def may_leave(self, kind: str) -> bool:
        """Whether anything of a kind may leave this node at all."""
        return kind in self.egress


def _refusal(own: str, limit: str, expected: object, received: object, action: str) -> PolicyRefusal:
    return PolicyRefusal(
        f"{own}'s policy.{limit} refuses the session", expected=expected, received=received, action=action
    )
