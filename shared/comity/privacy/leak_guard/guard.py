"""The guard of what one party sends of one training: which rows leave, and what stands in for those that stay."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from comity.privacy.leak_guard.collecting import Collector
from comity.privacy.leak_guard.columns import Draws
from comity.privacy.leak_guard.rules import Rules
from comity.privacy.leak_guard.verdict import Verdict
from comity.tensors import State

_CARRIED = "carried."


@dataclass(frozen=True, slots=True)
class Released:
    """What leaves.

    Attributes:
        state: The tensors as they are sent; of a release that is refused, without any change.
        verdict: What was found.
    """

    state: dict[str, Tensor]
    verdict: Verdict


class LeakGuard:
    """Decides, release by release, which rows of a training's changes leave.

    It serves one trajectory, or, where a party sends updates round after round, one session, and all peers alike: each
    release is judged with what was released before. Everything that it knows between two releases is in `kept`.

    Args:
        collector: Observes the training.
        rules: The thresholds.
        means: The layers' mean inputs on own samples; of none, they count from zero.
        kept: What another guard kept, to go on from there.
        leaving: Names of the parameters that leave; None for all. A layer that stays, such as a head that is a party's own,
            is not judged: nobody sees its rows.
    """

    def __init__(
        self,
        collector: Collector,
        rules: Rules,
        means: Mapping[str, Tensor] | None = None,
        kept: Mapping[str, Tensor] | None = None,
        leaving: Collection[str] | None = None,
    ) -> None:
        self._collector = collector
        self._rules = rules
        layers = collector.layers(means or _means_in(kept or {}))
        self._layers = {
            name: layer
            for name, layer in layers.items()
            if leaving is None or not set(leaving).isdisjoint(layer.parameters)
        }
        self._blind: set[str] = set()
        self._carried: dict[str, Tensor] = {}
        for name, tensor in (kept or {}).items():
            if name.startswith(_CARRIED):
                self._carried[name.removeprefix(_CARRIED)] = tensor.clone()
        if kept:
            for name, layer in self._layers.items():
                layer.restore(_cut(kept, f"{name}/"))

    def batch(self, samples: Int[Tensor, " batch"]) -> AbstractContextManager[None]:
        """Collects from the training step of the body.

        Args:
            samples: Indices of the batch's samples, in its order.
        """
        return self._collector.batch(samples, self._layers, self._blind)

    def paused(self) -> AbstractContextManager[None]:
        """Passes over the backward passes of the body, of which nothing follows for the model."""
        return self._collector.paused()

    def release_model(self, model: State, sent: State) -> Released:
        """A checkpoint as it is sent: rows that stay are those of the model that was sent last.

        Args:
            model: The model as it is trained.
            sent: The model as it was sent last, or as the training began with it.
        """
        unseen = self._unseen(lambda name: name in model and not torch.equal(model[name], sent[name].to(model[name])))
        held, verdict = self._judge(unseen)
        state = dict(model)
        for name, rows in held.items():
            for each in self._named(name) & state.keys():
                state[each] = torch.where(_beside(rows, model[each]), sent[each].to(model[each]), model[each])
        return Released({each: sent[each] for each in model} if verdict.is_refused else state, verdict)

    def release_update(self, update: State) -> Released:
        """A difference as it is sent: rows that stay are 0, and join what is released of them next.

        Args:
            update: The difference that the training made, by parameter.
        """
        held, verdict = self._judge(self._unseen(lambda name: name in update and bool(update[name].any())))
        state = dict(update)
        done: set[str] = set()
        for name in self._layers:
            for each in sorted((self._named(name) & state.keys()) - done):
                done.add(each)
                whole = update[each] + self._carried[each] if each in self._carried else update[each]
                stays = _beside(held[name], whole) if name in held else torch.zeros_like(whole, dtype=torch.bool)
                state[each] = whole.masked_fill(stays, 0)
                self._carried[each] = whole.masked_fill(~stays, 0)
        if verdict.is_refused:
            state = {name: torch.zeros_like(tensor) for name, tensor in update.items()}
        return Released(state, verdict)

    def release_gradient(self, gradient: State) -> Released:
        """A gradient as it is sent: rows that stay are 0, and are never made up for.

        Args:
            gradient: The gradient, or the sum of several, by parameter.
        """
        unseen = self._unseen(lambda name: name in gradient and bool(gradient[name].any()))
        held, verdict = self._judge(unseen, dropped=True)
        state = dict(gradient)
        for name, rows in held.items():
            for each in self._named(name) & state.keys():
                state[each] = gradient[each].masked_fill(_beside(rows, gradient[each]), 0)
        if verdict.is_refused:
            state = {name: torch.zeros_like(tensor) for name, tensor in gradient.items()}
        return Released(state, verdict)

    def kept(self) -> dict[str, Tensor]:
        """What has to outlive the process, as a flat state dict; good between a release and the next step."""
        kept = {f"{name}/{key}": tensor for name, layer in self._layers.items() for key, tensor in layer.kept().items()}
        carried = {f"{_CARRIED}{name}": tensor for name, tensor in self._carried.items() if tensor.any()}
        return {name: tensor.contiguous() for name, tensor in (kept | carried).items()}

    def _unseen(self, has_changed: Callable[[str], bool]) -> set[str]:
        """Layers that changed though nobody saw how: their weights were used without calling them."""
        return {
            name for name, layer in self._layers.items() if not layer.moved and any(map(has_changed, layer.parameters))
        }

    def _tie(self, held: dict[str, Bool[Tensor, " rows"]]) -> None:
        """What one layer holds of a parameter that it has in common with others, all of them hold."""
        for name, layer in self._layers.items():
            for other, one in self._layers.items():
                same = {each for mine in layer.parameters for each in self._collector.tied.get(mine, ())}
                if other != name and other in held and same & set(one.parameters) and layer.rows == one.rows:
                    held[name] = held[name] | held[other] if name in held else held[other].clone()

    def _named(self, name: str) -> set[str]:
        """All names of the parameters of a layer."""
        own = self._layers[name].parameters
        return {*own, *(each for mine in own for each in self._collector.tied.get(mine, ()))}

    def _judge(self, unseen: set[str], *, dropped: bool = False) -> tuple[dict[str, Bool[Tensor, " rows"]], Verdict]:
        """The rows that stay, by layer, and the verdict; the others count as having left.

        Args:
            unseen: Layers that changed though nobody saw how.
            dropped: Whether what stays is lost.
        """
        held: dict[str, Bool[Tensor, " rows"]] = {}
        isolated, samples, draws = 0, 0, Draws()
        for name, layer in self._layers.items():
            found = layer.judge(self._rules, draws)
            isolated, samples = max(isolated, found.isolated), max(samples, found.samples)
            rows = torch.ones_like(found.held) if name in self._blind | unseen else found.held
            if rows.any():
                held[name] = rows
        self._tie(held)
        refused = isolated > self._rules.most_isolated
        for name, layer in self._layers.items():
            stays = torch.ones(layer.rows, dtype=torch.bool) if refused else held.get(name)
            layer.settle(torch.zeros(layer.rows, dtype=torch.bool) if stays is None else stays, dropped=dropped)
        self._blind.clear()
        rows_of_all = sum(layer.rows for layer in self._layers.values())
        counts = {name: int(rows.sum()) for name, rows in held.items()}
        return held, Verdict(samples, counts, rows_of_all, isolated, refused)


def _beside(rows: Bool[Tensor, " rows"], tensor: Tensor) -> Tensor:
    """A mask of rows in the shape of a parameter."""
    rows = rows.to(tensor.device)
    if rows.numel() == tensor.numel():
        return rows.view_as(tensor)
    return rows.view(-1, *[1] * (tensor.ndim - 1)).expand_as(tensor)


def _cut(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _means_in(kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The layers' mean inputs, of those that were judged before."""
    return {name.removesuffix("/mean"): tensor for name, tensor in kept.items() if name.endswith("/mean")}
