"""Gradient rewards as a strategy of Flower's server: clients are paid in gradients, and each has a model of its own.

    from comity.integrations.flower import GradientRewards as FedAvg

Flower comes with the extra `flower`. Client apps stay what they are: what each is sent to train and to evaluate is its own
model, which the server keeps. There is no session here, and none of what protects one: `docs/flower.md`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterable
from typing import Any, Literal

import torch

from comity.errors import ComityError, InvalidValue, MalformedMessage, MissingFile
from comity.protocols.gradient_rewards.choices import Mechanism
from comity.protocols.gradient_rewards.history import AWAY_AFTER
from comity.protocols.gradient_rewards.kept_models import KeptModels, Paid
from comity.tensors import State

try:
    from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
    from flwr.serverapp import Grid
    from flwr.serverapp.strategy import FedAvg
except ImportError as error:
    raise MissingFile(
        "Flower is not installed",
        expected="the extra flower",
        received="none",
        action="pip install 'comity[flower]'",
    ) from error

_log = logging.getLogger("flwr")
"""Flower's own: what clients contributed and got stands among what it says of the round."""

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""What PyTorch's normalization layers call their buffers: an ArrayRecord does not say which of its arrays are trained."""


class GradientRewards(FedAvg):  # type: ignore[misc]
    """Xu et al. 2021 in place of FedAvg: whoever contributes more gets more of each round's aggregate.

    A round goes as FedAvg's does, but that every client is sent its own model. What it changed is brought to the length
    Γ and valued, and what it is paid is added to the model that it was sent. What `start` returns, and what is evaluated
    at the server, is the server's model, which gets the whole of every aggregate and is sent to nobody.

    Args:
        mechanism: How contributions turn into rewards; the paper's where left out.
        length: Γ, length of a normalized update, above 0: no model moves further in a round.
        free_riders: Say where a client seems to have nothing of its own (`warn`), or also count copies as one client
            together, and one with nothing as nothing (`weigh_as_one`).
        parameters: Names of the arrays that are trained. All of floating-point numbers where left out, but the statistics
            of PyTorch's normalization layers. What is not trained stays each client's own.
        min_train_nodes: Fewest clients to train, as in FedAvg, and fewest replies that a round is settled with. Of two,
            each can compute the other's update from the whole aggregate, and if they weigh the same both are paid
            the same, whatever they send; that is said.
        seed: Key of the draws of sampled contributions.
        **averaging: FedAvg's other options.

    Attributes:
        paid: What every round came to, by client, in the order of rounds; nothing for one that was not settled.

    Raises:
        InvalidValue: An option is out of range.
    """

    def __init__(
        self,
        *,
        mechanism: Mechanism | None = None,
        length: float = 0.5,
        free_riders: Literal["warn", "weigh_as_one"] = "warn",
        parameters: Collection[str] | None = None,
        min_train_nodes: int = 2,
        seed: int = 0,
        **averaging: Any,
    ) -> None:
        if free_riders not in {"warn", "weigh_as_one"}:
            raise InvalidValue("free_riders", expected="'warn' or 'weigh_as_one'", received=repr(free_riders))
        if not 0 < length < math.inf:
            raise InvalidValue("The length of an update", expected="a finite number above 0", received=length)
        super().__init__(min_train_nodes=min_train_nodes, **averaging)
        self.paid: list[dict[int, Paid]] = []
        self._mechanism = Mechanism() if mechanism is None else mechanism
        self._length = length
        self._free_riders = free_riders
        self._parameters = parameters
        self._seed = seed
        self._kept: KeptModels | None = None
        self._connected: set[int] = set()
        self._asked: set[int] = set()
        self._missed: dict[int, int] = {}

    def summary(self) -> None:
        """Says how the strategy is set up."""
        super().summary()
        said = self._mechanism
        _log.info("\t└──> Gradient rewards:")
        _log.info("\t\t├── Contribution: %s | moving average: %.2f", said.valuation, said.alpha)
        _log.info("\t\t├── Altruism: %g | length of an update: %g", said.beta, self._length)
        _log.info("\t\t└── Free riders: %s", self._free_riders)
        if self.min_train_nodes < 3:
            _log.warning(
                "Of two clients each can compute the other's update, and two that weigh the same are paid the same, "
                "whatever they send: min_train_nodes=3 rules that out."
            )
        if self.fraction_evaluate < 1:
            _log.warning("Not every client evaluates: who does not after the last round never gets its last reward.")

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Asks clients to train, each its own model."""
        if server_round == 1 or self._kept is None:
            self._begin(arrays)
        messages = self._to_each_its_own(super().configure_train(server_round, arrays, config, grid))
        self._connected = {*grid.get_node_ids()}
        self._asked = {message.metadata.dst_node_id for message in messages}
        return messages

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Asks clients to evaluate, each its own model."""
        if self._kept is None:
            self._begin(arrays)
        return self._to_each_its_own(super().configure_evaluate(server_round, arrays, config, grid))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Values what the clients trained, and pays them; gives the server's model."""
        kept = self._models
        taken = [reply for reply in replies if self._is_taken(reply)]
        here = {reply.metadata.src_node_id for reply in taken}
        _log.info("aggregate_train: Received %s results and %s failures", len(here), len(self._asked - here))
        for client in self._asked:
            self._missed[client] = 0 if client in here else self._missed.get(client, 0) + 1
        if len(here) < max(self.min_train_nodes, 1):
            _log.warning("The round is not settled: fewer than %d clients trained.", self.min_train_nodes)
            kept.forget()
            self.paid.append({})
            return None, None
        known = kept.importance()
        failing = {client for client, missed in self._missed.items() if missed >= AWAY_AFTER}
        paid = kept.settle(({*known} - self._connected) | failing)
        self.paid.append(paid)
        self._say(server_round, paid)
        metrics = self.train_metrics_aggr_fn([reply.content for reply in taken], self.weighted_by_key)
        clients = sorted(paid)
        # In the order of node ids, which have no place among metrics; `paid` has them.
        for name in ("contribution", "importance", "fraction"):
            metrics[name] = [getattr(paid[client], name) for client in clients]
        return _to_arrays(kept.server_model), metrics

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Says what each client's own model comes to, and gives the mean."""
        replies = list(replies)
        importance = self._models.importance()
        for reply in sorted(replies, key=lambda reply: reply.metadata.src_node_id):
            client = reply.metadata.src_node_id
            if not reply.has_error() and client in importance:
                metrics = {key: value for each in reply.content.metric_records.values() for key, value in each.items()}
                _log.info("\t│ %20d  r %.4f  %s", client, importance[client], metrics)
        return super().aggregate_evaluate(server_round, replies)

    def arrays_of(self, client: int) -> ArrayRecord:
        """A client's own model.

        Args:
            client: Its node's id.
        """
        return _to_arrays(self._models.model_of(client))

    @property
    def _models(self) -> KeptModels:
        if self._kept is None:
            raise InvalidValue(
                "Gradient rewards", expected="rounds", received="none", action="start the strategy before"
            )
        return self._kept

    def _begin(self, arrays: ArrayRecord) -> None:
        initial = _from_arrays(arrays)
        parameters = self._parameters
        if parameters is None:
            parameters = [
                name
                for name, tensor in initial.items()
                if tensor.is_floating_point() and name.rpartition(".")[2] not in _STATISTICS
            ]
        self._kept = KeptModels(
            initial,
            parameters,
            self._mechanism,
            length=self._length,
            weigh_as_one=self._free_riders == "weigh_as_one",
            seed=self._seed,
        )
        self.paid = []
        self._missed = {}

    def _to_each_its_own(self, messages: Iterable[Message]) -> list[Message]:
        own = list(messages)
        for message in own:
            # FedAvg's messages share one record.
            records = {**message.content, self.arrayrecord_key: self.arrays_of(message.metadata.dst_node_id)}
            message.content = RecordDict(records)
        return own

    def _is_taken(self, reply: Message) -> bool:
        """Whether a reply is a model that was trained; one that is not is no other client's loss."""
        client = reply.metadata.src_node_id
        if reply.has_error():
            _log.info("\t> Received error in reply from node %d: %s", client, reply.error.reason)
            return False
        try:
            if client not in self._asked:
                raise MalformedMessage("a reply", expected="a node that was asked to train", received="another")
            arrays, metrics = list(reply.content.array_records.values()), list(reply.content.metric_records.values())
            if len(arrays) != 1 or len(metrics) != 1:
                raise MalformedMessage(
                    "a reply",
                    expected="one ArrayRecord and one MetricRecord",
                    received=f"{len(arrays)}, {len(metrics)}",
                )
            samples = metrics[0].get(self.weighted_by_key)
            if not isinstance(samples, int | float):
                raise MalformedMessage(f"a reply's {self.weighted_by_key!r}", expected="a number", received=samples)
            self._models.take(client, _from_arrays(arrays[0]), samples)
        except (ComityError, ValueError, TypeError) as refused:
            _log.warning("\t> The reply from node %d is left out: %s", client, refused)
            return False
        return True

    def _say(self, server_round: int, paid: dict[int, Paid]) -> None:
        _log.info("\t├──> Gradient rewards of round %d:", server_round)
        _log.info("\t│ %20s  contribution  importance  share of the aggregate", "client")
        for client, each in sorted(paid.items()):
            found = f"  {', '.join(each.findings)}" if each.findings else ""
            _log.info(
                "\t│ %20d  %12.4f  %10.4f  %21.1f%%%s",
                client,
                each.contribution,
                each.importance,
                100 * each.fraction,
                found,
            )


def _from_arrays(arrays: ArrayRecord) -> State:
    return {name: torch.from_numpy(array.numpy().copy()) for name, array in arrays.items()}


def _to_arrays(state: State) -> ArrayRecord:
    return ArrayRecord({name: Array(tensor.numpy()) for name, tensor in state.items()})
