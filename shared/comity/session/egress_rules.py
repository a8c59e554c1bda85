"""A rule for every field that could carry data out of a node.

What bytes, floats and open-ended messages on the wire may hold, field by field. A test goes through all protos and fails
on a field without a rule, so that a new one is thought about before it exists.
"""

from __future__ import annotations

from typing import Literal

from comity.contract import EgressKind

Rule = EgressKind | Literal["blob", "identifier", "signature", "messages", "operator"]
"""An egress kind: the gate lets the message out as this kind. `blob`: the gate lets the blob out as the kind that it was
published or uploaded as. `identifier`, `signature`: a digest or a signature of what the gate lets out elsewhere. `messages`: messages whose own fields have
rules, each let out by the gate before it is put there."""

FIELD_RULES: dict[str, Rule] = {
    "comity.wire.v1.BlobRef.digest": "identifier",
    "comity.wire.v1.BlobStat.encoding": "identifier",
    "comity.wire.v1.BlobChunk.data": "blob",
    "comity.wire.v1.Contract.terms": "contract",
    "comity.wire.v1.Model.options": "contract",
    "comity.wire.v1.Task.options": "contract",
    "comity.wire.v1.Inputs.scale": "contract",
    "comity.wire.v1.Preprocessing.mean": "contract",
    "comity.wire.v1.Preprocessing.std": "contract",
    "comity.wire.v1.Head.mean": "contract",
    "comity.wire.v1.Head.std": "contract",
    "comity.wire.v1.Proposal.signature": "signature",
    "comity.wire.v1.Agreement.signature": "signature",
    "comity.wire.v1.SignedStatement.signature": "signature",
    "comity.wire.v1.AssistedLearningTerms.learning_rate": "contract",
    "comity.wire.v1.Loss.sum": "loss",
    "comity.wire.v1.JointLoss.numbers": "loss",
    "comity.wire.v1.GradientRewardsTerms.learning_rate": "contract",
    "comity.wire.v1.GradientRewardsTerms.learning_rate_decay": "contract",
    "comity.wire.v1.GradientRewardsTerms.round_deadline_s": "contract",
    "comity.wire.v1.GradientRewardsTerms.length": "contract",
    "comity.wire.v1.GradientRewardsTerms.alpha": "contract",
    "comity.wire.v1.GradientRewardsTerms.beta": "contract",
    "comity.wire.v1.GradientRewardsTerms.floor": "contract",
    "comity.wire.v1.Reward.contribution": "reward",
    "comity.wire.v1.Reward.importance": "reward",
    "comity.wire.v1.Reward.fraction": "reward",
    "comity.wire.v1.PolicyGradientTerms.discount": "contract",
    "comity.wire.v1.PolicyGradientTerms.best_return": "contract",
    "comity.wire.v1.PrivacyTerms.epsilon": "contract",
    "comity.wire.v1.PrivacyTerms.delta": "contract",
    "comity.wire.v1.PrivacyTerms.clipping_norm": "contract",
    # To this node's own operator, and nobody else.
    "comity.wire.v1.NodeStatus.uptime_s": "operator",
    "comity.wire.v1.PrivacyBudget.spent": "operator",
    "comity.wire.v1.PrivacyBudget.limit": "operator",
    "comity.wire.v1.Bundle.contents": "messages",
    "comity.wire.v1.Bundle.signature": "signature",
    "comity.wire.v1.BundleContents.messages": "messages",
}
