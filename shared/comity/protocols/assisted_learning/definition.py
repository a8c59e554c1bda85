"""Assisted learning, before any of its code is needed."""

from __future__ import annotations

from dataclasses import replace

from comity.contract import Contract
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.extensions import Audit, Extensions
from comity.protocol.presentation import Column, PerRoundTable, Presentation, Summary, View, score_columns
from comity.protocol.topology import Topology
from comity.protocols.assisted_learning.choices import pick_field
from comity.protocols.assisted_learning.terms import AssistedLearningTerms

NAME = "assisted_learning"
_AUDITS = "comity.protocols.assisted_learning.audits"

_PICKS = (
    Column("provider_pick", "provider's pick", "integer"),
    Column("learner_pick", "learner's pick", "integer"),
)
_SECONDS = Column("seconds", "seconds", "seconds")
_GLOBAL_LOSS = Column("global_loss", "global loss", "number")
_GLOBAL_RETURN = Column("global_return", "global return", "number")


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
        "learner": (*_PICKS, _GLOBAL_RETURN, Column("test_return", "test return", "number"), _SECONDS),
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
    picks = [Column(pick_field(name), f"{name}'s pick", "integer") for name in contract.acceptors]
    learner, provider = view.columns["learner"], view.columns["provider"]
    asked = Column("assessed", "models assessed", "integer")
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
                Column("pick_by_round", "began with", "integer"),
                Column("loss_before_by_round", "global loss before", "number"),
                Column("loss_after_by_round", "after", "number"),
                Column("loss_change_by_round", "change", "number"),
                Column("test_before_by_round", "test before", "score"),
                Column("test_after_by_round", "after", "score"),
                Column("test_change_by_round", "change", "score"),
            ),
            parties="providers",
            sums={"loss_change_by_round": "loss_change", "test_change_by_round": "test_change"},
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
