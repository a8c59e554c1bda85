"""Sessions in which the client trains the rejector: what crosses, what is charged, and what goes on after a restart."""

from __future__ import annotations

import sys
from concurrent.futures import Future
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from comity.contract import Contract
from comity.errors import InvalidValue, MalformedMessage, NodeDraining, PolicyRefusal, RoundOutOfOrder, TaskMismatch
from comity.ledger.verification import verify
from comity.node.party import LocalParty
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.script import parse_script
from comity.node.trials.apart import Trials
from comity.protocols.learning_to_help.calls import COPY, IMPLEMENTATION, LEARN
from comity.protocols.learning_to_help.features import Quantization, require_made_by_weights
from comity.protocols.learning_to_help.messages import copies_of
from comity.protocols.learning_to_help.rejecting import OwnTraining
from comity.protocols.learning_to_help.terms import LearningToHelpTerms
from comity.protocols.learning_to_help.training import Costs, Fitting, OwnRejector, model_in, rejector_training
from comity.randomness import seeded
from comity.simulation.in_process import parties, simulate
from comity.store.places import store_url
from comity.store.sql_store import SqlStore
from comity.training import Secret
from comity.transport.calls import Waiting
from tests.company import company
from tests.models.test_files import trained, write_torchscript
from tests.protocols.learning_to_help.sessions import ASKED, COPIES, PREDICTIONS


def simulated(text: str) -> Any:
    _, outcome = simulate(parse_script(text))
    return outcome.metrics


def test_each_part_of_the_rejectors_training_goes_by_a_copy_of_its_own() -> None:
    steps = simulated(COPIES.replace("rejector_epochs = 1", "rejector_epochs = 4"))["rejector_steps"]
    assert [each["copy"] for each in steps] == [1, 2, 3]
    assert [each["first"] for each in steps] == [1, *(each["last"] + 1 for each in steps[:-1])]


def test_the_ledger_says_which_copy_each_step_went_by(tmp_path: Path) -> None:
    script = parse_script(COPIES.replace("rejector_epochs = 1", "rejector_epochs = 4"))
    result, outcome = simulate(script, state=tmp_path)
    steps: Any = outcome.metrics["rejector_steps"]
    with closing(SqlStore(store_url(tmp_path / "client"), read_only=True)) as store:
        facts = [each.fact for each in store.entries(result.session)]
        verify(store.chains())
    came = {each.subject for each in facts if (each.matter, each.direction) == ("delivered", "received")}
    used = [each for each in facts if each.matter == "used"]
    assert [(each.units.unit, each.units.first, each.units.count, each.body["copy"]) for each in used] == [
        ("step", each["first"], each["last"] - each["first"] + 1, each["copy"]) for each in steps
    ]
    assert len({each.subject for each in used}) == 3
    assert {each.subject for each in used} <= came


def test_where_the_server_says_what_it_thinks_of_samples_each_is_charged() -> None:
    parties = company(PREDICTIONS)
    ((context,),) = parties.initiators
    samples = len(context.task.labels("validation"))
    metrics = simulated(PREDICTIONS)
    assert metrics["rejector_steps"][0]["copy"] == 0
    assert metrics["requests"] >= samples
    joint = metrics["requests"] - samples
    assert joint == round(metrics["reject_rate"]["all"] * len(context.task.labels("test")))


def test_predictions_in_training_are_of_what_was_bought() -> None:
    metrics = simulated(PREDICTIONS.replace("requests = 500", "requests = 20"))
    assert metrics["requests"] == 20
    assert metrics["reject_rate"]["all"] == 0


@pytest.mark.parametrize(
    ("judged", "width"), [("features", 256), ("scores", 10), ("inputs", 64)], ids=["features", "scores", "inputs"]
)
def test_the_rejector_goes_by_what_the_contract_says(judged: str, width: int) -> None:
    text = COPIES.replace("copy_every = 6", f'copy_every = 6\nrejects_on = "{judged}"')
    ((context,),) = company(text).initiators
    assert context.task.layouts["rejector"].tensors["1.weight"].shape == (64, width)
    assert simulated(text)["rejector_steps"]


def test_the_server_may_train_a_rejector_that_goes_by_scores() -> None:
    text = COPIES.replace('training = "client"', 'training = "server"\nrejects_on = "scores"')
    assert "rejector_steps" not in simulated(text)


def test_copies_leave_as_the_leak_guard_lets_them() -> None:
    guarded = 'secret = "server-3"\nprivacy = { preset = "guarded", max_batch_share = 0.75, min_period = 1 }'
    text = COPIES.replace('secret = "server-3"', guarded)
    with pytest.raises(PolicyRefusal, match="distinct samples"):
        simulated(text)
    # One copy, of 15 steps, has more samples behind it.
    wide = text.replace("copy_every = 6", "copy_every = 15").replace("hidden = 256", "hidden = 32")
    assert [each["copy"] for each in simulated(wide)["rejector_steps"]] == [1]


def test_a_copy_that_there_is_not_is_refused() -> None:
    parties = company(COPIES)
    (server,), ((context,),) = parties.roles, parties.initiators
    with pytest.raises(RoundOutOfOrder, match="copies"):
        server.copy(1)
    local = context.task.layouts["local"].pack(context.task.local)
    parties.acceptors[0][0].blobs.add(local)
    server.learn(local.digest, 0.0, 1.0)
    for index in (0, 4):
        with pytest.raises(RoundOutOfOrder, match="no such copy"):
            server.copy(index)
    answer = server.copy(3)
    while not answer.done():
        assert server.advance()
    assert not server.advance()
    # What the client has, and those before it, need not be kept.
    blobs, first = parties.acceptors[0][0].blobs, server.copy(1).result()
    assert first in blobs
    server.acknowledge(2)
    assert first not in blobs
    assert answer.result() in blobs


def test_there_is_always_a_copy() -> None:
    terms = LearningToHelpTerms(features="4", server_epochs=1, batch_size=32, copy_every=100)
    assert [copies_of(samples, terms) for samples in (1, 3200, 3201)] == [1, 1, 2]


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_training_that_stops_goes_on_to_the_same_end(dropout: float) -> None:
    def begun() -> Any:
        with seeded(0):
            model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(dropout), torch.nn.Linear(8, 2))
            inputs = torch.randn(64, 4)
        right = torch.arange(64) % 3 == 0
        fitting, secret = Fitting(3, 16, 1e-2, 1e-2), Secret(b"some", "session")
        return rejector_training(model, inputs, right, ~right, costs=Costs(0.25, 1.25), fitting=fitting, secret=secret)

    whole = begun()
    whole.finish()
    first = begun()
    first.advance(5)
    kept = {name: each.clone() for name, each in first.kept().items()}
    second = begun()
    second.restore(5, kept)
    second.finish()
    assert whole.steps == second.step == 12
    for name, each in model_in(whole.kept()).items():
        assert torch.equal(each, model_in(second.kept())[name])


def with_legacy(text: str, path: Path, *parties: str) -> str:
    """The session, in which a file of the client's answers; who has it, has it in its configuration."""
    write_torchscript(path, trained())
    text = text.replace("requests = 500", 'requests = 500\nlegacy = "legacy"')
    for party in parties:
        text = text.replace(f'role = "{party}"', f'role = "{party}"\nmodels = {{ legacy = "torchscript:{path}" }}')
    return text


@pytest.mark.parametrize("text", [COPIES, PREDICTIONS], ids=["copies", "predictions"])
def test_a_legacy_model_stays_at_the_client(text: str, tmp_path: Path) -> None:
    parties = company(with_legacy(text, tmp_path / "m.pt", "client"))
    ((context,),) = parties.initiators
    inputs = context.task.inputs("test", torch.arange(20))
    said, features = context.task.map(inputs)
    with torch.inference_mode():
        # Another model than the one that makes the features, and it answers.
        assert torch.allclose(said.cpu(), trained()(inputs.cpu()), atol=1e-5)
    assert features.shape == (20, 256)
    # The server cannot have it, and need not.
    metrics = simulated(with_legacy(text, tmp_path / "m.pt", "client"))
    assert metrics["rejector_steps"]


def with_trials(text: str, state: str) -> tuple[LocalParty, LocalParty, Contract]:
    """Client and server, which try others' models apart, and their contract."""
    script = parse_script(text)
    (client,), (server,) = parties(script)
    for each in (client, server):
        each.trials = Trials(each.name, each.config, None)
    contract, _ = draft_contract(script, client, state)
    return client, server, contract


@pytest.mark.parametrize(("text", "served"), [(COPIES, False), (ASKED, True)], ids=["client", "server"])
def test_a_legacy_model_is_tried_apart_where_it_is_used(
    text: str, served: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, server, contract = with_trials(with_legacy(text, tmp_path / "m.pt", "client", "server"), "trial")
    assert client.try_apart(contract)
    # Who tries for the first time finds no interpreter that would.
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(InvalidValue, match="ended with code") if served else nullcontext():
        assert not server.try_apart(contract)
    client, server, contract = with_trials(text, "plain")
    assert not client.try_apart(contract)


class Endless(torch.nn.Module):
    """Does not come back."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        while bool((inputs.abs() >= 0).all()):
            inputs = inputs + 1
        return inputs.flatten(1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_a_legacy_model_that_does_not_come_back_ends_another_process(tmp_path: Path) -> None:
    text = with_legacy(COPIES, tmp_path / "m.pt", "client").replace(
        'role = "client"', 'role = "client"\nlimits = { trial_s = 3.0 }'
    )
    torch.jit.script(Endless()).save(str(tmp_path / "m.pt"))
    with pytest.raises(InvalidValue, match=r"legacy on its data.*more than 3 s, by limits\.trial_s"):
        with_trials(text, "trial")


def test_where_the_server_trains_the_rejector_it_has_the_legacy_model_too(tmp_path: Path) -> None:
    with pytest.raises(TaskMismatch, match="code never crosses"):
        simulated(with_legacy(ASKED, tmp_path / "m.pt", "client"))
    assert simulated(with_legacy(ASKED, tmp_path / "m.pt", "client", "server"))["requests"]


def test_a_client_without_its_legacy_model_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(TaskMismatch, match="legacy is not here"):
        simulated(with_legacy(COPIES, tmp_path / "m.pt"))


def test_inputs_themselves_leave_only_where_the_client_allows_it() -> None:
    raw = COPIES.replace('features = "4"', 'features = "0"')
    with pytest.raises(PolicyRefusal, match="the inputs themselves"):
        simulated(raw)
    allowed = raw.replace("compare = false", "compare = false, raw_inputs = true")
    assert simulated(allowed)["bytes_per_request"] == 64


def test_who_no_longer_waits_for_a_copy_takes_no_room() -> None:
    parties = company(COPIES)
    (server,), ((context,),) = parties.roles, parties.initiators
    local = context.task.layouts["local"].pack(context.task.local)
    parties.acceptors[0][0].blobs.add(local)
    server.learn(local.digest, 0.0, 1.0)
    for _ in range(100):
        assert server.copy(3).cancel()
    last = server.copy(3)
    assert len(server._copies._waiting) == 1
    while not last.done():
        assert server.advance()
    # So of those who wait until the server has learned.
    plain = company(ASKED)
    plain.acceptors[0][0].blobs.add(local)
    (server,) = plain.roles
    for _ in range(100):
        assert server.learn(local.digest, 0.0, 1.0).cancel()
    stays = server.learn(local.digest, 0.0, 1.0)
    assert len(server._waiting) == 1
    server.fail(NodeDraining("the session is being stopped"))
    assert isinstance(stays.exception(), NodeDraining)


@pytest.mark.parametrize("call", [LEARN, COPY], ids=["learn", "copy"])
def test_who_goes_waits_no_longer(call: Waiting) -> None:
    assert call.cancels


class Publisher:
    """Has every copy at once: the same."""

    def __init__(self, digest: bytes) -> None:
        self._digest = digest
        self.asked: list[int] = []

    def copy(self, index: int) -> Future[bytes]:
        self.asked.append(index)
        answer: Future[bytes] = Future()
        answer.set_result(self._digest)
        return answer

    def acknowledge(self, copy: int) -> None:
        pass


def own_training(samples: int) -> tuple[OwnTraining, OwnRejector, Publisher]:
    """A client's training beside a server that says that it has so many samples."""
    ((context,),) = company(COPIES).initiators
    task = context.task
    copy = context.blobs.add(task.layouts["server"].pack(task.initial["server"])).digest
    publisher: Any = Publisher(copy)
    context = replace(context, peer=context.peer.model_copy(update={"samples": samples}))
    unused: Any = None
    return OwnTraining(context, publisher, unused), task.own_rejector(Quantization(0.0, 1.0)), publisher


def test_of_more_copies_than_steps_each_step_has_one_of_its_own() -> None:
    # As many samples as give 2**30 copies: who passed over them one by one would not end.
    training, own, publisher = own_training(64 * 6 * 2**30)
    for _ in training.work(own):
        pass
    assert [(each.first, each.last) for each in training.steps] == [(at, at) for at in range(1, own.training.steps + 1)]
    assert publisher.asked == sorted(publisher.asked)
    assert publisher.asked[-2:] == [2**30, 2**30]


def test_more_copies_than_have_a_number_are_refused() -> None:
    training, own, publisher = own_training(2**63)
    with pytest.raises(MalformedMessage, match="more copies"):
        next(training.work(own))
    assert not publisher.asked


def test_steps_are_exact_however_many_samples_there_are() -> None:
    assert Fitting(1, 2).steps(2**63 + 1) == 2**62 + 1


class Scaled(torch.nn.Module):
    """Puts inputs into another range before anything else."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 8), torch.nn.ReLU())
        self.head = torch.nn.Linear(8, 10)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.head(self.net(inputs * 2 - 1))
        return answer


def test_inputs_in_another_range_are_inputs_all_the_same() -> None:
    model = Scaled()
    model.net.requires_grad_(False)
    for layer in ("net", "net.0", "net.1"):
        with pytest.raises(PolicyRefusal, match="the inputs themselves"):
            require_made_by_weights(model, layer, (1, 8, 8))
    # By weights that are not trained, too.
    for layer in ("net.2", "head"):
        require_made_by_weights(model, layer, (1, 8, 8))
    assert [each.requires_grad for each in model.parameters()] == [False, False, True, True]


def test_a_servers_room_holds_what_a_leak_guard_keeps() -> None:
    def room(text: str) -> int:
        parties = company(text)
        (context,) = parties.acceptors[0]
        own = context.own
        return int(IMPLEMENTATION.disk_space(parties.contract, own, context.peer, context.task))  # type: ignore[misc]

    guarded = COPIES.replace('secret = "server-3"', 'secret = "server-3"\nprivacy = { preset = "guarded" }')
    (context,) = company(guarded).acceptors[0]
    kept = 2 * context.task.guard_space(context.own.samples)
    assert kept > 0
    assert room(guarded) == room(COPIES) + kept


class Drawing(torch.nn.Module):
    """Draws in training, where nothing seeds it."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs * float(np.random.rand()) if self.training else inputs  # noqa: NPY002


def test_a_model_that_draws_where_nothing_seeds_it_is_refused_before_anything_begins() -> None:
    ((context,),) = company(COPIES).initiators
    task = context.task
    before = {name: each.clone() for name, each in task.model("rejector").state_dict().items()}
    task.try_out()
    assert all(torch.equal(each, before[name]) for name, each in task.model("rejector").state_dict().items())
    task.model("rejector").append(Drawing())
    with pytest.raises(InvalidValue, match="nothing seeds"):
        task.try_out()
