"""Peer study, before any of its code is needed."""

from __future__ import annotations

from comity.protocol.definition import ProtocolDefinition
from comity.protocol.extensions import Audit, Extensions, Verb
from comity.protocol.presentation import Column, PerRoundTable, Presentation, Relation, Summary, View, score_columns
from comity.protocol.topology import Topology
from comity.protocols.peer_study.terms import PeerStudyTerms

NAME = "peer_study"
_AUDITS = "comity.protocols.peer_study.audits"
_VERBS = "comity.protocols.peer_study.verbs.annotate"
_LABELS = "How many of the client's samples are labelled when the round begins."
_PARTICIPANTS = "How many clients took part in the round."
_SECONDS = "How long the round took, without waiting for labels."


def _view(kind: str) -> View:
    tested, detail = score_columns(kind)
    of_server, _ = score_columns(kind, "server's")
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
    # Samples in sessions alone whose terms say so.
    egress=("contract", "update", "checkpoint", "sample"),
    # The teacher crosses, students never do.
    models=("teacher", "student"),
    trains=frozenset({"client"}),
    tasks=("classification", "segmentation"),
    terms=PeerStudyTerms,
    presentation=Presentation(
        view=_view("classification"),
        views={"segmentation": _view("segmentation")},
        per_round=PerRoundTable(
            "averages",
            (
                Column("labels_by_round", "labels", "integer", _LABELS, "labels"),
                Column("score_by_round", "test", "score", "What the test samples say of the average."),
            ),
            parties="",
        ),
        relations=(
            Relation(
                "test by labels",
                Column("labels", "labels", "integer", unit="labels"),
                (
                    Column("accuracy", "peer study", "score"),
                    Column("accuracy_random", "random selection", "score"),
                ),
                "What the test samples say after each labelling step, by how many samples were labelled by then.",
            ),
        ),
    ),
    extensions=Extensions(
        verbs=(
            Verb("annotate export", "Writes the samples that a session waits for labels of.", f"{_VERBS}:export"),
            Verb("annotate import", "Hands in labels.", f"{_VERBS}:take"),
            Verb("annotate serve", "Serves a page on which you label.", f"{_VERBS}:serve"),
            Verb(
                "annotate consent", "Releases labelled samples to the server, or withholds them.", f"{_VERBS}:consent"
            ),
            Verb("annotate show", "Shows who has labelled what, and how far they agree.", f"{_VERBS}:show"),
        ),
        settings="comity.protocols.peer_study.settings:Settings",
        settings_template="comity.protocols.peer_study:settings.toml",
        script_template="comity.protocols.peer_study:session.toml",
        audits=(
            Audit("membership", "How well one can tell who was trained on.", f"{_AUDITS}:membership"),
            Audit("reconstruction", "Which samples models show.", f"{_AUDITS}:reconstruction"),
        ),
    ),
    implementation="comity.protocols.peer_study.calls:IMPLEMENTATION",
)
"""How nodes know it."""
