"""Which trainings a guarded node takes part in: limits that the leak guard's rules rest on; importing it imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from comity.errors import PolicyRefusal
from comity.privacy.settings import OptimizerName, PrivacySettings


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """What a contract has a party train, as far as the limits go.

    Attributes:
        batch_size: Samples of a step.
        steps: Steps between two things that are sent, or from the beginning to the first.
        iterations: Most steps of one training.
        optimizer: Name of the optimiser.
        learning_rate: Its learning rate.
        is_private: Whether differential privacy covers the training.
        steps_term: What `steps` is called in the contract's terms.
        is_balanced: Whether each class is drawn as often as any.
        classes: Where it is, the party's samples of each class.
        leaving: What the protocol calls the models of which something leaves; empty for all.
    """

    batch_size: int
    steps: int
    iterations: int
    optimizer: OptimizerName
    learning_rate: float
    is_private: bool
    steps_term: str = "sampling_period"
    is_balanced: bool = False
    classes: tuple[int, ...] = ()
    leaving: tuple[str, ...] = ()

    def distinct(self, samples: int) -> float:
        """Distinct samples that a party of so many is expected to draw between two sends, or fewer."""
        if self.is_balanced:
            there = [count for count in self.classes if count]
            share_of_each = min(self.batch_size, samples) / max(len(there), 1)
            return sum(count * (1 - (1 - min(share_of_each / count, 1)) ** self.steps) for count in there)
        share = min(self.batch_size, samples) / samples
        return float(samples * (1 - (1 - share) ** self.steps))


def require_within(
    settings: PrivacySettings, plan: TrainingPlan, samples: int, widest: Mapping[str, int], party: str
) -> None:
    """Checks that what a contract asks of a party is within its limits.

    Args:
        settings: The party's.
        plan: What it is to train.
        samples: Its samples.
        widest: Of each model by name, outputs of the widest fully connected layer with many inputs; 0 for none.
        party: Its name.

    Raises:
        PolicyRefusal: It is not; names the term at fault, and what would do.
    """
    if settings.preset == "dp" and not plan.is_private:
        raise _refusal(party, "preset", "session.terms.privacy", "none", "agree on an epsilon")
    rate = settings.max_learning_rate.get(plan.optimizer)
    if rate is not None and plan.learning_rate > rate:
        expected = f"a learning_rate of at most {rate:g} with {plan.optimizer}"
        raise _refusal(party, "max_learning_rate", expected, f"{plan.learning_rate:g}", "lower the term")
    if plan.iterations > settings.max_iterations:
        expected = f"at most {settings.max_iterations} iterations"
        raise _refusal(party, "max_iterations", expected, plan.iterations, "lower the term iterations")
    if plan.steps < settings.min_period:
        expected = f"a {plan.steps_term} of at least {settings.min_period}"
        raise _refusal(party, "min_period", expected, plan.steps, "raise the term")
    _require_draws(settings, plan, samples, party)
    for model, width in widest.items():
        allowed = settings.models.get(model)
        if settings.models and allowed is None:
            raise _refusal(party, "models", ", ".join(settings.models), model, "use one of these models")
        if allowed is not None and width > allowed:
            raise _refusal(party, "models", f"{model} of at most {allowed} units", width, "use a narrower model")
    _require_distinct(settings, plan, samples, widest, party)


def _require_draws(settings: PrivacySettings, plan: TrainingPlan, samples: int, party: str) -> None:
    """Checks that batches differ from each other by many samples; noise hides what others differ by."""
    batch, by_share = min(plan.batch_size, samples), math.floor(settings.max_batch_share * samples)
    by_rest = samples - settings.min_distinct
    if plan.is_private or batch <= min(by_share, by_rest) or batch == samples == by_share:
        return
    if by_rest < 1:
        # No batch would do.
        action = (
            'train on more; or agree on an epsilon; or, where anybody may read them, set preset = "public" in [privacy]'
        )
        raise _refusal(party, "min_distinct", f"more than {settings.min_distinct} samples", samples, action)
    limit = "max_batch_share" if by_share < by_rest or batch == samples else "min_distinct"
    expected = f"a batch_size of at most {min(by_share, by_rest)} of {samples} samples"
    raise _refusal(party, limit, expected, plan.batch_size, "lower the term; the node's owner can change the limit")


@dataclass(frozen=True, slots=True)
class Backing:
    """What stands behind each thing that is sent.

    Attributes:
        distinct: Distinct samples, about.
        needed: How many the party's limits want.
    """

    distinct: float
    needed: float

    @property
    def is_thin(self) -> bool:
        """Whether so few are behind it that single samples are likely to show in some row, sooner or later."""
        return self.distinct < 2 * self.needed

    def told(self, samples: int) -> str:
        """In words."""
        behind = f"about {self.distinct:.0f} of {samples} samples behind what is sent each time"
        return f"{behind}, {self.needed:.0f} wanted"


def backing(settings: PrivacySettings, plan: TrainingPlan, samples: int, widest: Mapping[str, int]) -> Backing:
    """What of a party's samples stands behind each thing that it sends; see `require_within`."""
    by_width = settings.width_factor * max(widest.values(), default=0)
    return Backing(plan.distinct(samples), max(settings.min_distinct, by_width))


def _require_distinct(
    settings: PrivacySettings, plan: TrainingPlan, samples: int, widest: Mapping[str, int], party: str
) -> None:
    """Checks that enough distinct samples stand behind each thing that is sent."""
    found = backing(settings, plan, samples, widest)
    distinct, needed, by_width = found.distinct, found.needed, found.needed > settings.min_distinct
    if distinct >= needed:
        return
    by = "width_factor" if by_width else "min_distinct"
    wanted = f"{needed:.0f} distinct samples behind what is sent"
    if by == "width_factor":
        wanted += f", {settings.width_factor:g} for each unit of the widest layer"
    raise _refusal(party, by, wanted, f"about {distinct:.0f}", _remedy(settings, plan, samples, needed, distinct))


def _remedy(settings: PrivacySettings, plan: TrainingPlan, samples: int, needed: float, distinct: float) -> str:
    """What would do."""
    fits = [
        f"{plan.steps_term} = {steps}"
        for steps in range(plan.steps, min(plan.iterations, 1000) + 1)
        if _with(plan, steps).distinct(samples) >= needed
    ][:1]
    units = int(distinct // settings.width_factor) if settings.width_factor else 0
    if settings.width_factor and distinct >= settings.min_distinct and units:
        fits.append(f"layers of at most {units} units")
    fits.append("larger batches or more data")
    return f"{', or '.join(fits)} would do; the node's owner can lower privacy.width_factor"


def _with(plan: TrainingPlan, steps: int) -> TrainingPlan:
    return replace(plan, steps=steps)


def _refusal(party: str, limit: str, expected: object, received: object, action: str) -> PolicyRefusal:
    return PolicyRefusal(
        f"{party}'s privacy.{limit} refuses the session", expected=expected, received=received, action=action
    )
