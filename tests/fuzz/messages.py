"""Decoders of what parties say to each other: what all protocols share, and every registered protocol's own."""

from __future__ import annotations

from collections.abc import Iterator

from comity.contract import Contract, Membership, ModelSpec, TaskSpec
from comity.ledger.ledger import Head, in_round
from comity.ledger.receipts import Signer, require_valid
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.registry import protocols
from comity.session.codec import (
    contract_to_proto,
    membership_from_proto,
    membership_to_proto,
    release_from_proto,
    statement_from_proto,
    statement_to_proto,
)
from comity.tasks.classification import classification
from comity.transport.description import decode_description, describing, encode_description
from comity.transport.methods import Method
from comity.transport.negotiation import (
    decode_agreement,
    decode_contract,
    decode_draft,
    decode_proposal,
    encode_agreement,
    encode_draft,
    encode_proposal,
)
from comity.wire.v1 import sessions_pb2 as pb
from tests.fuzz.decoder import Decoder, filled, of_message

SIGNERS = {party: Signer.from_seed(party.encode().ljust(32, b"-"), party) for party in ("clinic", "hospital")}


def member(party: str, role: str) -> Membership:
    """A party's part in a session."""
    return Membership(party=party, role=role, samples=10, receipt_key=SIGNERS[party].public_key)


def contract_of(definition: ProtocolDefinition) -> Contract:
    """A contract of a protocol, with its terms' defaults, and ten where they have none."""
    required = {name: field for name, field in definition.terms.model_fields.items() if field.is_required()}
    terms = definition.terms(**{name: "10" if field.annotation is str else 10 for name, field in required.items()})
    is_open = terms.participants is not None
    task = classification((1, 8, 8), 10)
    return Contract(
        protocol=definition.name,
        version=definition.version,
        session="s-1",
        seed=7,
        rounds=3,
        models={
            each: ModelSpec(name="mlp", options={"hidden": 8}, signature="0" * 64)
            for each in definition.models_of(terms)
        },
        task=task if not definition.tasks or task.kind in definition.tasks else TaskSpec(kind=definition.tasks[0]),
        initiator="" if is_open else "clinic",
        acceptors=("hospital",),
        egress=definition.egress_of(terms),
        terms=terms,
    )


def decoders() -> Iterator[Decoder]:
    """Memberships, releases, statements, descriptions; and for each protocol contracts, terms and calls."""
    mine = membership_to_proto(member("clinic", "learner")).SerializeToString()
    yield Decoder("membership", of_message(pb.Membership, membership_from_proto), (mine,))
    release = pb.Release(samples=3, kept=pb.RETENTION_ROUND).SerializeToString()
    yield Decoder("release", of_message(pb.Release, release_from_proto), (release,))
    signed = SIGNERS["clinic"].state("request", "s-1", "c" * 64, in_round(1), "f" * 64, Head(1, "a" * 64))
    statement = statement_to_proto(signed).SerializeToString()
    yield Decoder("statement", of_message(pb.SignedStatement, _statement), (statement,))
    said = encode_description(describing("clinic", "learner", {"a": 1})()).SerializeToString()
    yield Decoder(
        "description", of_message(pb.PeerDescription, lambda each: decode_description(each, "clinic")), (said,)
    )
    for definition in protocols():
        yield from _of(definition)


def _of(definition: ProtocolDefinition) -> Iterator[Decoder]:
    contract, name = contract_of(definition), definition.name
    mine, theirs = member("clinic", definition.initiator), member("hospital", definition.acceptor)
    message = contract_to_proto(contract, definition.terms_message())

    def agreed(received: pb.Contract) -> object:
        found = decode_contract(received, definition)
        return found.hash, contract_to_proto(found, definition.terms_message())

    def of_terms(data: bytes) -> object:
        changed = pb.Contract()
        changed.CopyFrom(message)
        changed.terms.value = data
        return agreed(changed)

    def agreement(received: pb.Agreement) -> object:
        return decode_agreement(received, contract, "hospital", definition)

    proposal = encode_proposal(contract, mine, SIGNERS["clinic"], definition).SerializeToString()
    draft = encode_draft(contract, mine, definition).SerializeToString()
    answer = encode_agreement(contract, theirs, SIGNERS["hospital"]).SerializeToString()
    yield Decoder(f"{name} contract", of_message(pb.Contract, agreed), (message.SerializeToString(),))
    yield Decoder(f"{name} terms", of_terms, (message.terms.value,))
    yield Decoder(
        f"{name} proposal", of_message(pb.Proposal, lambda each: decode_proposal(each, definition)), (proposal,)
    )
    yield Decoder(f"{name} draft", of_message(pb.DraftRequest, lambda each: decode_draft(each, definition)), (draft,))
    yield Decoder(f"{name} agreement", of_message(pb.Agreement, agreement), (answer,))
    for method in definition.load().service.methods.values():
        yield from _of_method(name, method)


def _of_method(protocol: str, method: Method) -> Iterator[Decoder]:
    place = f"{protocol} {method.path.rpartition('/')[2]}"
    request, answer = method.request_type, method.answer_type
    yield Decoder(f"{place} request", of_message(request, method.decode_request), filled(request))
    if method.is_answered:
        yield Decoder(f"{place} answer", of_message(answer, method.decode_answer), filled(answer))


def _statement(message: pb.SignedStatement) -> object:
    signed = statement_from_proto(message)
    require_valid(signed, SIGNERS["clinic"].public_key)
    return signed
