"""How often the server is asked: rules that hold a bound on the reject rate in expectation (BRR of the paper).

Wu et al., "Learning to Help in Multi-Class Settings", ICLR 2025. Published is the post hoc rule, which drops requests by
chance. A threshold on a score drops those that matter least and holds the same bound; the score may be the rejector's or
the local model's own lack of confidence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from comity.errors import InvalidValue, MalformedMessage, NonFiniteValue


def confidence_scores(local_logits: Float[Tensor, "batch classes"]) -> Float[Tensor, " batch"]:
    """The baseline without a rejector: 1 - max softmax of m, above which the server is asked.

    Raises:
        MalformedMessage: The logits are not one row an input.
    """
    if local_logits.ndim != 2 or local_logits.shape[1] == 0:
        raise MalformedMessage(
            "Logits of the local model",
            expected="one row for each input",
            received=f"shape {tuple(local_logits.shape)}",
        )
    return 1 - local_logits.softmax(dim=1).amax(dim=1)


def stochastic_post_hoc(
    remote: Bool[Tensor, " batch"], rate: float, limit: float, generator: torch.Generator | None = None
) -> Bool[Tensor, " batch"]:
    """The published rule: where the rate is above the limit, each request is kept with probability limit / rate.

    Args:
        remote: True where the rejector would ask.
        rate: Its reject rate, 0 to 1, as estimated on calibration data.
        limit: q, the greatest expected reject rate, 0 to 1.
        generator: What chance is drawn from.

    Returns:
        True where the server is asked.

    Raises:
        InvalidValue: The rate or the limit is out of range.

    Examples:
        >>> stochastic_post_hoc(torch.tensor([True, False, True]), rate=0.2, limit=0.5)
        tensor([ True, False,  True])
        >>> stochastic_post_hoc(torch.tensor([True, False, True]), rate=0.2, limit=0.0)
        tensor([False, False, False])
    """
    _check_share("The reject rate on calibration data", rate)
    _check_share("The limit on the reject rate", limit)
    if rate <= limit:
        return remote.clone()
    chance = torch.rand(remote.shape, generator=generator, dtype=torch.float64).to(remote.device)
    return remote & (chance < limit / rate)


@dataclass(frozen=True)
class RejectRule:
    """A threshold on a score, and what happens on it.

    Attributes:
        threshold: Above it the server is asked; minus infinity asks always, infinity never.
        tie_probability: The probability that it is asked where the score is the threshold, 0 to 1.
    """

    threshold: float
    tie_probability: float

    def decide(
        self, scores: Float[Tensor, " batch"], generator: torch.Generator | None = None
    ) -> Bool[Tensor, " batch"]:
        """True where the server is asked; never where the score is NaN.

        Args:
            scores: Of the same kind as those that the rule was fitted to.
            generator: What chance is drawn from, for ties.
        """
        above, on = scores > self.threshold, scores == self.threshold
        if self.tie_probability == 0 or not bool(on.any()):
            return above
        chance = torch.rand(scores.shape, generator=generator, dtype=torch.float64).to(scores.device)
        return above | (on & (chance < self.tie_probability))


def fit_reject_rule(scores: Float[Tensor, " samples"], limit: float) -> RejectRule:
    """The threshold that asks as often as the limit allows, for an input drawn as the calibration samples were.

    With j = floor(limit (n + 1)) it is the j-th greatest of the n calibration scores: a new score is among the j
    greatest of n + 1 with probability j / (n + 1), whatever the distribution, and ties are broken by chance to the same
    end. On the calibration samples themselves the expected rate is at most the limit as well.

    Args:
        scores: Of calibration samples, greater where asking matters more; not of samples that any model was fitted to.
        limit: q, the greatest expected reject rate, 0 to 1.

    Raises:
        InvalidValue: The limit is out of range.
        MalformedMessage: There is no score.
        NonFiniteValue: A score is NaN or infinite.

    Examples:
        >>> fit_reject_rule(torch.arange(9.0), limit=0.3)
        RejectRule(threshold=6.0, tie_probability=0.5)
    """
    _check_share("The limit on the reject rate", limit)
    if scores.ndim != 1 or len(scores) == 0:
        raise MalformedMessage("Calibration scores", expected="at least one", received=f"shape {tuple(scores.shape)}")
    if not bool(torch.isfinite(scores).all()):
        raise NonFiniteValue("Calibration scores", expected="finite values", received="NaN or infinity")
    samples = len(scores)
    # A limit such as .3 is a little less than it says: what rounding took from a whole number is given back.
    allowed = math.floor(limit * (samples + 1) + 1e-9)
    if allowed == 0:
        return RejectRule(math.inf, 0.0)
    if allowed > samples:
        return RejectRule(-math.inf, 1.0)
    threshold = scores.sort(descending=True).values[allowed - 1]
    greater, equal = int((scores > threshold).sum()), int((scores == threshold).sum())
    by_rank = (allowed - greater) / (equal + 1)
    on_these = max(0.0, (limit * samples - greater) / equal)
    return RejectRule(float(threshold), min(by_rank, on_these))


def _check_share(what: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise InvalidValue(what, expected="0 to 1", received=value)
