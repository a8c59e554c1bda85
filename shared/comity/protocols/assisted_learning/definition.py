"""Assisted learning, before any of its code is needed."""

from __future__ import annotations

from dataclasses import replace

from comity.contract import Contract
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.extensions import Audit, Extensions
from comity.protocol.presentation import Column, PartyTable, PerRoundTable, Presentation, Summary, View, score_columns
from comity.protocol.topology import Topology
from comity.protocols.assisted_learning.choices import pick_field
from comity.protocols.assisted_learning.terms import AssistedLearningTerms

NAME = "assisted_learning"
_AUDITS = "comity.protocols.assisted_learning.audits"

_PICK = "Which checkpoint of the trajectory it was sent has the least global loss; 0 is where the trajectory began."
_PICKS = (
    Column("provider_pick", "provider's pick", "integer", _PICK, "checkpoint"),
    Column("learner_pick", "learner's pick", "integer", _PICK, "checkpoint"),
)
_SECONDS = Column("seconds", "seconds", "seconds", "How long the round took.")
_LOSS = (
    "The loss of the round's model on the samples of all parties, f(θ; D(L,P)): the sum over them, or of each party's mean, "
    "as the objective of the terms says; by Proposition 1 it never rises."
)
_GLOBAL_LOSS = Column("global_loss", "global loss", "number", _LOSS, "loss", "log")
_RETURN = "The mean discounted return of all parties' episodes under the round's policy."
_GLOBAL_RETURN = Column("global_return", "global return", "number", _RETURN, "return")
_BEFORE = "Of the model that the provider started from."
_AFTER = "Of the model of its own that was picked next."
_SHARE = (
    "The share of what the global loss fell by in the round that this provider's training has; 0 where it did not fall."
)
_LOSS_CHANGE = "What the provider's training changed; below 0 the loss fell."
_TEST_CHANGE = "What the provider's training changed, by the learner's test."


def _samples(kind: str) -> View:
    """What people look at in sessions of a kind of task of samples."""
    tested, detail = score_columns(kind)
    return View(
        columns={
            "learner": (*_PICKS, _GLOBAL_LOSS, tested, *detail, _SECONDS),
            "provider": (_PICKS[0], _GLOBAL_LOSS, _SECONDS),
        },
        summary=Summary(
            tested.title,
            (
                Column("learner_alone", "learner alone", tested.kind),
                Column("provider_alone", "provider alone", tested.kind),
                Column("assisted", "assisted", tested.kind),
                Column("pooled", "data pooled", tested.kind),
            ),
            outcome="assisted",
        ),
    )


_POLICIES = View(
    columns={
        "learner": (
            *_PICKS,
            _GLOBAL_RETURN,
            Column("test_return", "test return", "number", "The mean return of the learner's test episodes.", "return"),
            _SECONDS,
        ),
        "provider": (_PICKS[0], _GLOBAL_RETURN, _SECONDS),
    },
    summary=Summary(
        "test return",
        (
            Column("learner_alone", "learner alone", "number"),
            Column("assisted", "assisted", "number"),
            Column("pooled", "games pooled", "number"),
        ),
        outcome="assisted",
    ),
)


def _adapted(contract: Contract, view: View) -> View:
    """A view for several providers: each one's pick, and at a provider how much it was asked."""
    if len(contract.acceptors) == 1:
        return view
    picks = [Column(pick_field(name), f"{name}'s pick", "integer", _PICK, "checkpoint") for name in contract.acceptors]
    learner, provider = view.columns["learner"], view.columns["provider"]
    asked = Column(
        "assessed", "models assessed", "integer", "How many models this provider's loss was asked for.", "models"
    )
    return replace(view, columns={"learner": (*picks, *learner[1:]), "provider": (provider[0], asked, *provider[1:])})


PROTOCOL = ProtocolDefinition(
    name=NAME,
    version=1,
    initiator="learner",
    acceptor="provider",
    topology=Topology.CHAIN,
    egress=("contract", "loss", "checkpoint"),
    trains=frozenset({"learner", "provider"}),
    tasks=("classification", "multilabel", "regression", "segmentation", "several", "reinforcement"),
    terms=AssistedLearningTerms,
    presentation=Presentation(
        view=_samples("classification"),
        views={
            **{kind: _samples(kind) for kind in ("multilabel", "regression", "segmentation", "several")},
            "reinforcement": _POLICIES,
        },
        adapt=_adapted,
        per_round=PerRoundTable(
            "what each provider's help changed",
            (
                Column("pick_by_round", "began with", "integer", _PICK, "checkpoint"),
                Column("loss_before_by_round", "global loss before", "number", _BEFORE, "loss", "log"),
                Column("loss_after_by_round", "global loss after", "number", _AFTER, "loss", "log"),
                Column("loss_change_by_round", "change of the loss", "number", _LOSS_CHANGE, "loss"),
                Column("share_by_round", "share of the gain", "share", _SHARE),
                Column("test_before_by_round", "test before", "score", _BEFORE),
                Column("test_after_by_round", "test after", "score", _AFTER),
                Column("test_change_by_round", "change of the test", "score", _TEST_CHANGE),
            ),
            parties="providers",
            share="share_by_round",
            sums={"loss_change_by_round": "loss_change", "test_change_by_round": "test_change"},
            so_far="comity.protocols.assisted_learning.report:so_far",
        ),
        per_party=PartyTable(
            "whose help changed what",
            (
                Column("loss_change", "change of the loss", "number"),
                Column("test_change", "change of the test", "score"),
            ),
            parties="providers",
        ),
        progress={"checkpoint-offered": "train, offer", "checkpoint-received": "receive"},
    ),
    implementation="comity.protocols.assisted_learning.calls:IMPLEMENTATION",
    extensions=Extensions(
        settings="comity.protocols.assisted_learning.extensions:Settings",
        settings_template="comity.protocols.assisted_learning:settings.toml",
        script_template="comity.protocols.assisted_learning:session.toml",
        audits=(
            Audit("membership", "Who can be told to have been trained on.", f"{_AUDITS}:membership"),
            Audit("reconstruction", "Which samples differences of checkpoints show.", f"{_AUDITS}:reconstruction"),
        ),
    ),
)
"""How nodes know it."""
