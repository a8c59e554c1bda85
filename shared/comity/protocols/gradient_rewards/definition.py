"""Gradient rewards, before any of its code is needed."""

from __future__ import annotations

from comity.protocol.definition import ProtocolDefinition
from comity.protocol.extensions import Audit, Extensions
from comity.protocol.presentation import Column, PartyTable, PerRoundTable, Presentation, Summary, View, score_columns
from comity.protocol.topology import Topology
from comity.protocols.gradient_rewards.terms import GradientRewardsTerms

NAME = "gradient_rewards"
_AUDITS = "comity.protocols.gradient_rewards.audits"
_CONTRIBUTION = "How well the client's update points where the aggregate does, ψ: the cosine between the two."
_IMPORTANCE = "The moving average of contributions, r, which rewards follow; over all clients it is 1."
_FRACTION = "The share of the aggregate's entries that the client is paid."
_FAIRNESS = (
    "100 times the correlation of what clients reach alone and what they reach with what they were paid; 100 is fair, "
    "since who brings the better data gets the better model"
)
_WITHOUT = "The cosine between the client's update and the aggregate of the others alone."
_SECONDS = "How long the round took."


def _view(kind: str) -> View:
    """What people look at in sessions of a kind of task."""
    tested, detail = score_columns(kind)
    of_server, _ = score_columns(kind, "server's")
    return View(
        columns={
            "client": (
                Column("contribution", "contribution", "number", _CONTRIBUTION, "cosine"),
                Column("importance", "importance", "number", _IMPORTANCE, "share of 1"),
                Column("fraction", "gets of it", "share", _FRACTION),
                tested,
                *detail,
                Column("seconds", "seconds", "seconds", _SECONDS),
            ),
            "server": (
                Column("participants", "clients", "integer", "How many clients took part in the round.", "clients"),
                of_server,
                *detail,
                Column("server_seconds", "server's work", "seconds", "How long the server computed in the round."),
                Column("seconds", "seconds", "seconds", _SECONDS),
            ),
        },
        summary=Summary(
            tested.title,
            (
                Column("own_score", "this client", tested.kind),
                Column("alone_mean", "clients alone, mean", tested.kind),
                Column("together_mean", "clients together, mean", tested.kind),
                Column("server_score", "the server's model", tested.kind),
            ),
            outcome="together_mean",
        ),
    )


PROTOCOL = ProtocolDefinition(
    name=NAME,
    version=1,
    initiator="client",
    acceptor="server",
    topology=Topology.OPEN,
    egress=("contract", "update", "reward"),
    trains=frozenset({"client"}),
    tasks=("classification", "multilabel", "regression", "segmentation", "several"),
    terms=GradientRewardsTerms,
    presentation=Presentation(
        view=_view("classification"),
        views={kind: _view(kind) for kind in ("multilabel", "regression", "segmentation", "several")},
        per_round=PerRoundTable(
            "rewards",
            (
                Column("contribution_by_round", "contribution", "number", _CONTRIBUTION, "cosine"),
                Column("importance_by_round", "importance", "number", _IMPORTANCE, "share of 1"),
                Column("fraction_by_round", "gets of it", "share", _FRACTION),
                Column("without_by_round", "contribution without it", "number", _WITHOUT, "cosine"),
                Column("findings_by_round", "of its own", "text"),
                Column("bytes_by_round", "bytes", "integer", "What each client's reward takes on the wire.", "bytes"),
            ),
            parties="clients",
            share="importance_by_round",
            so_far="comity.protocols.gradient_rewards.report:so_far",
        ),
        per_party=PartyTable(
            "who was paid what",
            (
                Column("contribution", "contribution, mean", "number"),
                Column("importance", "importance, mean", "number"),
                Column("kept_fraction", "paid of the aggregate", "share"),
                Column("score_alone", "alone", "score"),
                Column("score_together", "with what it was paid", "score"),
            ),
            parties="clients",
            totals=(Column("fairness", "fairness", "number", _FAIRNESS),),
        ),
    ),
    extensions=Extensions(
        script_template="comity.protocols.gradient_rewards:session.toml",
        audits=(
            Audit("membership", "Who can be told to have been trained on.", f"{_AUDITS}:membership"),
            Audit("reconstruction", "Which samples updates show.", f"{_AUDITS}:reconstruction"),
        ),
    ),
    implementation="comity.protocols.gradient_rewards.calls:IMPLEMENTATION",
)
"""How nodes know it."""
