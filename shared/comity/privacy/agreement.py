"""What a contract's noise comes to for one party."""

from __future__ import annotations

from functools import lru_cache

from comity.privacy.accounting import Guarantee, account, for_total
from comity.privacy.mechanism import Mechanism
from comity.privacy.terms import PrivacyTerms


@lru_cache(maxsize=64)
def agreed(terms: PrivacyTerms, *, sampling_rate: float, steps: int) -> tuple[Mechanism, Guarantee]:
    """The noise of a party's steps in a session, and what all of them guarantee.

    Args:
        terms: What was agreed.
        sampling_rate: q, the probability with which a step sees a sample, in (0, 1].
        steps: Steps of the party in the whole session, at least 1.

    Raises:
        InvalidValue: No noise is enough, or the extra is not installed.
    """
    if terms.scope == "per_step":
        mechanism = Mechanism.per_step(terms.epsilon, terms.delta, terms.clipping_norm)
    else:
        mechanism = for_total(
            terms.epsilon,
            terms.delta,
            sampling_rate=sampling_rate,
            steps=max(steps, 1),
            clipping_norm=terms.clipping_norm,
        )
    return mechanism, account(mechanism, sampling_rate=sampling_rate, steps=steps)
