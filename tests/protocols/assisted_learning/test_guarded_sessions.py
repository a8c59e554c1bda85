"""Sessions in which a leak guard decides what leaves: what is recorded of it, and what a session comes to that it ends."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

import pytest

from comity.contract import ModelSpec
from comity.errors import PolicyRefusal, ReleaseRefused
from comity.ledger.ledger import in_round
from comity.ledger.verification import verify
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.script import parse_script
from comity.privacy.leak_guard import Verdict
from comity.session.gate import EgressGate, Guards
from comity.session.policy import Asked, Policy
from comity.session.verdicts import Verdicts
from comity.simulation.in_process import parties, simulate
from comity.tensors import Blob

SCRIPT = """
[session]
protocol = "assisted_learning"
acceptors = ["hospital"]
rounds = 2
seed = 3
model = {{ name = "mlp", options = {{ hidden = 16 }} }}

[session.terms]
learning_rate = 0.1
optimizer = "sgd"
batch_size = 48
iterations = 40
sampling_period = 4
evaluation_batch_size = 64

[party.clinic]
role = "learner"
data = {{ source = "digits", partition = {{ name = "uniform", parties = 2, index = 0 }} }}
privacy = {{ preset = "{preset}", width_factor = 1.0 }}

[party.hospital]
role = "provider"
data = {{ source = "digits", partition = {{ name = "uniform", parties = 2, index = 1 }} }}
privacy = {{ preset = "{preset}", width_factor = 1.0 }}
"""


def test_every_checkpoint_of_a_partys_own_leaves_with_a_verdict(tmp_path: Path) -> None:
    script = parse_script(SCRIPT.format(preset="guarded"))
    result, _ = simulate(script, state=tmp_path)
    assert result.digest == simulate(script)[0].digest
    plain, _ = simulate(parse_script(SCRIPT.format(preset="public")))
    assert plain.digest != result.digest
    assert max(result.metrics["rows_held_by_round"]) > 0
    assert plain.metrics["rows_held_by_round"] == [None, None]
    with ExitStack() as stack:
        for local in (each for side in parties(script, tmp_path) for each in side):
            stack.callback(local.store.close)
            verify(local.store.chains())
            facts = [entry.fact for entry in local.store.entries()]
            judged = {fact.subject: fact.body for fact in facts if fact.matter == "judged"}
            came = {fact.subject for fact in facts if fact.matter == "delivered" and fact.direction == "received"}
            sent = {fact.subject for fact in facts if fact.kind == "checkpoint" and fact.direction == "sent"}
            assert sent <= judged.keys() | came
            assert sum(sum(body["held"].values()) for body in judged.values()) > 0
            assert not any(body["refused"] for body in judged.values())


def test_a_checkpoint_without_a_verdict_does_not_leave(make_pair: Callable[..., Any]) -> None:
    context = make_pair().learner
    verdicts = Verdicts(context.journal.store, "s-1", "hospital", ("checkpoint",))
    guards = Guards().with_inspectors(verdicts.inspectors)
    gate = EgressGate(context.contract, Policy(), context.journal.store, "hospital", guards)
    blob, other = (Blob.of(bytearray(text)) for text in (b"one", b"two"))
    with pytest.raises(PolicyRefusal, match="was not judged"):
        gate.send_blob(blob, "checkpoint", in_round(1))
    verdicts.record("checkpoint", in_round(1), blob.digest, Verdict(samples=100))
    verdicts.refuse("checkpoint", in_round(1), other.hex, Verdict(samples=100, is_refused=True))
    gate.send_blob(blob, "checkpoint", in_round(1))
    # Also after a restart, and to everybody else.
    again = Verdicts(context.journal.store, "s-1", "hospital", ("checkpoint",))
    lab = EgressGate(
        context.contract, Policy(), context.journal.store, "lab", Guards().with_inspectors(again.inspectors)
    )
    lab.send_blob(blob, "checkpoint", in_round(1))
    with pytest.raises(PolicyRefusal, match="was not judged"):
        lab.send_blob(other, "checkpoint", in_round(1))
    # What a peer sent is passed on.
    gate.admit_blob(other.digest, "checkpoint", in_round(1), other.size)
    lab.send_blob(other, "checkpoint", in_round(1))


def test_limits_are_looked_at_without_building_what_a_peer_names() -> None:
    script = parse_script(SCRIPT.format(preset="guarded"))
    ((clinic,), (hospital,)) = parties(script)
    contract, definition = draft_contract(script, clinic, "s-1")
    # Four gigabytes, and wider than the samples allow.
    large = ModelSpec(name="mlp", options={"hidden": 8192, "hidden_layers": 16}, signature="0" * 64)
    contract = contract.model_copy(update={"models": {"model": large}})
    own = hospital.membership(definition.acceptor, contract)
    before = getrusage(RUSAGE_SELF).ru_maxrss
    with pytest.raises(PolicyRefusal, match=r"privacy\.width_factor refuses"):
        hospital.review(contract, own, ("clinic",), active=0, asked=Asked())
    assert getrusage(RUSAGE_SELF).ru_maxrss < before + 1_000_000


CRAFTED = """
import torch
from torch import nn

from comity.data import DataConfig, load_data


def imprint(input_shape, classes):
    train = load_data(DataConfig(source="digits")).train
    inputs = train.prepare(train.inputs, (), ()).flatten(1)
    draws = torch.Generator().manual_seed(0)
    direction = torch.randn(inputs.shape[1], generator=draws)
    first, last = nn.Linear(inputs.shape[1], 512), nn.Linear(512, classes)
    with torch.no_grad():
        first.weight.copy_(direction)
        first.bias.copy_(-(inputs @ direction).quantile((torch.arange(512) + 0.5) / 512))
        last.weight.copy_(torch.randn(classes, 1, generator=draws).expand(classes, 512) * 1e-6)
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), last)
"""


def test_a_release_that_is_refused_ends_the_session_and_is_in_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model made to show samples: rows with thresholds of one projection differ by one sample."""
    (tmp_path / "crafted.py").write_text(CRAFTED)
    monkeypatch.syspath_prepend(tmp_path)
    text = SCRIPT.format(preset="guarded").replace('"mlp", options = { hidden = 16 }', '"imprint"')
    text = text.replace("batch_size = 48", "batch_size = 256").replace("sampling_period = 4", "sampling_period = 1")
    # The limits of policy are off: it is the guard that stops it.
    text = text.replace("width_factor = 1.0", "width_factor = 0.0")
    text = text.replace("privacy =", 'models = { imprint = "python:crafted:imprint" }\nprivacy =')
    script = parse_script(text)
    with pytest.raises(ReleaseRefused, match="give samples away"):
        simulate(script, state=tmp_path / "state")
    with ExitStack() as stack:
        for local in (each for side in parties(script, tmp_path / "state") for each in side):
            stack.callback(local.store.close)
            verify(local.store.chains())
            facts = [entry.fact for entry in local.store.entries()]
            refused = [fact for fact in facts if fact.matter == "judged" and fact.body["refused"]]
            alike = {fact.body["alike"] for fact in facts if fact.subject == "start weights"}
            assert alike == ({"1.weight"} if local.name == "clinic" else set())
            sent = [fact for fact in facts if fact.kind == "checkpoint" and fact.matter in {"intended", "delivered"}]
            if local.name == "clinic":
                (fact,) = refused
                assert (fact.subject, fact.units) == ("iteration 1", in_round(1))
                assert fact.body["isolated"] > 16
            # The model that both begin with, and no other.
            assert len({fact.subject for fact in sent}) <= 1


def test_limits_look_at_what_teaches_the_model_that_crosses() -> None:
    """A party with a model of its own sends what a few distillations make, however long it trains between them."""
    own = 'own_model = { name = "mlp", to_shared = STEPS }'
    text = SCRIPT.format(preset="guarded").replace("privacy =", f"protocols.assisted-learning = {{ {own} }}\nprivacy =")
    with pytest.raises(PolicyRefusal, match="to_shared = ") as caught:
        simulate(parse_script(text.replace("STEPS", "1")))
    assert "privacy.min_distinct" in str(caught.value)
    simulate(parse_script(text.replace("STEPS", "4").replace("rounds = 2", "rounds = 1")))


def test_crafted_start_weights_are_told_of(make_pair: Callable[..., Any]) -> None:
    context, seen = make_pair().learner, []
    verdicts = Verdicts(context.journal.store, "s-1", "hospital", ("checkpoint",), seen.append)
    verdicts.warn("checkpoint", in_round(2), Verdict())
    assert not seen
    verdicts.warn("checkpoint", in_round(2), Verdict(alike="1.weight"))
    (event,) = seen
    assert (event.kind, event.round) == ("start-weights", 2)
    assert "1.weight" in event.fields["what"]
    facts = [entry.fact for entry in context.journal.store.entries("s-1")]
    assert [fact.body["alike"] for fact in facts if fact.matter == "judged"] == ["1.weight"]


@pytest.mark.parametrize(("batch", "limit"), [(673, "max_batch_share"), (600, "max_batch_share"), (300, None)])
def test_batches_of_nearly_all_samples_are_refused(batch: int, limit: str | None) -> None:
    """Two rounds of all samples, from weights that differ a little, differ by the samples in between."""
    text = SCRIPT.format(preset="guarded").replace("batch_size = 48", f"batch_size = {batch}")
    script = parse_script(text.replace("rounds = 2", "rounds = 1").replace("iterations = 40", "iterations = 10"))
    if limit is None:
        simulate(script)
        return
    with pytest.raises(PolicyRefusal, match=rf"privacy\.{limit} .* at most 505 of 67"):
        simulate(script)
