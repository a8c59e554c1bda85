"""A party's privacy budget: what its sessions may spend, and what they have spent, by its ledger."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from comity.contract import Contract, Json, Membership
from comity.errors import PolicyRefusal
from comity.ledger.ledger import Fact, Ledger
from comity.privacy import NOT_COVERED, Guarantee, Mechanism, agreed
from comity.protocol.registry import protocol
from comity.session.policy import Policy
from comity.store.store import Store


def planned(contract: Contract, own: Membership, peers: Sequence[Membership]) -> tuple[Mechanism, Guarantee] | None:
    """The noise of a party's training in a session, and what it guarantees; None for a training without noise.

    Raises:
        InvalidValue: No noise is enough, or the extra is not installed.
    """
    private_training = protocol(contract.protocol).load().private_training
    training = None if private_training is None else private_training(contract, own, peers)
    if training is None:
        return None
    return agreed(training.terms, sampling_rate=training.sampling_rate, steps=training.steps)


def spent(ledger: Ledger, *, but: str = "") -> float:
    """ε that a party's sessions have spent in all: the sum, which bounds any composition (δ adds up likewise).

    Args:
        ledger: The party's ledger.
        but: A session that is left out.
    """
    return sum(_epsilon(fact) for fact in ledger.facts("privacy") if fact.session != but)


def require_budget(
    store: Store, policy: Policy, contract: Contract, own: Membership, guarantee: Guarantee | None
) -> None:
    """Checks that a session stays within the party's total budget.

    Raises:
        PolicyRefusal: It would pass it, or trains without noise.
    """
    if policy.max_epsilon is None or own.samples == 0:
        return
    before = spent(store, but=contract.session)
    epsilon = math.inf if guarantee is None else guarantee.epsilon
    if before + epsilon > policy.max_epsilon:
        raise PolicyRefusal(
            f"{own.party}'s policy.max_epsilon refuses the session",
            expected=f"at most {policy.max_epsilon:g} in all, of which {before:.3g} is spent",
            received="training without differential privacy" if guarantee is None else f"{epsilon:.3g} more",
            action="agree on more noise in session.terms.privacy, or on fewer rounds",
        )


def require_affordable(
    store: Store, policy: Policy, contract: Contract, own: Membership, peers: Sequence[Membership]
) -> None:
    """Checks that a session would stay within the party's total budget, and spends nothing.

    Raises:
        PolicyRefusal: It would pass it.
        InvalidValue: No noise is enough, or the extra is not installed.
    """
    plan = planned(contract, own, peers)
    require_budget(store, policy, contract, own, None if plan is None else plan[1])


def spend(
    store: Store,
    policy: Policy,
    contract: Contract,
    own: Membership,
    peer: Membership,
    plan: tuple[Mechanism, Guarantee] | None,
) -> dict[str, Json] | None:
    """Enters a session's ε into the ledger, once, before anything is trained: what is begun counts as spent.

    Returns:
        What was entered; None for a training without noise.

    Raises:
        PolicyRefusal: The session would pass the party's budget.
    """
    with store.transaction():
        known = [entry.fact for entry in store.entries(contract.session) if entry.fact.matter == "privacy"]
        if not known:
            require_budget(store, policy, contract, own, None if plan is None else plan[1])
        if plan is None:
            return None
        mechanism, guarantee = plan
        body: dict[str, Json] = {**asdict(guarantee), "noise_multiplier": mechanism.noise_multiplier}
        store.record(Fact("privacy", contract.session, peer=peer.party, body=body))
        return {**body, "not_covered": NOT_COVERED}


def _epsilon(fact: Fact) -> float:
    value: Any = fact.body.get("epsilon")
    return float(value)
