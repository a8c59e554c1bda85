"""What each sample contributes to each row, from the training's own backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from comity.privacy.leak_guard.layers import EmbeddingRows, LinearRows

_INNOCENT = (_ConvNd, _NormBase, nn.LayerNorm, nn.GroupNorm)
"""Layers whose parameters mix all positions of all samples; they are not judged, and need not be named."""

Layer = LinearRows | EmbeddingRows

_NUMBER, _PAIR = 4, 12
"""Bytes of a contribution, and of one to a row of an embedding."""
_FEW = 16
"""Inputs up to which no row shows a sample."""
_WORDS = 64
"""Different words that a sample is taken to have."""


class _Batch(NamedTuple):
    samples: Int[Tensor, " batch"]
    layers: Mapping[str, Layer]
    blind: set[str]


class Collector:
    """Observes a model's fully connected layers and embeddings while it is trained.

    Args:
        model: The model; its layers get hooks that do nothing outside of `batch` and `means`.

    Attributes:
        linear: The fully connected layers that are trained, by name.
        embeddings: The embeddings that are trained, by name.
        tied: For each parameter that has several names, all of them.
    """

    def __init__(self, model: nn.Module) -> None:
        functional = _used_as_functions(model)
        self.tied = _tied(model)
        self.linear: dict[str, nn.Linear] = {}
        self.embeddings: dict[str, nn.Embedding] = {}
        self._batch: _Batch | None = None
        self._is_paused = False
        self._means: dict[str, list[Tensor]] | None = None
        for name, module in model.named_modules():
            if name in functional:
                continue
            if isinstance(module, nn.Linear) and module.weight.requires_grad:
                self.linear[name] = module
                module.register_forward_hook(partial(self._after_linear, name))
            elif isinstance(module, nn.Embedding) and module.weight.requires_grad:
                self.embeddings[name] = module
                module.register_forward_hook(partial(self._after_embedding, name))

    def layers(self, means: Mapping[str, Tensor]) -> dict[str, Layer]:
        """The layers' rows, with nothing contributed yet."""
        layers: dict[str, Layer] = {}
        for name, linear in self.linear.items():
            mean = means.get(name)
            if mean is None:
                mean = torch.zeros(linear.in_features, device=linear.weight.device)
            layers[name] = LinearRows(_parameters(name, linear), linear.out_features, mean)
        for name, embedding in self.embeddings.items():
            layers[name] = EmbeddingRows(_parameters(name, embedding), embedding.num_embeddings)
        return layers

    def space(self, samples: int) -> int:
        """Most bytes of what a guard keeps of so many samples: a number for what is held and one for what was sent last."""
        rows = sum(layer.out_features for layer in self.linear.values())
        # What was sent of each row may have left by itself, with an index of its samples; of embeddings, a pair for each
        # word of each sample.
        return samples * (4 * _NUMBER * rows + 4 * _NUMBER + _PAIR * _WORDS * len(self.embeddings))

    def means(self, forward: Callable[[], object]) -> dict[str, Float[Tensor, " inputs"]]:
        """The mean input of each fully connected layer in a forward pass."""
        self._means = {}
        try:
            with torch.no_grad():
                forward()
            return {name: torch.cat(inputs).mean(0) for name, inputs in self._means.items()}
        finally:
            self._means = None

    @contextmanager
    def batch(self, samples: Int[Tensor, " batch"], layers: Mapping[str, Layer], blind: set[str]) -> Iterator[None]:
        """Collects from the forward and backward passes of the body.

        Args:
            samples: Indices of the samples of the batch, in its order.
            layers: Who takes what they contribute.
            blind: Is told the layers of which it cannot be said which sample contributed what.
        """
        self._batch = _Batch(samples, layers, blind)
        try:
            yield
        finally:
            self._batch = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Passes over the backward passes of the body."""
        self._is_paused = True
        try:
            yield
        finally:
            self._is_paused = False

    def _after_linear(self, name: str, _: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        given = inputs[0].detach()
        if self._means is not None:
            self._means.setdefault(name, []).append(given.reshape(-1, given.shape[-1]).float())
        elif self._batch is not None and output.requires_grad:
            output.register_hook(partial(self._linear_gradient, self._batch, name, given))

    def _linear_gradient(self, batch: _Batch, name: str, given: Tensor, gradient: Tensor) -> None:
        layer = batch.layers.get(name)
        if self._is_paused or not isinstance(layer, LinearRows):
            return
        if len(given) % len(batch.samples) or given.ndim < 2:
            batch.blind.add(name)
            return
        lengths = (given - layer.mean).norm(dim=-1, keepdim=True)
        moved = (gradient.detach() * lengths).float()
        # Positions of a sample add up, whether they stand in a dimension of their own or beside each other.
        moved = moved.reshape(len(batch.samples), -1, moved.shape[-1])
        layer.add(batch.samples, moved[:, 0] if moved.shape[1] == 1 else moved.sum(1))

    def _after_embedding(self, name: str, _: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        if self._batch is not None and output.requires_grad:
            output.register_hook(partial(self._embedding_gradient, self._batch, name, inputs[0].detach()))

    def _embedding_gradient(self, batch: _Batch, name: str, given: Tensor, gradient: Tensor) -> None:
        layer, embedding = batch.layers.get(name), self.embeddings[name]
        if self._is_paused or not isinstance(layer, EmbeddingRows):
            return
        if len(given) % len(batch.samples):
            batch.blind.add(name)
            return
        rows = given.reshape(len(batch.samples), -1)
        samples = batch.samples.unsqueeze(1).expand_as(rows)
        sizes = gradient.detach().float().reshape(*rows.shape, -1).norm(dim=-1)
        padding = embedding.padding_idx
        real = torch.ones_like(rows, dtype=torch.bool) if padding is None else rows != padding
        layer.add(samples[real], rows[real], sizes[real])


def widest(model: nn.Module) -> int:
    """Outputs of the widest fully connected layer that is trained and has more inputs than a few; 0 where there is none."""
    return max(
        (
            module.out_features
            for module in model.modules()
            if isinstance(module, nn.Linear) and module.weight.requires_grad and module.in_features > _FEW
        ),
        default=0,
    )


def unjudged(model: nn.Module) -> dict[str, str]:
    """Layers with parameters that are trained and not judged, by name, with their kind: to be told whoever relies on it."""
    functional = _used_as_functions(model)
    found: dict[str, str] = {}
    for name, module in model.named_modules():
        trained = any(parameter.requires_grad for parameter in module.parameters(recurse=False))
        judged = isinstance(module, nn.Linear | nn.Embedding) and name not in functional
        if trained and not judged and not isinstance(module, _INNOCENT):
            found[name or "the model itself"] = type(module).__name__
    return found


def _used_as_functions(model: nn.Module) -> set[str]:
    """Layers inside of attention, whose weights are used without calling them."""
    inside: set[str] = set()
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            inside |= {f"{name}.{inner}" if name else inner for inner, _ in module.named_modules() if inner}
    return inside


def _parameters(name: str, module: nn.Linear | nn.Embedding) -> tuple[str, ...]:
    prefix = f"{name}." if name else ""
    own = [each for each, parameter in module.named_parameters(recurse=False) if parameter.requires_grad]
    return tuple(prefix + each for each in own)


def _tied(model: nn.Module) -> dict[str, tuple[str, ...]]:
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {name: tuple(same) for same in names.values() if len(same) > 1 for name in same}
