"""A student that proposes what cannot be taken: each gets its line, and the node goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from teacher_votes.v1 import teacher_votes_pb2 as pb

from comity import errors
from comity.errors import ComityError
from comity.session.codec import contract_from_proto, membership_from_proto
from comity.transport import sessions
from comity.transport.negotiation import encode_proposal
from comity.transport.peer_connection import PeerConnection
from comity.wire.v1 import sessions_pb2
from tests.e2e.hostile.parties import MOST_ROUNDS, QUICK, Target, assert_clear, refusal
from tests.e2e.hostile.votes import PLAY


def signed(message: sessions_pb2.Proposal) -> sessions_pb2.Proposal:
    """A proposal that was changed, signed again by Mallory where it can be read at all."""
    try:
        contract = contract_from_proto(message.contract, PLAY.definition.terms_message(), PLAY.definition.terms)
        membership = membership_from_proto(message.membership)
    except ComityError:
        return message
    message.signature = PLAY.mallorys("proposed")[1].signer.sign_membership(contract.hash, membership)
    return message


def edited(edit: Callable[[sessions_pb2.Proposal], object]) -> sessions_pb2.Proposal:
    """Mallory's proposal, changed in its encoded form, where no class of ours can object."""
    message = PLAY.proposal()
    edit(message)
    return message


def with_terms(**terms: Any) -> sessions_pb2.Proposal:
    message = PLAY.proposal()
    packed = pb.TeacherVotesTerms()
    assert message.contract.terms.Unpack(packed)
    for name, value in terms.items():
        setattr(packed, name, value)
    message.contract.terms.Pack(packed)
    return message


def with_option(name: str, value: Any) -> sessions_pb2.Proposal:
    return edited(lambda message: message.contract.models["student"].options.update({name: value}))


def setting(path: str, value: Any) -> sessions_pb2.Proposal:
    """The proposal with one field set, by its path."""
    message = PLAY.proposal()
    *parents, last = path.split(".")
    target: Any = message
    for name in parents:
        target = target[int(name)] if name.isdecimal() else target[name] if name == "student" else getattr(target, name)
    if isinstance(value, list):
        del getattr(target, last)[:]
        getattr(target, last).extend(value)
    else:
        setattr(target, last, value)
    return message


PROPOSALS: Mapping[str, tuple[Callable[[], sessions_pb2.Proposal], type[ComityError], tuple[str, ...]]] = {
    "a model that nobody has": (
        lambda: setting("contract.models.student.name", "mlpp"),
        errors.UnknownModel,
        ("lenet5", "'mlpp'", "did you mean 'mlp'"),
    ),
    "an acceptor twice": (
        lambda: setting("contract.acceptors", ["hospital", "hospital"]),
        errors.MalformedMessage,
        ("each teacher once", "hospital, hospital"),
    ),
    "another signature": (
        lambda: setting("contract.models.student.signature", "f" * 64),
        errors.ModelSignatureMismatch,
        ("f" * 64, "same version"),
    ),
    "options of another model": (
        lambda: with_option("hidden", 17),
        errors.ModelSignatureMismatch,
        ("hospital builds other tensors for mlp",),
    ),
    "an unknown option": (lambda: with_option("hiden", 17), errors.InvalidValue, ("hidden", "hiden")),
    "an option of another type": (lambda: with_option("hidden", "wide"), errors.InvalidValue, ("int", "'wide'")),
    "an option out of range": (lambda: with_option("hidden", 1e15), errors.InvalidValue, ("8192", "1000000000000000")),
    "an option that is no number": (
        lambda: with_option("hidden", math.nan),
        errors.MalformedMessage,
        ("options", "NaN"),
    ),
    "an option that is null": (lambda: with_option("hidden", None), errors.MalformedMessage, ("hidden",)),
    "options in options": (lambda: with_option("hidden", {"a": 1}), errors.MalformedMessage, ("hidden",)),
    "inputs of another shape": (
        lambda: setting("contract.task.inputs.shape", [1, 28, 28]),
        errors.TaskMismatch,
        ("1×28×28", "1×8×8", "use data"),
    ),
    "other classes": (
        lambda: setting("contract.task.heads.0.size", 11),
        errors.TaskMismatch,
        ("11 classes", "10 classes"),
    ),
    "one class": (
        lambda: setting("contract.task.heads.0.size", 1),
        errors.InvalidValue,
        ("2 classes or more", "received 1"),
    ),
    "no head": (
        lambda: edited(lambda m: m.contract.task.ClearField("heads")),
        errors.InvalidValue,
        ("one head", "no head"),
    ),
    "thousands of heads": (
        lambda: edited(
            lambda m: m.contract.task.heads.extend(sessions_pb2.Head(name=f"h{i}", size=2) for i in range(9999))
        ),
        errors.MalformedMessage,
        ("heads", "64"),
    ),
    "thousands of models": (
        lambda: edited(lambda m: [m.contract.models[f"m{i}"].SetInParent() for i in range(9999)]),
        errors.MalformedMessage,
        ("models", "16"),
    ),
    "a second model": (
        lambda: edited(lambda m: m.contract.models["other"].CopyFrom(m.contract.models["student"])),
        errors.MalformedMessage,
        ("expected student", "other, student"),
    ),
    "another model's name": (
        lambda: edited(
            lambda m: (
                m.contract.models["net"].CopyFrom(m.contract.models["student"]),
                m.contract.models.pop("student"),
            )
        ),
        errors.MalformedMessage,
        ("expected student", "received net"),
    ),
    "code in the place of a model": (
        lambda: setting("contract.models.student.name", "python:os:system"),
        errors.UnknownModel,
        ("names models, not where their code is", "'python:os:system'", "[models] of node.toml"),
    ),
    "a library's model in the place of a name": (
        lambda: setting("contract.models.student.name", "timm:resnet18"),
        errors.UnknownModel,
        ("names models, not where their code is", "'timm:resnet18'"),
    ),
    "a model's name without end": (
        lambda: setting("contract.models.student.name", "m" * 100_000),
        errors.MalformedMessage,
        ("models.student.name", "200"),
    ),
    "a kind of model without end": (
        lambda: edited(lambda m: m.contract.models["k" * 100_000].SetInParent()),
        errors.MalformedMessage,
        ("models",),
    ),
    "a kind of task without end": (
        lambda: setting("contract.task.kind", "k" * 100_000),
        errors.MalformedMessage,
        ("task.kind",),
    ),
    "thousands of names": (
        lambda: edited(lambda m: m.contract.task.inputs.features.extend(["name"] * 70_000)),
        errors.MalformedMessage,
        ("task.inputs.features", "65536"),
    ),
    "more than any contract needs": (
        lambda: edited(lambda m: m.contract.task.inputs.features.extend(["n" * 200] * 6_000)),
        errors.MalformedMessage,
        ("too large", "1048576"),
    ),
    "names of other numbers than there are classes": (
        lambda: edited(lambda m: m.contract.task.heads[0].labels.append("cat")),
        errors.MalformedMessage,
        ("labels", "10"),
    ),
    "no classes": (lambda: setting("contract.task.heads.0.size", 0), errors.MalformedMessage, ("size", "1", "0")),
    "an absurd shape": (
        lambda: setting("contract.task.inputs.shape", [2**32 - 1] * 4),
        errors.TaskMismatch,
        ("4294967295",),
    ),
    "another kind of task": (
        lambda: setting("contract.task.kind", "detection"),
        errors.TaskMismatch,
        ("teacher_votes is not for such a task", "classification", "detection"),
    ),
    "NaN to normalise with": (
        lambda: edited(
            lambda m: (
                m.contract.task.inputs.preprocessing.mean.append(math.nan),
                m.contract.task.inputs.preprocessing.std.append(1.0),
            ),
        ),
        errors.MalformedMessage,
        ("mean",),
    ),
    "a protocol that nobody has": (
        lambda: setting("contract.protocol", "teacher_vots"),
        errors.UnsupportedProtocol,
        ("teacher_votes", "teacher_vots", "did you mean"),
    ),
    "a protocol's name without end": (
        lambda: setting("contract.protocol", "p" * 7_000_000),
        errors.UnsupportedProtocol,
        ("teacher_votes", "pppp"),
    ),
    "another version": (
        lambda: setting("contract.version", 2),
        errors.UnsupportedProtocol,
        ("version 1", "version 2"),
    ),
    "a contract in another's name": (
        lambda: setting("contract.initiator", "clinic"),
        errors.UnknownParty,
        ("mallory", "clinic"),
    ),
    "a part in another's name": (
        lambda: setting("membership.party", "clinic"),
        errors.UnknownParty,
        ("mallory", "clinic"),
    ),
    "a part in another role": (
        lambda: setting("membership.role", "teacher"),
        errors.UnknownParty,
        ("as student", "teacher mallory"),
    ),
    "help of another": (
        lambda: setting("contract.acceptors", ["somebody"]),
        errors.UnknownParty,
        ("hospital", "somebody"),
    ),
    "too many rounds": (
        lambda: setting("contract.rounds", MOST_ROUNDS + 1),
        errors.PolicyRefusal,
        ("max_rounds", "at most 50", "51", "buy fewer"),
    ),
    "no rounds": (lambda: setting("contract.rounds", 0), errors.MalformedMessage, ("rounds", "0")),
    "absurd rounds": (lambda: setting("contract.rounds", 2**32 - 1), errors.MalformedMessage, ("rounds", "4294967295")),
    "samples as egress": (
        lambda: setting("contract.egress", ["contract", "vote", "sample"]),
        errors.PolicyRefusal,
        ("sample",),
    ),
    "more egress than needed": (
        lambda: setting("contract.egress", ["contract", "vote", "features"]),
        errors.PolicyRefusal,
        ("features",),
    ),
    "unknown egress": (
        lambda: setting("contract.egress", ["contract", "everything"]),
        errors.PolicyRefusal,
        ("its protocol needs", "everything"),
    ),
    "egress that is no kind": (
        lambda: setting("contract.egress", ["contract", "every thing"]),
        errors.MalformedMessage,
        ("egress", "every thing"),
    ),
    "a session named like a path": (
        lambda: setting("contract.session", "../../../etc/passwd"),
        errors.MalformedMessage,
        ("session", "../../../etc/passwd"),
    ),
    "a session without a name": (lambda: setting("contract.session", ""), errors.MalformedMessage, ("session",)),
    "the session of another": (
        lambda: setting("contract.session", "parallel"),
        errors.ContractMismatch,
        ("parallel", "another id"),
    ),
    "an absurd seed": (lambda: setting("contract.seed", 2**64 - 1), errors.MalformedMessage, ("seed",)),
    "no queries": (lambda: with_terms(queries=0), errors.MalformedMessage, ("queries", "0")),
    "no steps": (lambda: with_terms(steps=0), errors.MalformedMessage, ("steps", "0")),
    "absurd steps": (lambda: with_terms(steps=2**32 - 1), errors.MalformedMessage, ("steps", "4294967295")),
    "the terms of another protocol": (
        lambda: edited(lambda m: m.contract.terms.Pack(pb.VotePoolTerms(queries=1))),
        errors.MalformedMessage,
        ("teacher_votes.v1.TeacherVotesTerms", "teacher_votes.v1.VotePoolTerms"),
    ),
    "terms that are garbage": (
        lambda: edited(lambda m: setattr(m.contract.terms, "value", b"\xff" * 40)),
        errors.MalformedMessage,
        ("terms",),
    ),
    "no terms": (lambda: edited(lambda m: m.contract.ClearField("terms")), errors.MalformedMessage, ("terms",)),
    "no contract": (lambda: edited(lambda m: m.ClearField("contract")), errors.MalformedMessage, ("contract",)),
    "no membership": (lambda: edited(lambda m: m.ClearField("membership")), errors.MalformedMessage, ("membership",)),
    "nothing": (sessions_pb2.Proposal, errors.MalformedMessage, ("contract",)),
}


@pytest.mark.parametrize("case", PROPOSALS)
@pytest.mark.usefixtures("during")
def test_a_proposal_that_cannot_be_taken(case: str, line: PeerConnection) -> None:
    make, kind, parts = PROPOSALS[case]
    assert_clear(refusal(lambda: sessions.propose(line, signed(make()))), kind, *parts)


@pytest.mark.usefixtures("during")
def test_a_party_outside_the_policy(target: Target) -> None:
    contract, party = PLAY.mallorys("uninvited", initiator="stranger")
    own = party.membership("student").model_copy(update={"party": "stranger"})
    with PeerConnection(target.stranger, "hospital", target.address, QUICK) as connection:
        error = refusal(
            lambda: sessions.propose(connection, encode_proposal(contract, own, party.signer, PLAY.definition))
        )
    assert_clear(error, errors.PolicyRefusal, "policy.parties", "stranger", "add the party")
    # With whom else it works is nobody's business.
    assert "clinic" not in str(error)
    assert "mallory" not in str(error)


def test_an_open_session_is_told_to_nobody_outside_the_policy(target: Target) -> None:
    with PeerConnection(target.stranger, "hospital", target.address, QUICK) as connection:
        error = refusal(lambda: sessions.fetch(connection, "s-1", lambda name: PLAY.definition))
    assert_clear(error, errors.PolicyRefusal, "policy.parties")
