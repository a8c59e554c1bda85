"""Who trains in which round and for how long, and so what may come: as contract and memberships have it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property

from comity.contract import Contract, Json, Membership
from comity.errors import MalformedMessage
from comity.privacy import NOT_COVERED, agreed
from comity.protocols.assisted_learning.algorithm import (
    JointLoss,
    Loss,
    sampled_iterations,
    split_iterations,
    training_order,
)
from comity.protocols.assisted_learning.terms import AssistedLearningTerms
from comity.training import sampling_rate


class Schedule:
    """A session's rounds, as one party sees them.

    The learner knows how many samples everybody has. A provider knows its own number and the learner's: of several
    providers, what it cannot know of the others' trajectories is bounded by the contract.

    Args:
        contract: What was agreed.
        own: This party's part in it.
        peers: The parts of those with whom it has to do: of the learner, or of every provider.

    Raises:
        MalformedMessage: The contract is not one of assisted learning that can be kept.
    """

    def __init__(self, contract: Contract, own: Membership, peers: Sequence[Membership]) -> None:
        if not isinstance(contract.terms, AssistedLearningTerms):
            raise MalformedMessage(
                "the terms are another protocol's", expected="assisted_learning", received=contract.protocol
            )
        self.terms = contract.terms
        self.rounds = contract.rounds
        self.providers = contract.acceptors
        if self.terms.trainers > len(self.providers) or len(set(self.providers)) < len(self.providers):
            raise MalformedMessage(
                "more providers are to train than there are",
                expected=f"at most {len(set(self.providers))} in session.terms.trainers, each named once",
                received=f"{self.terms.trainers} of {', '.join(self.providers)}",
                action="correct session.terms.trainers or session.acceptors",
            )
        self._own = own
        self._peers = peers
        self._require_training()

    def _require_training(self) -> None:
        """Checks that somebody trains longer than the sampling period: else nothing would be sent but what came.

        Raises:
            MalformedMessage: Nobody does.
        """
        if self.is_shared and self._own.role == "provider":
            # What other providers do it does not know.
            return
        period, most = self.terms.sampling_period, max(self._iterations(each) for each in (self._own, *self._peers))
        if self._peers and period >= most:
            raise MalformedMessage(
                "the sampling period is longer than the training of every party: nothing would be trained",
                expected=f"a sampling_period below {most}",
                received=period,
                action="lower sampling_period in session.terms, or raise iterations",
            )

    @property
    def is_shared(self) -> bool:
        """Whether several providers help."""
        return len(self.providers) > 1

    def trainers(self, round: int) -> tuple[str, ...]:
        """The providers that train in a round, one after the other."""
        return training_order(self.providers, round, self.terms.order, self.terms.trainers)

    def trains(self, round: int) -> bool:
        """Whether this party trains in a round."""
        return self._own.role == "learner" or self._own.party in self.trainers(round)

    @cached_property
    def iterations(self) -> int:
        """T of the learner, or T' of this provider."""
        return self._iterations(self._own)

    def sampled(self, party: str) -> range:
        """Iterations of which a trajectory that comes from a party holds the models.

        What a learner passes on of several providers' trajectories is as long as the longest that there can be, or shorter.
        """
        if self.is_shared and self._own.role == "provider":
            iterations = self.terms.longest
        else:
            iterations = self._iterations(next(each for each in self._peers if each.party == party))
        return sampled_iterations(iterations, self.terms.sampling_period)

    @property
    def longest(self) -> int:
        """Most checkpoints in anybody's trajectory."""
        return len(sampled_iterations(self.terms.longest, self.terms.sampling_period))

    def most_uploaded(self, round: int) -> int:
        """Most models of a round that this provider is sent."""
        offered = len(self.sampled(self._peers[0].party)) if self.trains(round) else 0
        return offered + self.most_assessed(round)

    def most_assessed(self, round: int) -> int:
        """Most models of a round of which this provider may be asked what it thinks.

        Those of all trajectories but the one that it makes and the one that it chooses from.
        """
        if not self.is_shared:
            return 0
        trajectories = len(self.trainers(round)) + 1
        return (trajectories - 2 * self.trains(round)) * self.longest

    def require_fitting(self, loss: Loss | JointLoss, party: str) -> None:
        """Checks that a loss is of as many samples as the party has, or, of several, the sum that they add up to.

        Raises:
            MalformedMessage: It is not.
        """
        if self.is_shared and self._own.role == "provider":
            if isinstance(loss, Loss):
                raise MalformedMessage(
                    "the loss is one party's",
                    expected="what the losses of all other parties add up to, since several help",
                    received=f"{loss.sum} over {loss.count}",
                    action="offer with the joint loss",
                )
            return
        samples = next(each.samples for each in self._peers if each.party == party)
        if self.terms.select_on == "validation" and isinstance(loss, Loss):
            # Of those that are held out nobody has told.
            samples = max(loss.count, 1)
        if isinstance(loss, JointLoss) or loss.count != samples:
            raise MalformedMessage(
                "the loss is over another number of samples",
                expected=samples,
                received=loss.count if isinstance(loss, Loss) else "a joint loss",
                action="evaluate on the samples that were agreed on",
            )

    def steps(self) -> int:
        """Local steps of this party in the whole session: those up to the last sampled iteration, in every round."""
        of_a_round = sampled_iterations(self.iterations, self.terms.sampling_period)[-1]
        return of_a_round * sum(self.trains(round) for round in range(1, self.rounds + 1))

    def iterations_of_all(self) -> int:
        """Iterations that all parties together make in the whole session, as the learner knows it."""
        made = {each.party: self._iterations(each) for each in self._peers}
        rounds = range(1, self.rounds + 1)
        return sum(self.iterations + sum(made[name] for name in self.trainers(round)) for round in rounds)

    def blobs_held(self) -> int:
        """Most models that this party keeps at a time.

        Every trajectory of a round, what was picked before, and two states of an optimiser with two moments.
        """
        if self.is_shared:
            held = self.longest * (len(self.trainers(1)) + 1)
        else:
            parts = [self._iterations(member) for member in (self._own, *self._peers)]
            held = sum(len(sampled_iterations(part, self.terms.sampling_period)) for part in parts)
        return held + 2 + 4

    def mean_return(self, total: float) -> float | None:
        """J(θ) of a global loss: the mean discounted return of all parties' episodes.

        None for other tasks, and at one of several providers, which does not know how many episodes the others have.
        """
        how = self.terms.policy_gradient
        if how is None or how.best_return is None or (self.is_shared and self._own.role == "provider"):
            return None
        members = (self._own, *self._peers)
        parts = sum(each.samples for each in members) if self.terms.objective == "sum" else len(members)
        return how.best_return - total / parts

    def _iterations(self, member: Membership) -> int:
        """T or T': a provider's share is by its own samples and the learner's, the learner's by those of all providers."""
        said = self.terms.of_role(member.role)
        if said is not None:
            return said
        members = (self._own, *self._peers)
        learner = next(each.samples for each in members if each.role == "learner")
        if member.role == "provider":
            return split_iterations(self.terms.iterations, learner, member.samples)[1]
        providers = sum(each.samples for each in members if each.role == "provider")
        return split_iterations(self.terms.iterations, learner, providers)[0]


def guarantees(contract: Contract, own: Membership, peers: Sequence[Membership]) -> dict[str, Json] | None:
    """What the training guarantees the samples of each party, as the contract has it; None without noise.

    Returns:
        By role, or by name where several help.
    """
    schedule = Schedule(contract, own, peers)
    terms = schedule.terms
    if terms.privacy is None:
        return None
    found: dict[str, Json] = {"not_covered": NOT_COVERED}
    for one in (own, *peers):
        others = peers if one is own else (own,)
        rate = sampling_rate(one.samples, terms.batch_size)
        mechanism, guarantee = agreed(terms.privacy, sampling_rate=rate, steps=Schedule(contract, one, others).steps())
        name = one.party if schedule.is_shared else one.role
        found[name] = {**asdict(guarantee), "noise_multiplier": mechanism.noise_multiplier}
    return found
