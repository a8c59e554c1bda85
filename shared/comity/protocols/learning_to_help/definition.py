"""Learning to help, before any of its code is needed."""

from __future__ import annotations

from comity.protocol.definition import ProtocolDefinition
from comity.protocol.extensions import Audit, Extensions, ServiceExtension
from comity.protocol.presentation import Column, Presentation, Relation, Summary, View
from comity.protocol.topology import Topology
from comity.protocols.learning_to_help.terms import LearningToHelpTerms

NAME = "learning_to_help"
_AUDITS = "comity.protocols.learning_to_help.audits"

PROTOCOL = ProtocolDefinition(
    name=NAME,
    version=1,
    initiator="client",
    acceptor="server",
    topology=Topology.PAIR,
    egress=("contract", "local_model", "checkpoint", "features", "answer"),
    models=("local", "server", "rejector"),
    trains=frozenset({"client", "server"}),
    tasks=("classification",),
    terms=LearningToHelpTerms,
    presentation=Presentation(
        View(
            {
                "client": (
                    Column(
                        "local_accuracy",
                        "accuracy alone",
                        "share",
                        "Of the client's own model, on the round's samples.",
                    ),
                    Column("accuracy", "with the server", "share", "Where what was asked is answered by the server."),
                    Column(
                        "reject_rate", "asked", "share", "The share of the round's samples that the server was asked."
                    ),
                    Column("requests", "requests", "integer", "How many are charged so far.", "requests"),
                    Column("seconds", "seconds", "seconds", "How long the round took."),
                ),
                "server": (),
            },
            Summary(
                "accuracy",
                (
                    Column("local_accuracy", "the client's model alone", "share"),
                    Column("remote_accuracy", "the server's classifier alone", "share"),
                    Column("accuracy", "together", "share"),
                    Column("asked", "asked", "share"),
                ),
                outcome="accuracy",
            ),
        ),
        relations=(
            Relation(
                "accuracy by reject rate",
                Column("reject_rates", "reject rate", "share"),
                (Column("accuracy_by_reject_rate", "together", "share"),),
                "If so many of the inputs were asked about, those first of which the rejector is surest: as far as the "
                "server has answered.",
            ),
        ),
    ),
    unit="request",
    shows={
        "features": "inputs that are asked about, nearly as they are: features are not anonymous; comity audit features "
        "SESSION measures it",
        "local_model": "the client's model, which can be questioned for whom it was trained on",
    },
    extensions=Extensions(
        settings="comity.protocols.learning_to_help.settings:Settings",
        settings_template="comity.protocols.learning_to_help:settings.toml",
        script_template="comity.protocols.learning_to_help:session.toml",
        audits=(
            Audit("features", "How well inputs are seen in features.", f"{_AUDITS}:features"),
            Audit("membership", "How well one can tell who was trained on.", f"{_AUDITS}:membership"),
            Audit(
                "reconstruction",
                "Which samples the rejector, or the client's model, shows.",
                f"{_AUDITS}:reconstruction",
            ),
        ),
        predictor="comity.protocols.learning_to_help.predicting:answers",
        services=(ServiceExtension("predictions", "client", "comity.inference.door:predictions"),),
    ),
    implementation="comity.protocols.learning_to_help.calls:IMPLEMENTATION",
)
"""How nodes know it."""
