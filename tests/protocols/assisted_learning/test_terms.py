"""Terms cross unchanged, each is in the contract's hash, and what does not fit is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.contract import Contract, ModelSpec, Preprocessing
from comity.errors import InvalidValue, MalformedMessage, PolicyRefusal
from comity.experiments import demo_script
from comity.node.sessions.script import parse_script
from comity.privacy.terms import PrivacyTerms
from comity.protocols.assisted_learning.definition import PROTOCOL
from comity.protocols.assisted_learning.terms import AssistedLearningTerms, PolicyGradientTerms
from comity.session.codec import contract_from_proto, contract_to_proto
from comity.simulation.in_process import simulate
from comity.tasks.classification import classification
from comity.wire.v1 import sessions_pb2 as pb

finite = st.floats(allow_nan=False, allow_infinity=False)
sizes = st.integers(1, 2**32 - 1)


@st.composite
def policies(draw: st.DrawFn) -> PolicyGradientTerms | None:
    if draw(st.booleans()):
        return None
    baseline = draw(st.sampled_from(["none", "mean", "normalized"]))
    return PolicyGradientTerms(discount=0.9, baseline=baseline, evaluation_episodes=7, best_return=draw(finite))


@st.composite
def noises(draw: st.DrawFn) -> PrivacyTerms | None:
    if draw(st.booleans()):
        return None
    scope = draw(st.sampled_from(["per_step", "total"]))
    return PrivacyTerms(scope=scope, epsilon=draw(st.floats(0.1, 100)), delta=draw(st.floats(1e-9, 0.5)))


terms = st.builds(
    AssistedLearningTerms,
    batch_size=sizes,
    evaluation_batch_size=sizes,
    optimizer=st.sampled_from(["adam", "sgd"]),
    learning_rate=st.floats(0, 1e30, exclude_min=True),
    iterations=st.integers(1002, 2**32 - 1),
    sampling_period=st.integers(1, 1000),
    # One of both trains longer than the period.
    learner_iterations=st.none() | st.integers(1002, 2**32 - 1),
    provider_iterations=st.none() | sizes,
    weight_decay=st.floats(0, 1e6),
    learning_rate_decay=st.floats(0, 1, exclude_min=True),
    decay=st.sampled_from(["constant", "linear", "cosine"]),
    last_share=st.floats(0, 1),
    select_on=st.sampled_from(["training", "validation"]),
    objective=st.sampled_from(["sum", "mean"]),
    screening=st.sampled_from(["exact", "race"]),
    trajectory_encoding=st.sampled_from(["dense", "delta"]),
    policy_gradient=policies(),
    privacy=noises(),
)


def encoded(contract: Contract) -> pb.Contract:
    return contract_to_proto(contract, PROTOCOL.terms_message())


def decoded(message: pb.Contract) -> Contract:
    return contract_from_proto(message, PROTOCOL.terms_message(), PROTOCOL.terms)


@given(terms)
def test_terms_cross_unchanged(make_contract: Callable[..., Contract], agreed: AssistedLearningTerms) -> None:
    contract = make_contract(terms=agreed)
    crossed = decoded(pb.Contract.FromString(encoded(contract).SerializeToString()))
    assert crossed == contract
    assert crossed.hash == contract.hash
    assert isinstance(crossed.terms, AssistedLearningTerms)


def test_the_hash_of_a_contract_is_what_it_always_was(make_contract: Callable[..., Contract]) -> None:
    # Both sides quote it: a change here means that old and new nodes agree on nothing.
    contract = make_contract(
        models={
            "model": ModelSpec(
                name="mlp", options={"hidden": 64, "rate": 0.5, "wide": True, "kind": "é"}, signature="ab"
            )
        },
        task=classification((1, 8, 8), 10, Preprocessing(mean=(0.1,), std=(1.0,))),
    )
    assert contract.hash == "413a7b053858881ede60876a36d7e6ded7f95351d59a9883201cd047fb128416"


def test_every_term_is_in_the_hash(make_contract: Callable[..., Contract]) -> None:
    changes: dict[str, Any] = {
        "batch_size": 1,
        "evaluation_batch_size": 1,
        "optimizer": "sgd",
        "learning_rate": 1.0,
        "iterations": 300,
        "learner_iterations": 100,
        "provider_iterations": 100,
        "momentum": 0.9,
        "weight_decay": 0.1,
        "learning_rate_decay": 0.9,
        "decay": "cosine",
        "last_share": 0.1,
        "sampling": "balanced",
        "select_on": "validation",
        "sampling_period": 1,
        "objective": "mean",
        "order": "rotating",
        "trainers": 1,
        "policy_gradient": PolicyGradientTerms(best_return=100.0),
        "privacy": PrivacyTerms(scope="total", epsilon=1.0),
        "screening": "race",
        "trajectory_encoding": "delta",
        "stop_when_stalled": 1,
        "target": 0.9,
        "target_metric": "auroc",
    }
    assert set(changes) == set(AssistedLearningTerms.model_fields)
    sgd = {"momentum": {"optimizer": "sgd"}}
    terms = [AssistedLearningTerms(**{name: value, **sgd.get(name, {})}) for name, value in changes.items()]
    hashes = {make_contract(terms=each).hash for each in [*terms, AssistedLearningTerms()]}
    assert len(hashes) == len(changes) + 1


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"iterations": 50, "sampling_period": 50}, "nothing would be trained"),
        ({"learner_iterations": 5, "provider_iterations": 9, "sampling_period": 10}, "nothing would be trained"),
        ({"momentum": 0.9}, "momentum is for sgd"),
        ({"sampling": "balanced", "privacy": {"scope": "total", "epsilon": 1.0}}, "uniform with privacy"),
        ({"last_share": 2.0}, "last_share"),
        ({"decay": "steps"}, "decay"),
    ],
)
def test_terms_that_do_not_go_together_are_refused(said: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        AssistedLearningTerms.model_validate(said)


def test_a_period_that_no_party_trains_for_is_refused_before_the_first_round() -> None:
    text = demo_script("assisted_learning", 0).replace("rounds = 10", "rounds = 1")
    with pytest.raises(
        MalformedMessage, match="longer than the training of every party.*expected a sampling_period below"
    ):
        simulate(parse_script(text.replace("sampling_period = 5", "sampling_period = 90")))


def lines(**changes: str) -> str:
    """The demo's script of one round with other terms."""
    text = demo_script("assisted_learning", 0).replace("rounds = 10", "rounds = 2")
    return text.replace("[session.terms]\n", "[session.terms]\n" + "".join(f"{k} = {v}\n" for k, v in changes.items()))


@pytest.mark.parametrize(
    "changes",
    [
        {"learner_iterations": "40", "provider_iterations": "10"},
        {"weight_decay": "0.1"},
        {"learning_rate_decay": "0.5"},
        {"decay": '"cosine"', "last_share": "0.1"},
        {"sampling": '"balanced"'},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_term_changes_what_is_learned_and_the_global_loss_still_falls(changes: dict[str, str]) -> None:
    plain, _ = simulate(parse_script(lines()))
    result, _ = simulate(parse_script(lines(**changes)))
    assert result.digest != plain.digest
    losses: Any = result.metrics["global_loss_by_round"]
    assert losses == sorted(losses, reverse=True)


def test_each_partys_iterations_are_what_the_terms_say() -> None:
    events: list[Any] = []
    simulate(parse_script(lines(learner_iterations="40", provider_iterations="10")), events.append)
    offered, received = (
        {each.fields["of"] for each in events if each.kind == f"checkpoint-{way}"} for way in ("offered", "received")
    )
    assert (offered, received) == ({8}, {2})


def test_checkpoints_are_compared_on_samples_that_are_held_out() -> None:
    text = lines(select_on='"validation"')
    with pytest.raises(InvalidValue, match=r"no split validation"):
        simulate(parse_script(text))
    for party in ("learner", "provider"):
        text += f"\n[party.{party}.data.splits.validation]\nshare = 0.25\n"
    result, _ = simulate(parse_script(text))
    trained, _ = simulate(parse_script(text.replace('select_on = "validation"', 'select_on = "training"')))
    losses: Any = result.metrics["global_loss_by_round"]
    # Over a quarter of the samples.
    other: Any = trained.metrics["global_loss_by_round"]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] < other[0]
    assert result.digest != trained.digest


def without(name: str) -> pb.Contract:
    terms = PROTOCOL.terms_message()
    for field in AssistedLearningTerms.model_fields:
        value = AssistedLearningTerms.model_fields[field].default
        if field != name and value is not None:
            setattr(terms, field, value)
    message = pb.Contract()
    message.terms.Pack(terms)
    return message


@pytest.mark.parametrize(
    "name",
    [
        "optimizer",
        "learning_rate",
        "batch_size",
        "iterations",
        "sampling_period",
        "objective",
        "screening",
        "trajectory_encoding",
    ],
)
def test_terms_that_are_not_whole_are_refused(make_contract: Callable[..., Contract], name: str) -> None:
    message = encoded(make_contract())
    message.terms.CopyFrom(without(name).terms)
    with pytest.raises(MalformedMessage, match=name) as caught:
        decoded(pb.Contract.FromString(message.SerializeToString()))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 0.0])
def test_learning_rates_out_of_range_are_refused(make_contract: Callable[..., Contract], value: float) -> None:
    message = encoded(make_contract())
    terms = PROTOCOL.terms_message()
    message.terms.Unpack(terms)
    terms.learning_rate = value  # type: ignore[attr-defined]
    message.terms.Pack(terms)
    with pytest.raises(MalformedMessage, match="learning_rate"):
        decoded(message)


def test_each_checkpoint_is_a_question_and_several_providers_are_asked_more() -> None:
    terms = AssistedLearningTerms(iterations=101, sampling_period=5)
    assert terms.most_losses(10, 1) == 200
    assert terms.most_losses(10, 3) == 800
    assert terms.model_copy(update={"trainers": 1}).most_losses(10, 3) == 400


def test_exact_losses_are_bounded_by_policy() -> None:
    text = demo_script(PROTOCOL.name, 0).replace("baselines = true", "")
    with pytest.raises(
        PolicyRefusal, match=r"policy\.max_losses refuses the session: expected at most 199, received 200"
    ):
        simulate(parse_script(text + "\n[party.provider.policy]\nmax_losses = 199\n"))
