"""What the strategy sends, takes, pays and refuses, message by message; run where Flower is, by `test_flower.py`."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from comity.errors import InvalidValue
from comity.integrations.flower import GradientRewards

INITIAL = ArrayRecord(
    {
        "layer.weight": Array(np.zeros((4, 3), np.float32)),
        "norm.running_mean": Array(np.zeros(3, np.float32)),
        "norm.num_batches_tracked": Array(np.array(0)),
    }
)


class Nodes:
    """Those that are connected."""

    def __init__(self, *ids: int) -> None:
        self.ids = ids

    def get_node_ids(self) -> tuple[int, ...]:
        """Their ids."""
        return self.ids


class Heard(logging.Handler):
    """What Flower's log said."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps a line."""
        self.lines.append(record.getMessage())


# What every process of a run is told of itself.
TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 0
heard = Heard()
logging.getLogger("flwr").addHandler(heard)


def arrays(message: Message) -> dict[str, np.ndarray]:
    return {name: each.numpy().copy() for name, each in message.content["arrays"].items()}


def reply(message: Message, state: dict[str, np.ndarray], samples: object = 10) -> Message:
    content = RecordDict(
        {
            "arrays": ArrayRecord({name: Array(each) for name, each in state.items()}),
            "metrics": MetricRecord({"train_loss": 1.0, "num-examples": samples}),
        }
    )
    return Message(content=content, reply_to=message)


def trained(message: Message) -> Message:
    node, round = message.metadata.dst_node_id, message.content["config"]["server-round"]
    state = arrays(message)
    common, own = np.random.default_rng(round), np.random.default_rng([node, round])
    step = common.normal(size=(4, 3)) + (3 if node == 4 else 0.3) * own.normal(size=(4, 3))
    state["layer.weight"] += step.astype(np.float32)
    state["norm.running_mean"] += node
    state["norm.num_batches_tracked"] += 1
    return reply(message, state)


def round_of(
    strategy: GradientRewards,
    number: int,
    nodes: Nodes,
    answer: Callable[[Message], Message] = trained,
) -> tuple[ArrayRecord | None, dict[int, dict[str, np.ndarray]]]:
    asked = list(strategy.configure_train(number, INITIAL, ConfigRecord({"lr": 0.1}), nodes))
    sent = {each.metadata.dst_node_id: arrays(each) for each in asked}
    assert all(each.content["config"]["lr"] == 0.1 for each in asked)
    return strategy.aggregate_train(number, [answer(each) for each in asked])[0], sent


def test_each_client_is_sent_its_own_model_with_its_reward() -> None:
    strategy = GradientRewards(length=0.5)
    nodes = Nodes(1, 2, 3, 4)
    server, first = round_of(strategy, 1, nodes)
    assert all(not any(each.any() for each in state.values()) for state in first.values())
    paid = strategy.paid[0]
    assert min(paid, key=lambda client: paid[client].importance) == 4
    for messages in (
        strategy.configure_evaluate(1, server, ConfigRecord(), nodes),
        strategy.configure_train(2, server, ConfigRecord(), nodes),
    ):
        sent = {each.metadata.dst_node_id: arrays(each) for each in messages}
        assert sorted(sent) == [1, 2, 3, 4]
        for client, state in sent.items():
            moved = state["layer.weight"]
            assert np.count_nonzero(moved) == paid[client].kept == int(12 * paid[client].fraction)
            # The reward is the server's own step where it is anything.
            assert np.array_equal(moved[moved != 0], server["layer.weight"].numpy()[moved != 0])
            assert state["norm.running_mean"].tolist() == [client] * 3
            assert state["norm.num_batches_tracked"] == 1
    assert np.linalg.norm(server["layer.weight"].numpy()) <= 0.5 + 1e-6
    assert any("share of the aggregate" in line for line in heard.lines)


def of_metrics(message: Message, *, arrays: ArrayRecord | None = None) -> Message:
    content = RecordDict({"metrics": MetricRecord({"train_loss": 1.0, "num-examples": 3})})
    if arrays is not None:
        content["arrays"] = arrays
    return Message(content=content, reply_to=message)


def broken(message: Message) -> ArrayRecord:
    array = Array(dtype="float32", shape=(4, 3), stype="numpy.ndarray", data=b"no array")
    return ArrayRecord({**message.content["arrays"], "layer.weight": array})


WRONG: dict[int, Callable[[Message], Message]] = {
    5: lambda message: Message(Error(code=0, reason="no memory"), reply_to=message),
    6: lambda message: reply(message, arrays(message) | {"layer.weight": np.full((4, 3), np.nan, np.float32)}),
    7: lambda message: reply(message, arrays(message) | {"layer.weight": np.zeros((2, 2), np.float32)}),
    8: lambda message: reply(message, arrays(message)),
    9: lambda message: reply(message, {"other": np.ones(1)}),
    10: lambda message: reply(message, arrays(trained(message)), samples=-1),
    11: lambda message: reply(message, arrays(trained(message)), samples=[1, 2]),
    12: of_metrics,
    13: lambda message: of_metrics(message, arrays=broken(message)),
}


def test_what_is_no_trained_model_is_left_out_and_the_round_goes_on() -> None:
    strategy, begin = GradientRewards(), len(heard.lines)
    nodes = Nodes(*range(1, 5), *WRONG)
    server, _ = round_of(strategy, 1, nodes, lambda each: WRONG.get(each.metadata.dst_node_id, trained)(each))
    assert server is not None
    assert sorted(strategy.paid[0]) == [1, 2, 3, 4]
    said = "\n".join(heard.lines[begin:])
    assert "4 results and 9 failures" in said
    assert "no memory" in said
    assert [client for client in WRONG if f"node {client} is left out" in said] == [*range(6, 14)]


def test_a_round_of_too_few_changes_nothing() -> None:
    strategy = GradientRewards(min_train_nodes=3)
    server, _ = round_of(strategy, 1, Nodes(1, 2, 3))
    before = {client: strategy.arrays_of(client)["layer.weight"].numpy() for client in (1, 2, 3)}

    def answer(message: Message) -> Message:
        if message.metadata.dst_node_id == 3:
            return Message(Error(code=0, reason="away"), reply_to=message)
        return trained(message)

    assert round_of(strategy, 2, Nodes(1, 2, 3), answer)[0] is None
    assert strategy.paid[1] == {}
    for client, weight in before.items():
        assert np.array_equal(strategy.arrays_of(client)["layer.weight"].numpy(), weight)
    assert server is not None


def test_who_comes_later_begins_at_the_beginning_and_who_left_holds_nobody_down() -> None:
    strategy = GradientRewards()
    server, _ = round_of(strategy, 1, Nodes(1, 2, 4))
    round_of(strategy, 2, Nodes(1, 2, 4))
    # Node 1 comes again as 21, in the hope of the server's model.
    _, sent = round_of(strategy, 3, Nodes(2, 4, 21))
    assert not sent[21]["layer.weight"].any()
    assert sent[2]["layer.weight"].any()
    assert max(each.fraction for each in strategy.paid[2].values()) == 1
    assert server is not None


@pytest.mark.parametrize("wrong", [{"free_riders": "exclude"}, {"length": 0.0}, {"length": np.inf}])
def test_options_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidValue):
        GradientRewards(**wrong)


def test_there_are_no_models_before_the_first_round() -> None:
    with pytest.raises(InvalidValue, match="start the strategy"):
        GradientRewards().arrays_of(1)
