"""A session of peer study: what leaves whatever is protected, who is waited for, and what a party that lies is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from comity.contract import Release
from comity.data import Splits, load_data
from comity.errors import InvalidValue, MalformedMessage, RoundOutOfOrder
from comity.node.sessions.script import parse_script
from comity.protocols.peer_study.annotators import Annotated
from comity.protocols.peer_study.client import Client
from comity.protocols.peer_study.strategies import Question, choose
from comity.protocols.peer_study.task_builder import private_training
from comity.session.gate import EgressGate
from comity.simulation.in_process import simulate
from comity.tensors import Blob
from comity.transport.bindings.in_process import InProcessChannel
from tests.company import Company, company
from tests.protocols.peer_study.sessions import SESSIONS

PLAIN = SESSIONS["plain"].text


def in_process(own: Any, other: Any, role: Any) -> InProcessChannel:
    return InProcessChannel(other, role)


def joined(text: str = PLAIN) -> Company:
    found = company(text)
    found.roles[0].advance()
    return found


@pytest.fixture
def crossed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[bytes], list[list[int]]]]:
    """Every byte that leaves a client in a session, and what was chosen; with samples and selections as a test has them."""
    real, load = choose, load_data

    def run(
        change: Callable[[Splits], Splits] = lambda splits: splits, held: list[list[int]] | None = None
    ) -> tuple[list[bytes], list[list[int]]]:
        left: list[bytes] = []
        chosen: list[list[int]] = []
        fixed = iter(held or [])

        def select(strategy: Any, question: Question) -> torch.Tensor:
            indices = real(strategy, question) if held is None else torch.tensor(next(fixed))
            chosen.append(indices.tolist())
            return indices

        def seen(self: EgressGate, outgoing: Any) -> None:
            # Signatures cover when they were made; what they are about is here.
            if self.peer == "server" and outgoing.kind != "statement":
                content = outgoing.content
                whole = content.data if isinstance(content, Blob) else content.SerializeToString(deterministic=True)
                left.append(bytes(whole))

        with monkeypatch.context() as patch:
            patch.setattr("comity.protocols.peer_study.client.choose", select)
            patch.setattr("comity.node.holdings.load_data", lambda config: change(load(config)))
            patch.setattr(EgressGate, "_pass", seen)
            simulate(parse_script(PLAIN))
        return left, chosen

    return run


def others(splits: Splits, *, protected: bool) -> Splits:
    """The same samples, but for those that are protected, or for the others of the pool."""
    pool = splits.find("pool")
    if pool is None or pool.protected is None:
        return splits
    marks = pool.protected if protected else ~pool.protected
    inputs = pool.inputs.clone()
    inputs[marks] = 16 - inputs[marks].flip(0)
    labels = pool.labels.clone()
    labels[marks] = (labels[marks] + 3) % 10
    return replace(splits, others={"pool": replace(pool, inputs=inputs, labels=labels)})


def test_protected_samples_change_no_byte_that_leaves_but_by_what_is_chosen(crossed: Callable[..., Any]) -> None:
    left, chosen = crossed()
    assert len(left) > 16
    again, _ = crossed(held=chosen)
    assert again == left
    without, _ = crossed(lambda splits: others(splits, protected=True), chosen)
    assert without == left
    # What may be chosen is another matter, and so is what is chosen from.
    with_others, _ = crossed(lambda splits: others(splits, protected=False), chosen)
    assert with_others != left


def test_which_samples_are_chosen_follows_from_protected_ones_too(crossed: Callable[..., Any]) -> None:
    _, chosen = crossed()
    _, otherwise = crossed(lambda splits: others(splits, protected=True))
    assert chosen[:2] == otherwise[:2]
    assert chosen != otherwise


def test_nothing_protected_is_chosen_and_nothing_twice(crossed: Callable[..., Any]) -> None:
    found = joined()
    _, chosen = crossed()
    ann = found.initiators[0][0].task.pool
    marks = ann.pool.protected
    first = len(ann.known)
    assert [len(each) for each in chosen] == [10, 10, 6, 6]
    for at in (0, 1):
        every = [*chosen[at], *chosen[at + 2]]
        assert len(set(every)) == 16
    assert not bool(marks[torch.tensor([*chosen[0], *chosen[2]]) - first].any())


def test_a_model_may_not_stand_on_more_labels_than_there_are() -> None:
    found = joined()
    (server,), ((context,), _) = found.roles, found.initiators
    own = context.own.samples
    with pytest.raises(MalformedMessage, match=f"at most {own} in round 1"):
        server.submit("ann", 1, bytes(32), Release(samples=own + 1, kept="round"))


def test_the_server_waits_for_people_and_says_so() -> None:
    found = joined()
    port = found.port(in_process)
    port.await_labels(1, 6)
    waiting = [event.fields for event in found.events["server"] if event.kind == "waiting"]
    assert [(each["reason"], each["subject"], each["labels"]) for each in waiting] == [("labels-elsewhere", "ann", 6)]
    for count in (0, 11):
        with pytest.raises(MalformedMessage, match="1 to 10"):
            port.await_labels(1, count)
    with pytest.raises(RoundOutOfOrder):
        port.await_labels(2, 6)
    port.sit_out(1)
    assert [event.kind for event in found.events["server"]][-1] == "waiting-over"


def test_rounds_with_labels_stay_open_for_days_and_others_do_not() -> None:
    (server,) = joined(PLAIN.replace("steps = 4", "steps = 4\nlabel_deadline_s = 1e6\nround_deadline_s = 5.0")).roles
    assert server.wakes_in() > 1e5
    terms = server._terms
    assert [terms.deadline_s(round) for round in (1, 2, 3, 4)] == [1e6, 5.0, 1e6, 5.0]


def test_a_client_that_missed_rounds_chooses_with_students_that_learned_late() -> None:
    found = joined(
        PLAIN.replace("min_clients = 2\nsteps", "min_clients = 1\nsteps").replace(
            "{ min_clients = 2 }", "{ min_clients = 1 }"
        )
    )
    context = found.initiators[0][0]
    for round in (1, 2):
        context.journal.append("missed", round)
    client = Client(context, found.port(in_process))
    context.journal.append("selected", 1, indices=[2, 3])
    assert len(client._chosen(1)) == 6


def test_samples_of_a_step_that_was_missed_are_asked_for_with_those_of_the_next() -> None:
    found = joined()
    context, port = found.initiators[0][0], found.port(in_process)
    client = Client(context, port)

    def over(round: int, count: int) -> None:
        raise RoundOutOfOrder("the round is over")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(port, "await_labels", over)
        with pytest.raises(RoundOutOfOrder):
            client._label(1)
    told: list[tuple[int, int]] = []
    for _ in range(2):
        # As after a restart; what is labelled is not asked for once more.
        again = Client(context, port)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(port, "await_labels", lambda round, count: told.append((round, count)))
            again._label(3)
        assert len(again._labelled) == 16
        assert again._labelled.indices.tolist() == [*again._selected[0], *again._selected[1]]
    assert told == [(3, 16)]


def test_the_server_takes_it_that_samples_of_two_steps_are_waited_for() -> None:
    (server,) = joined().roles
    terms = server._terms
    assert [terms.labels_by(terms.step_of(round)) for round in (1, 2, 3)] == [10, 10, 16]


def with_labels(client: Client, count: int) -> None:
    """As if of all that was chosen first so many samples had got a label."""
    label = client._people.label

    def fewer(selected: Any, tell: Callable[[], None]) -> Annotated:
        found = label(selected, tell)
        return Annotated(found.indices[:count], found.labels[:count])

    client._people.label = fewer  # type: ignore[method-assign]


def assert_contributed(found: Company, *, is_contributed: bool) -> None:
    kinds = {event.kind for event in found.events["ann"]} & {"update-submitted", "round-missed"}
    assert kinds == {"update-submitted" if is_contributed else "round-missed"}


@pytest.mark.parametrize(("labels", "is_sent"), [(10, True), (9, False), (0, False)])
def test_a_client_sits_out_while_fewer_samples_are_labelled_than_its_policy_wants(labels: int, is_sent: bool) -> None:
    found = joined(PLAIN.replace("policy = { min_clients = 2 }", "policy = { min_clients = 2, min_samples = 18 }"))
    context = found.initiators[0][0]
    assert context.own.samples == 18
    client = Client(context, found.port(in_process))
    with_labels(client, labels)
    client._contribute(1)
    assert_contributed(found, is_contributed=is_sent)


@pytest.mark.parametrize(
    ("batch_size", "labels", "drawn"), [(8, 10, 8), (8, 9, 7), (8, 0, 3), (20, 5, 13), (1, 10, 1), (1, 9, 0)]
)
def test_no_sample_is_likelier_in_a_step_than_the_budget_was_charged_for(
    batch_size: int, labels: int, drawn: int
) -> None:
    text = PLAIN.replace('preset = "public"', 'preset = "dp"')
    text = text.replace(
        "[session.terms]",
        f'[session.terms]\nbatch_size = {batch_size}\nprivacy = {{ scope = "per_step", epsilon = 8.0 }}',
    )
    found = joined(text.replace("policy = { min_clients = 2 }", "policy = { min_clients = 2, min_samples = 1 }"))
    context = found.initiators[0][0]
    task = context.task
    charged = private_training(context.contract, context.own, [context.peer])
    assert charged is not None
    assert task.batch_size(len(task.own_pool.known) + labels) == drawn
    client = Client(context, found.port(in_process))
    with_labels(client, labels)
    client._contribute(1)
    if drawn:
        stream = task._trainer(client._labelled)._stream(1)
        assert stream._rate <= charged.sampling_rate
    assert_contributed(found, is_contributed=bool(drawn))


def test_a_client_without_a_pool_and_one_that_protects_too_much_are_refused() -> None:
    with pytest.raises(InvalidValue, match=r"data\.splits\.pool"):
        company(PLAIN.replace("splits = { pool = { share = 0.9, protected = 0.5 } }", "", 1))
    with pytest.raises(InvalidValue, match="more labels than there are"):
        company(PLAIN.replace("protected = 0.5", "protected = 0.9"))


def test_a_pool_without_labels_needs_people_which_a_simulation_has_not() -> None:
    unlabelled = PLAIN.replace("protected = 0.5", "protected = 0.5, labelled = false")
    with pytest.raises(InvalidValue, match="needs an operator"):
        simulate(parse_script(unlabelled))
