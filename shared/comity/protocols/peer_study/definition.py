"""Peer study, before any of its code is needed."""

from __future__ import annotations

from comity.protocol.definition import ProtocolDefinition
from comity.protocol.extensions import Extensions
from comity.protocol.presentation import Column, PerRoundTable, Presentation, Summary, View, score_columns
from comity.protocol.topology import Topology
from comity.protocols.peer_study.terms import PeerStudyTerms

NAME = "peer_study"
_LABELS = "How many of the client's samples are labelled when the round begins."
_PARTICIPANTS = "How many clients took part in the round."
_SECONDS = "How long the round took, without waiting for labels."


def _view() -> View:
    tested, detail = score_columns("classification")
    of_server, _ = score_columns("classification", "server's")
    return View(
        columns={
            "client": (
                Column("labels", "labels", "integer", _LABELS, "labels"),
                Column("participants", "clients", "integer", _PARTICIPANTS, "clients"),
                tested,
                *detail,
                Column("seconds", "seconds", "seconds", _SECONDS),
            ),
            "server": (
                Column("participants", "clients", "integer", _PARTICIPANTS, "clients"),
                Column("labels_of_all", "labels", "integer", "How many samples of all clients are labelled.", "labels"),
                of_server,
                *detail,
                Column("seconds", "seconds", "seconds", _SECONDS),
            ),
        },
        summary=Summary(
            tested.title,
            (
                Column("own_score", "this client's test", tested.kind),
                Column("server_score", "the server's test", tested.kind),
                Column("random_mean", "mean with random selection", tested.kind),
                Column("chosen_mean", "mean with peer study", tested.kind),
            ),
            outcome="server_score",
        ),
    )


PROTOCOL = ProtocolDefinition(
    name=NAME,
    version=1,
    initiator="client",
    acceptor="server",
    topology=Topology.OPEN,
    egress=("contract", "update", "checkpoint"),
    # The teacher crosses, students never do.
    models=("teacher", "student"),
    trains=frozenset({"client"}),
    tasks=("classification",),
    terms=PeerStudyTerms,
    presentation=Presentation(
        view=_view(),
        per_round=PerRoundTable(
            "averages",
            (
                Column("labels_by_round", "labels", "integer", _LABELS, "labels"),
                Column("score_by_round", "test", "score", "What the test samples say of the average."),
            ),
            parties="",
        ),
    ),
    extensions=Extensions(
        settings="comity.protocols.peer_study.settings:Settings",
        settings_template="comity.protocols.peer_study:settings.toml",
        script_template="comity.protocols.peer_study:session.toml",
    ),
    implementation="comity.protocols.peer_study.calls:IMPLEMENTATION",
)
"""How nodes know it."""
