"""Nash bargaining, before any of its code is needed."""

from __future__ import annotations

from comity.protocol.definition import ProtocolDefinition
from comity.protocol.extensions import Audit, Extensions
from comity.protocol.presentation import Column, PartyTable, PerRoundTable, Presentation, Summary, View, score_columns
from comity.protocol.topology import Topology
from comity.protocols.nash_bargaining.choices import score_field
from comity.protocols.nash_bargaining.terms import NashBargainingTerms
from comity.tasks.scores import score_of

NAME = "nash_bargaining"
_AUDITS = "comity.protocols.nash_bargaining.audits"
_SECONDS = "How long the round took."
_LENGTH = "The Euclidean norm of the gradient that this provider sent."
_POWER = "The provider's preference p in the bargaining; of all tasks together it is 1."
_WEIGHT = "The weight α with which the provider's gradient enters the update, which the bargaining comes to."
_HELP = "By how much a step along the provider's part lowers the learner's own loss, to first order."


def _view(kind: str) -> View:
    """What people look at in sessions of a kind of task: the learner's."""
    tested, detail = score_columns(kind)
    score = score_of(kind).name
    return View(
        columns={
            "learner": (
                Column("present", "providers", "integer", "How many providers took part in the round.", "providers"),
                tested,
                *detail,
                Column("seconds", "seconds", "seconds", _SECONDS),
            ),
            "provider": (
                Column("length", "length of the gradient", "number", _LENGTH, "norm", "log"),
                Column("rows_held", "rows held back", "share", "What the leak guard held back of the gradient."),
                Column("seconds", "seconds", "seconds", _SECONDS),
            ),
        },
        summary=Summary(
            tested.title,
            (
                Column(score_field(score, "alone"), "the learner alone", tested.kind),
                Column(score_field(score, "equal"), "with equal powers", tested.kind),
                Column(score_field(score, "bargained"), "bargained", tested.kind),
            ),
            outcome=score_field(score, "bargained"),
        ),
    )


PROTOCOL = ProtocolDefinition(
    name=NAME,
    version=1,
    initiator="learner",
    acceptor="provider",
    topology=Topology.FAN_OUT,
    egress=("contract", "checkpoint", "update"),
    trains=frozenset({"learner", "provider"}),
    # Of the learner; a provider may have any.
    tasks=("classification", "multilabel", "regression", "segmentation", "several"),
    # The trunk takes the same inputs at all parties; what is told of them may differ.
    agrees={"provider": frozenset({"inputs"})},
    terms=NashBargainingTerms,
    presentation=Presentation(
        view=_view("classification"),
        views={kind: _view(kind) for kind in ("multilabel", "regression", "segmentation", "several")},
        per_round=PerRoundTable(
            "bargaining powers",
            (
                Column("powers_by_round", "power", "number", _POWER, "share of 1"),
                Column("weights_by_round", "weight", "number", _WEIGHT, "weight"),
                Column("help_by_round", "help", "number", _HELP, "loss"),
                Column("providers_by_round", "was", "text"),
            ),
            parties="providers",
            sums={"help_by_round": "worth"},
            so_far="comity.protocols.nash_bargaining.report:so_far",
        ),
        per_party=PartyTable(
            "who was worth what",
            (
                Column("power", "power at the end", "number"),
                Column("worth", "lowered the loss by", "number"),
                Column("rounds_helped", "rounds", "integer"),
            ),
            parties="providers",
        ),
    ),
    extensions=Extensions(
        settings="comity.protocols.nash_bargaining.extensions:Settings",
        settings_template="comity.protocols.nash_bargaining:settings.toml",
        script_template="comity.protocols.nash_bargaining:session.toml",
        audits=(
            Audit("membership", "How well one can tell who was trained on, by gradients.", f"{_AUDITS}:membership"),
            Audit("reconstruction", "Which samples gradients show.", f"{_AUDITS}:reconstruction"),
        ),
    ),
    implementation="comity.protocols.nash_bargaining.calls:IMPLEMENTATION",
)
"""How nodes know it."""
