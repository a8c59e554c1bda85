"""Contracts and memberships cross unchanged, their hash says so, and what does not fit is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from hypothesis import given
from hypothesis import strategies as st
from teacher_votes.definition import PROTOCOL
from teacher_votes.terms import TeacherVotesTerms

from comity.contract import (
    KIND,
    Contract,
    HeadSpec,
    InputSpec,
    Membership,
    ModelSpec,
    Preprocessing,
    Price,
    Release,
    TaskSpec,
)
from comity.errors import MalformedMessage
from comity.session.codec import (
    LARGEST_CONTRACT,
    contract_from_proto,
    contract_to_proto,
    membership_from_proto,
    membership_to_proto,
    release_from_proto,
    release_to_proto,
)
from comity.tasks.classification import classification
from comity.wire.v1 import sessions_pb2 as pb

_TURNS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
texts = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters=_TURNS), max_size=12)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
finite = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(0, exclude_min=True, allow_infinity=False)
# The wire's Struct knows one kind of number, a double.
options = st.dictionaries(texts, st.booleans() | texts | finite | st.integers(-(2**53), 2**53), max_size=4)
sizes = st.integers(1, 2**32 - 1)


@st.composite
def inputs(draw: st.DrawFn) -> InputSpec:
    shape = tuple(draw(st.lists(st.integers(1, 5), max_size=3)))
    channels = shape[0] if shape and draw(st.booleans()) else 0
    mean, std = (draw(st.lists(each, min_size=channels, max_size=channels)) for each in (finite, positive))
    return InputSpec(
        shape=shape,
        dtype=draw(texts),
        scale=draw(st.none() | positive),
        features=draw(st.lists(texts, max_size=3)),
        preprocessing=Preprocessing(mean=mean, std=std),
    )


@st.composite
def heads(draw: st.DrawFn) -> HeadSpec:
    size = draw(st.integers(1, 4))
    given = {
        name: draw(st.just(()) | st.lists(each, min_size=size, max_size=size))
        for name, each in (("labels", texts), ("units", texts), ("mean", finite), ("std", positive))
    }
    return HeadSpec(name=draw(kinds), kind=draw(st.just("") | kinds), size=size, **given)


kinds = st.from_regex(KIND, fullmatch=True).filter(lambda name: name.isprintable())
tasks = st.builds(
    TaskSpec,
    kind=kinds,
    options=options,
    inputs=inputs(),
    heads=st.lists(heads(), max_size=3, unique_by=lambda head: head.name),
)


terms = st.builds(TeacherVotesTerms, queries=st.integers(1, 10_000), steps=st.integers(1, 10_000), scored=st.booleans())
contracts = st.builds(
    Contract,
    protocol=texts,
    version=sizes,
    session=names,
    seed=st.integers(0, 2**63 - 1),
    rounds=st.integers(1, 10_000),
    models=st.dictionaries(kinds, st.builds(ModelSpec, name=texts, options=options, signature=texts), max_size=3),
    task=tasks,
    initiator=names,
    acceptors=st.lists(names, max_size=3),
    egress=st.lists(kinds, max_size=3),
    terms=terms,
)
releases = st.builds(Release, samples=st.integers(0, 2**64 - 1), kept=st.sampled_from(["round", "session", "result"]))
keys = st.binary(min_size=32, max_size=32).map(bytes.hex)
memberships = st.builds(Membership, party=names, role=texts, samples=st.integers(1, 2**64 - 1), receipt_key=keys)


def encoded(contract: Contract) -> pb.Contract:
    return contract_to_proto(contract, PROTOCOL.terms_message())


def decoded(message: pb.Contract) -> Contract:
    return contract_from_proto(message, PROTOCOL.terms_message(), PROTOCOL.terms)


@given(contracts)
def test_contracts_cross_unchanged(contract: Contract) -> None:
    data = encoded(contract).SerializeToString()
    crossed = decoded(pb.Contract.FromString(data))
    assert crossed == contract
    assert crossed.hash == contract.hash
    assert isinstance(crossed.terms, TeacherVotesTerms)


@given(memberships)
def test_memberships_cross_unchanged(membership: Membership) -> None:
    data = membership_to_proto(membership).SerializeToString()
    assert membership_from_proto(pb.Membership.FromString(data)) == membership


@given(releases)
def test_releases_cross_unchanged(release: Release) -> None:
    data = release_to_proto(release).SerializeToString()
    assert release_from_proto(pb.Release.FromString(data)) == release


@pytest.mark.parametrize("kept", [pb.RETENTION_UNSPECIFIED, 99])
def test_a_release_says_how_long_it_is_kept(kept: int) -> None:
    with pytest.raises(MalformedMessage, match="round, session, result"):
        release_from_proto(pb.Release(samples=3, kept=kept))  # type: ignore[arg-type]


def test_the_hash_of_a_contract_is_what_it_always_was(make_contract: Callable[..., Contract]) -> None:
    # Both sides quote it: a change here means that old and new nodes agree on nothing.
    contract = make_contract(
        models={
            "student": ModelSpec(
                name="mlp", options={"hidden": 64, "rate": 0.5, "wide": True, "kind": "é"}, signature="ab"
            )
        },
        task=classification((1, 8, 8), 10, Preprocessing(mean=(0.1,), std=(1.0,))),
    )
    assert contract.hash == "56ab703577e949a8f645330dc1c4bbe26d8ccc15d1db024119703a6a823b7472"


CHANGES: dict[str, Any] = {
    "protocol": "federated_count",
    "version": 2,
    "session": "s-2",
    "seed": 8,
    "rounds": 4,
    "models": {"student": ModelSpec(name="mlp", options={"hidden": 9}, signature="0" * 64)},
    "task": classification((1, 8, 9), 10),
    "initiator": "hospital",
    "max_silence_s": 60.0,
    "max_duration_s": 3600.0,
    "price": Price(amount=2.5),
    "acceptors": ("hospital", "clinic"),
    "egress": ("contract", "loss"),
    "terms": TeacherVotesTerms(steps=51),
}


def test_every_field_of_a_contract_is_in_its_hash(make_contract: Callable[..., Contract]) -> None:
    assert set(CHANGES) == set(Contract.model_fields)
    hashes = {make_contract(**{name: value}).hash for name, value in CHANGES.items()}
    assert len(hashes | {make_contract().hash}) == len(CHANGES) + 1


def test_every_term_is_in_the_hash(make_contract: Callable[..., Contract]) -> None:
    changes: dict[str, Any] = {"queries": 1, "steps": 1, "scored": True}
    assert set(changes) == set(TeacherVotesTerms.model_fields)
    terms = [TeacherVotesTerms(**{name: value}) for name, value in changes.items()]
    hashes = {make_contract(terms=each).hash for each in [*terms, TeacherVotesTerms()]}
    assert len(hashes) == len(changes) + 1


def test_whole_numbers_hash_alike_however_they_are_written(make_contract: Callable[..., Contract]) -> None:
    one, other = ({"hidden": value} for value in (64, 64.0))
    contracts = [make_contract(models={"student": ModelSpec(name="mlp", options=options)}) for options in (one, other)]
    assert contracts[0].hash == contracts[1].hash


@pytest.mark.parametrize("value", [2**53 + 1, -(2**53) - 1])
def test_options_that_the_wire_would_round_are_refused(value: int) -> None:
    with pytest.raises(ValueError, match="options"):
        ModelSpec(name="mlp", options={"hidden": value})


def put(path: str, value: Any) -> Callable[[pb.Contract], None]:
    def change(message: pb.Contract) -> None:
        place: Any = message
        *parents, last = path.split(".")
        for name in parents:
            place = getattr(place, name)
        if last == "options":
            (place.models["student"] if place is message else place).options.update(value)
        elif last == "heads":
            place.heads.extend(pb.Head(**each) for each in value)
        elif isinstance(value, list):
            getattr(place, last).extend(value)
        else:
            setattr(place, last, value)

    return change


def clear(*names: str) -> Callable[[pb.Contract], None]:
    def change(message: pb.Contract) -> None:
        for name in names:
            message.ClearField(name)

    return change


def pack(message: Any) -> Callable[[pb.Contract], None]:
    def change(contract: pb.Contract) -> None:
        contract.terms.Pack(message)

    return change


def garble(message: pb.Contract) -> None:
    message.terms.value = b"\xff\xff\xff"


def without(name: str) -> Callable[[pb.Contract], None]:
    terms = PROTOCOL.terms_message()
    for field in TeacherVotesTerms.model_fields:
        value = TeacherVotesTerms.model_fields[field].default
        if field != name and value is not None:
            setattr(terms, field, value)
    return pack(terms)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (clear("task"), "task"),
        (clear("terms"), "other terms"),
        (clear("session"), "session"),
        (clear("version"), "version"),
        (clear("rounds"), "rounds"),
        (put("session", "../../etc"), "session"),
        (put("initiator", "a b"), "initiator"),
        (put("acceptors", [""]), "acceptors"),
        (put("egress", ["every thing"]), "egress"),
        (put("rounds", 10_001), "rounds"),
        (put("seed", 2**63), "seed"),
        (put("task.kind", "not a kind"), "kind"),
        (put("task.inputs.shape", [0]), "shape"),
        (put("task.inputs.shape", [1] * 9), "shape"),
        (put("task.inputs.scale", 0.0), "scale"),
        (put("task.inputs.preprocessing.mean", [0.0]), "mean and std"),
        (put("task.heads", [{"name": "class", "size": 2}]), "a name of its own"),
        (put("task.heads", [{"name": "depth", "size": 0}]), "size"),
        (put("task.heads", [{"name": "depth", "size": 1, "units": ["m", "s"]}]), "units needs one for each of the 1"),
        (put("task.heads", [{"name": "depth", "size": 1, "mean": [0.0], "std": [0.0]}]), "std"),
        (put("options", {"hidden": [1]}), "options"),
        (put("options", {"hidden": {"a": 1}}), "options"),
        (put("options", {"hidden": None}), "options"),
        (put("options", {"hidden": float("nan")}), "contract"),
        (put("options", {"hidden": float("inf")}), "contract"),
        (garble, "contract"),
        (pack(pb.Membership(party="clinic")), "other terms"),
        (without("queries"), "queries"),
        (without("steps"), "steps"),
    ],
)
def test_contracts_that_do_not_fit_are_refused(
    make_contract: Callable[..., Contract], change: Callable[[pb.Contract], None], named: str
) -> None:
    message = encoded(make_contract())
    change(message)
    with pytest.raises(MalformedMessage, match=named) as caught:
        decoded(pb.Contract.FromString(message.SerializeToString()))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("value", [0, 10_001, 2**32 - 1])
def test_terms_out_of_range_are_refused(make_contract: Callable[..., Contract], value: int) -> None:
    message = encoded(make_contract())
    terms = PROTOCOL.terms_message()
    message.terms.Unpack(terms)
    terms.queries = value  # type: ignore[attr-defined]
    message.terms.Pack(terms)
    with pytest.raises(MalformedMessage, match="queries"):
        decoded(message)


@pytest.mark.parametrize(
    "change",
    [
        lambda message: message.models["k" * 10_000].SetInParent(),
        lambda message: [message.models[f"m{number}"].SetInParent() for number in range(5_000)],
        lambda message: message.models["student"].options.update({"k" * 10_000: 1}),
        lambda message: message.models["student"].options.update({f"o{number}": 1 for number in range(5_000)}),
        lambda message: message.models["student"].options.update({"hidden": "x" * 10_000}),
        lambda message: setattr(message.models["student"], "name", "x" * 10_000),
        lambda message: setattr(message.models["student"], "signature", "x" * 10_000),
        lambda message: setattr(message.task, "kind", "x" * 10_000),
        lambda message: message.task.options.update({"environment": "x" * 10_000}),
        lambda message: message.task.inputs.shape.extend([1] * 10_000),
        lambda message: message.task.inputs.features.extend([""] * 70_000),
        lambda message: message.task.inputs.features.append("x" * 10_000),
        lambda message: message.task.inputs.preprocessing.mean.extend([0.0] * 70_000),
        lambda message: message.task.heads.extend([pb.Head(name="a", size=1)] * 10_000),
        lambda message: message.task.heads[0].labels.extend(["x"] * 10_000),
        lambda message: setattr(message.task.heads[0], "name", "x" * 10_000),
        lambda message: setattr(message, "protocol", "x" * 10_000),
        lambda message: setattr(message, "session", "x" * 10_000),
        lambda message: message.acceptors.extend(["x"] * 10_000),
        lambda message: message.egress.extend(["x"] * 10_000),
        lambda message: message.egress.append("x" * 10_000),
        lambda message: setattr(message.terms, "type_url", "x" * 10_000),
        lambda message: setattr(message.terms, "value", bytes(LARGEST_CONTRACT)),
    ],
)
def test_nothing_in_a_contract_is_without_end(
    make_contract: Callable[..., Contract], change: Callable[[pb.Contract], object]
) -> None:
    message = encoded(make_contract())
    change(message)
    with pytest.raises(MalformedMessage) as caught:
        decoded(message)
    assert len(str(caught.value)) < 700
    assert caught.value.expected


def test_terms_under_a_strange_type_are_refused(make_contract: Callable[..., Contract]) -> None:
    message = encoded(make_contract())
    message.terms.CopyFrom(AnyMessage(type_url="x/comity.wire.v1.Nothing", value=b""))
    with pytest.raises(MalformedMessage, match="Nothing"):
        decoded(message)


@pytest.mark.parametrize(
    "message", [pb.Membership(party="clinic"), pb.Membership(samples=1), pb.Membership(party="a/b", samples=1)]
)
def test_memberships_that_do_not_fit_are_refused(message: pb.Membership) -> None:
    with pytest.raises(MalformedMessage, match="membership"):
        membership_from_proto(message)
