"""Both protocols, before any of their code is needed."""

from __future__ import annotations

from comity.protocol.definition import ProtocolDefinition
from comity.protocol.extensions import Audit, Extensions, ServiceExtension, Verb
from comity.protocol.presentation import Column, PerRoundTable, Presentation, Summary, View
from comity.protocol.topology import Topology
from teacher_votes.terms import QuestionTerms, TeacherVotesTerms, VotePoolTerms

_AGREEMENT = Column("agreement", "votes with the majority", "share")
_VOTED = Column("voted", "inputs", "integer")
_SUMMARY = Summary("votes with the majority", (_AGREEMENT,), outcome="agreement")

PROTOCOL = ProtocolDefinition(
    name="teacher_votes",
    version=1,
    initiator="student",
    acceptor="teacher",
    topology=Topology.FAN_OUT,
    egress=("contract", "vote", "score"),
    models=("student",),
    trains=frozenset({"teacher"}),
    tasks=("classification",),
    terms=TeacherVotesTerms,
    presentation=Presentation(
        View({"student": (_VOTED, _AGREEMENT), "teacher": (_VOTED,)}, _SUMMARY),
        per_round=PerRoundTable(
            "votes", (Column("agreement_by_round", "with the majority", "share"),), parties="teachers"
        ),
    ),
    unit="request",
    extensions=Extensions(
        settings="teacher_votes.settings:Settings",
        settings_template="teacher_votes:settings.toml",
        script_template="teacher_votes:session.toml",
        services=(
            ServiceExtension("labels", "student", "teacher_votes.services:serve_labels"),
            ServiceExtension("confirm", "student", "teacher_votes.services:serve_confirm"),
            ServiceExtension("review", "teacher", "teacher_votes.services:serve_review"),
        ),
        verbs=(
            Verb("votes release", "Lets votes leave that wait for you.", "teacher_votes.verbs:release"),
            Verb("votes learn", "Lets the student learn labels that wait for you.", "teacher_votes.verbs:learn"),
        ),
        audits=(Audit("agreement", "How often a teacher stood alone.", "teacher_votes.audit:agreement"),),
        predictor="teacher_votes.prediction:answers",
    ),
    implementation="teacher_votes.implementation:TEACHING",
)

POOL = ProtocolDefinition(
    name="vote_pool",
    version=1,
    initiator="client",
    acceptor="server",
    topology=Topology.OPEN,
    egress=("contract", "vote"),
    models=(),
    trains=frozenset({"client"}),
    tasks=("classification",),
    terms=VotePoolTerms,
    presentation=Presentation(View({"client": (_VOTED, _AGREEMENT), "server": (_VOTED, _AGREEMENT)}, _SUMMARY)),
    unit="request",
    implementation="teacher_votes.implementation:POOLING",
)

QUESTIONS = ProtocolDefinition(
    name="vote_questions",
    version=1,
    initiator="inquirer",
    acceptor="oracle",
    topology=Topology.PAIR,
    egress=("contract", "vote"),
    models=(),
    trains=frozenset({"oracle"}),
    tasks=("classification",),
    terms=QuestionTerms,
    presentation=Presentation(View({"inquirer": (_VOTED,), "oracle": ()}, _SUMMARY)),
    unit="request",
    implementation="teacher_votes.implementation:QUESTIONS",
)
