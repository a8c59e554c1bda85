"""What each sample contributes to each row, from the training's own backward pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import is_parametrized

from comity.privacy.leak_guard.contributions import contributed
from comity.privacy.leak_guard.layers import EmbeddingRows, LinearRows
from comity.privacy.leak_guard.normalizing import Norm, elements, is_measured, moved_by, normalized
from comity.privacy.leak_guard.patches import few_positions, may_be_judged, patches

Layer = LinearRows | EmbeddingRows

_NUMBER, _PAIR = 4, 12
"""Bytes of a contribution, and of one to a row of an embedding."""
_FEW = 16
"""Inputs up to which no row shows a sample."""
_MANY = 16
"""Samples of which the mean input says what they have in common."""
_STATISTICS = "statistics"
"""What the judgement of a layer's measured inputs is called, beside that of its weights."""
_WORDS = 64
"""Different words that a sample is taken to have."""


class _Batch(NamedTuple):
    samples: Int[Tensor, " batch"]
    layers: Mapping[str, Layer]
    blind: set[str]
    calls: Counter[str]
    """How often each layer was called."""
    waiting: dict[str, list[tuple[Tensor, Tensor]]]
    """Inputs and output gradients of layers that were called several times, which count together."""


class Collector:
    """Observes a model's fully connected layers and embeddings while it is trained.

    Args:
        model: The model; its layers get hooks that do nothing outside of `batch` and `means`.

    Attributes:
        linear: The fully connected layers that are trained, by name.
        embeddings: The embeddings that are trained, by name.
        convolutions: The convolutions that are trained, of which those with few positions on their input are judged: since
            their kernels are about as large, their rows show samples as those of fully connected layers do.
        norms: The normalizing layers that are trained, or measure their inputs, by name.
        tied: For each parameter that has several names, all of them.
    """

    def __init__(self, model: nn.Module) -> None:
        functional = _used_as_functions(model)
        self.tied = _tied(model)
        self.linear: dict[str, nn.Linear] = {}
        self.embeddings: dict[str, nn.Embedding] = {}
        self.convolutions: dict[str, _ConvNd] = {}
        self.norms: dict[str, Norm] = {}
        self._batch: _Batch | None = None
        self._is_paused = False
        self._means: dict[str, list[Tensor]] | None = None
        for name, module in model.named_modules():
            if name in functional:
                continue
            if isinstance(module, Norm):
                if _parameters(name, module) or is_measured(module):
                    self.norms[name] = module
                    module.register_forward_hook(partial(self._after_norm, name))
            elif isinstance(module, nn.Linear) and _parameters(name, module):
                self.linear[name] = module
                module.register_forward_hook(partial(self._after_linear, name))
            elif isinstance(module, nn.Embedding) and module.weight.requires_grad:
                self.embeddings[name] = module
                module.register_forward_hook(partial(self._after_embedding, name))
            elif isinstance(module, _ConvNd) and module.weight.requires_grad and may_be_judged(module):
                self.convolutions[name] = module
                module.register_forward_hook(partial(self._after_convolution, name))

    def layers(self, means: Mapping[str, Tensor]) -> dict[str, Layer]:
        """The layers' rows, with nothing contributed yet; of convolutions, those that had few positions when `means` were found."""
        layers: dict[str, Layer] = {}
        for name, linear in self.linear.items():
            mean = means.get(name)
            if mean is None:
                mean = torch.zeros(linear.in_features, device=linear.weight.device)
            layers[name] = LinearRows(_parameters(name, linear), linear.out_features, mean)
        for name, convolution in self.convolutions.items():
            if name in means:
                layers[name] = LinearRows(_parameters(name, convolution), convolution.out_channels, means[name])
        for name, norm in self.norms.items():
            mean = torch.zeros(1)
            if parameters := _parameters(name, norm):
                layers[name] = LinearRows(parameters, elements(norm), mean, by_itself=True)
            if is_measured(norm):
                measured = tuple(_within(name, each) for each in ("running_mean", "running_var"))
                layers[_within(name, _STATISTICS)] = LinearRows(measured, elements(norm), mean, by_itself=True)
        for name, embedding in self.embeddings.items():
            layers[name] = EmbeddingRows(_parameters(name, embedding), embedding.num_embeddings)
        return layers

    def space(self, samples: int) -> int:
        """Most bytes of what a guard keeps of so many samples: a number for what is held and one for what was sent last."""
        rows = sum(layer.out_features for layer in self.linear.values())
        rows += sum(layer.out_channels for layer in self.convolutions.values())
        rows += sum(elements(layer) * (1 + is_measured(layer)) for layer in self.norms.values())
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
        self._batch = batch = _Batch(samples, layers, blind, Counter(), {})
        try:
            yield
        finally:
            self._batch = None
        for name, seen in batch.waiting.items():
            self._add(batch, name, torch.cat([given for given, _ in seen], 1), torch.cat([each for _, each in seen], 1))

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
            self._batch.calls[name] += 1
            output.register_hook(partial(self._linear_gradient, self._batch, name, given))

    def _after_convolution(self, name: str, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        if (self._means is not None or self._batch is not None) and few_positions(output):
            self._after_linear(name, module, (patches(self.convolutions[name], inputs[0].detach()),), output)

    def _after_norm(self, name: str, _: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        batch, norm = self._batch, self.norms[name]
        if batch is None or self._is_paused:
            return
        given, measured = inputs[0].detach().float(), batch.layers.get(_within(name, _STATISTICS))
        if len(given) != len(batch.samples):
            batch.blind.update({name, _within(name, _STATISTICS)} & batch.layers.keys())
            return
        if norm.training and isinstance(measured, LinearRows):
            measured.add(batch.samples, moved_by(norm, given))
        if output.requires_grad and isinstance(batch.layers.get(name), LinearRows):
            output.register_hook(partial(self._norm_gradient, batch, name, normalized(norm, given)))

    def _norm_gradient(self, batch: _Batch, name: str, apart: Tensor, gradient: Tensor) -> None:
        layer = batch.layers[name]
        if isinstance(layer, LinearRows) and not self._is_paused:
            layer.add(batch.samples, moved_by(self.norms[name], apart, gradient.detach().float()))

    def _linear_gradient(self, batch: _Batch, name: str, given: Tensor, gradient: Tensor) -> None:
        layer = batch.layers.get(name)
        if self._is_paused or not isinstance(layer, LinearRows):
            return
        if len(given) % len(batch.samples) or given.ndim < 2:
            batch.blind.add(name)
            return
        # Positions of a sample, whether they stand in a dimension of their own or beside each other.
        inputs = given.float().reshape(len(batch.samples), -1, given.shape[-1])
        found = gradient.detach().float()
        if name in self.convolutions:
            found = found.flatten(2).transpose(1, 2)
        found = found.reshape(*inputs.shape[:2], -1)
        if batch.calls[name] > 1:
            batch.waiting.setdefault(name, []).append((inputs, found))
        else:
            self._add(batch, name, inputs, found)

    def _add(
        self,
        batch: _Batch,
        name: str,
        inputs: Float[Tensor, "batch positions inputs"],
        gradient: Float[Tensor, "batch positions rows"],
    ) -> None:
        layer = batch.layers[name]
        if not isinstance(layer, LinearRows):
            return
        if name in self.linear and not self.linear[name].weight.requires_grad:
            # The bias alone is trained.
            layer.add(batch.samples, gradient.sum(1))
        else:
            # What a batch has in common can be subtracted; what it had at the beginning may be far from that by now.
            mean = inputs.mean((0, 1)) if len(inputs) >= _MANY else layer.mean
            groups = self.convolutions[name].groups if name in self.convolutions else 1
            layer.add(batch.samples, contributed(inputs - mean, gradient, groups))

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
        apart = gradient.detach().float().reshape(*rows.shape, -1)
        sizes = torch.linalg.vector_norm(apart, dim=-1, dtype=torch.float64).float()
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
        judged = isinstance(module, nn.Linear | nn.Embedding | Norm) and name not in functional
        # Convolutions are told of in general: how many positions they have is seen when they are used.
        told = isinstance(module, _ConvNd) and may_be_judged(module)
        if trained and not judged and not told:
            found[name or "the model itself"] = type(module).__name__
    return found


def _used_as_functions(model: nn.Module) -> set[str]:
    """Layers inside of attention, whose weights are used without calling them."""
    inside: set[str] = set()
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            inside |= {_within(name, inner) for inner, _ in module.named_modules() if inner}
    return inside


def _parameters(name: str, module: nn.Module) -> tuple[str, ...]:
    """The parameters of a layer that are trained, also where another gives its weight the form."""
    own = [each for each, parameter in module.named_parameters(recurse=False) if parameter.requires_grad]
    if isinstance(module, nn.Linear) and is_parametrized(module, "weight"):
        own += [
            each
            for each, parameter in module.named_parameters()
            if each.startswith("parametrizations.weight.original")
            and parameter.requires_grad
            and parameter.shape[:1] == (module.out_features,)
        ]
    return tuple(_within(name, each) for each in own)


def _within(name: str, inner: str) -> str:
    return f"{name}.{inner}" if name else inner


def _tied(model: nn.Module) -> dict[str, tuple[str, ...]]:
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {name: tuple(same) for same in names.values() if len(same) > 1 for name in same}
