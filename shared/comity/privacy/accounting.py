"""What the noise of a training is worth."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np

from comity.errors import InvalidValue
from comity.privacy.mechanism import Mechanism, require_delta, require_epsilon
from comity.privacy.opacus import load

NOT_COVERED = (
    "the losses that are sent and the checkpoint that is picked are computed without noise and are not covered"
)
"""To be said wherever an ε of a session is shown."""

_TOLERANCE = 0.01
"""How finely the accountant counts: in ε, or as a share of an ε above 1."""
_LEAST_NOISE, _MOST_NOISE = 0.1, 1e4
"""Between them a noise multiplier is looked for."""
_PRECISION = 0.005
"""Of the noise that is found, as a share."""
_SAYS_NOTHING = 500.0
"""An ε above which the coarser RDP bound does, since the PRV accountant's numbers overflow."""


@dataclass(frozen=True, slots=True)
class Guarantee:
    """What a party's local trainings guarantee each of its samples; see `NOT_COVERED` for what they do not.

    Attributes:
        epsilon: Upper bound of ε by the PRV accountant (Gopi et al. 2021), for samples that are drawn by Poisson.
        delta: δ that belongs to it.
        paper_epsilon: ε' by the formula that Chen et al. use.
        paper_delta: δ' of that formula.
    """

    epsilon: float
    delta: float
    paper_epsilon: float
    paper_delta: float


def account(mechanism: Mechanism, *, sampling_rate: float, steps: int) -> Guarantee:
    """What a number of steps guarantees.

    Args:
        mechanism: The noise.
        sampling_rate: q, the probability with which a step sees a sample, in (0, 1].
        steps: Steps that were made in all, at or above 0.

    Raises:
        InvalidValue: A number is out of its range, or the extra is not installed.
    """
    _require_training(sampling_rate, steps)
    if steps == 0:
        return Guarantee(0.0, mechanism.delta, 0.0, 0.0)
    epsilon = math.sqrt(2 * math.log(1 / mechanism.delta)) / mechanism.noise_multiplier
    paper = paper_composition(epsilon, mechanism.delta, sampling_rate=sampling_rate, steps=steps)
    return Guarantee(_prv(mechanism, sampling_rate, steps), mechanism.delta, *paper)


def paper_composition(epsilon: float, delta: float, *, sampling_rate: float, steps: int) -> tuple[float, float]:
    """The composition of Chen et al. 2023 (section A.4): ε' = 2 q ε √(T ln(1/δ)), δ' = q T δ.

    It is shown for comparison only: the values that the paper prints do not follow from it, and it overstates an ε that
    the PRV accountant bounds.

    Returns:
        ε' and δ'.
    """
    return 2 * sampling_rate * epsilon * math.sqrt(steps * math.log(1 / delta)), sampling_rate * steps * delta


def for_total(
    epsilon: float, delta: float, *, sampling_rate: float, steps: int, clipping_norm: float = 1.0
) -> Mechanism:
    """The least noise with which a whole training stays within ε and δ, by the PRV accountant.

    Args:
        epsilon: ε of the whole training, above 0, at most 100.
        delta: δ of the whole training, in (0, 1).
        sampling_rate: q, the probability with which a step sees a sample, in (0, 1].
        steps: Steps of the whole training, at least 1.
        clipping_norm: Greatest norm of a sample's gradient.

    Returns:
        A mechanism whose ε is at most `epsilon`; its noise is at most half a percent above the least, or below 0.1.

    Raises:
        InvalidValue: A number is out of its range, no noise is enough, or the extra is not installed.
    """
    require_epsilon(epsilon)
    require_delta(delta)
    _require_training(sampling_rate, steps)
    if steps < 1:
        raise InvalidValue("Steps of a private training", expected="1 or more", received=steps)
    # From 1 to where the budget holds, and down to where it does not: little noise takes long to account for.
    low, high = 0.0, 1.0
    while (got := _prv(Mechanism(high, delta), sampling_rate, steps)) > epsilon:
        low, high = high, 2 * high
        if high > _MOST_NOISE:
            raise InvalidValue(
                "No noise keeps the training within its budget",
                expected=f"epsilon {epsilon:g}",
                received=f"{got:g} at best",
                action="raise epsilon, or make fewer steps",
            )
    while high > _LEAST_NOISE and high - low > _PRECISION * high:
        middle = (low + high) / 2
        if _prv(Mechanism(middle, delta), sampling_rate, steps) <= epsilon:
            high = middle
        else:
            low = middle
    return Mechanism(high, delta, clipping_norm)


def _require_training(sampling_rate: float, steps: int) -> None:
    if not 0 < sampling_rate <= 1:
        raise InvalidValue("The sampling rate", expected="above 0, at most 1", received=sampling_rate)
    if steps < 0:
        raise InvalidValue("Steps of a private training", expected="0 or more", received=steps)


def _prv(mechanism: Mechanism, sampling_rate: float, steps: int) -> float:
    accountants = load("opacus.accountants")
    history = [(mechanism.noise_multiplier, sampling_rate, steps)]
    rough, fine = accountants.RDPAccountant(), accountants.PRVAccountant()
    rough.history = fine.history = history
    # Where every step sees every sample, the logarithm of the chance not to be seen is infinite, as it should.
    with warnings.catch_warnings(), np.errstate(divide="ignore"):
        # RDP's orders being few makes its bound loose, and no more.
        warnings.filterwarnings("ignore", message="Optimal order", category=UserWarning)
        bound = float(rough.get_epsilon(mechanism.delta))
        if bound > _SAYS_NOTHING:
            return bound
        # A grid that is fine next to a large ε takes long, and all memory in the end.
        error = _TOLERANCE * max(1.0, bound)
        return min(bound, float(fine.get_epsilon(mechanism.delta, eps_error=error)))
