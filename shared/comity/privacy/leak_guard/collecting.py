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
        convolutions: The convolutions that are trained and could take an input at once: one that has a single position on
            it, since its kernel is about as large, is a fully connected layer, whose rows are samples.
        tied: For each parameter that has several names, all of them.
    """

    def __init__(self, model: nn.Module) -> None:
        functional = _used_as_functions(model)
        self.tied = _tied(model)
        self.linear: dict[str, nn.Linear] = {}
        self.embeddings: dict[str, nn.Embedding] = {}
        self.convolutions: dict[str, _ConvNd] = {}
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
            elif isinstance(module, _ConvNd) and module.weight.requires_grad and _may_cover(module):
                self.convolutions[name] = module
                module.register_forward_hook(partial(self._after_convolution, name))

    def layers(self, means: Mapping[str, Tensor]) -> dict[str, Layer]:
        """The layers' rows, with nothing contributed yet; of convolutions, those that had one position when `means` were found."""
        layers: dict[str, Layer] = {}
        for name, linear in self.linear.items():
            mean = means.get(name)
            if mean is None:
                mean = torch.zeros(linear.in_features, device=linear.weight.device)
            layers[name] = LinearRows(_parameters(name, linear), linear.out_features, mean)
        for name, convolution in self.convolutions.items():
            if name in means:
                layers[name] = LinearRows(_parameters(name, convolution), convolution.out_channels, means[name])
        for name, embedding in self.embeddings.items():
            layers[name] = EmbeddingRows(_parameters(name, embedding), embedding.num_embeddings)
        return layers

    def space(self, samples: int) -> int:
        """Most bytes of what a guard keeps of so many samples: a number for what is held and one for what was sent last."""
        rows = sum(layer.out_features for layer in self.linear.values())
        rows += sum(layer.out_channels for layer in self.convolutions.values())
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

    def _after_convolution(self, name: str, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        if output.ndim > 2 and output.shape[2:].numel() == 1:
            patch = _only_patch(self.convolutions[name], inputs[0].detach())
            self._after_linear(name, module, (patch,), output)

    def _linear_gradient(self, batch: _Batch, name: str, given: Tensor, gradient: Tensor) -> None:
        layer = batch.layers.get(name)
        if self._is_paused or not isinstance(layer, LinearRows):
            return
        if len(given) % len(batch.samples) or given.ndim < 2:
            batch.blind.add(name)
            return
        # Positions of a sample, whether they stand in a dimension of their own or beside each other.
        apart = (given - layer.mean).float().reshape(len(batch.samples), -1, given.shape[-1])
        layer.add(batch.samples, _contributed(apart, gradient.detach().float().reshape(*apart.shape[:2], -1)))

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


def _contributed(
    apart: Float[Tensor, "batch positions inputs"], gradient: Float[Tensor, "batch positions rows"]
) -> Float[Tensor, "batch rows"]:
    """How much each sample contributes to each row, with the sign of most of it.

    That is the length of the sum over its positions. The sum of the lengths would not do: of two positions with opposite
    gradients it is nothing, while the row moves by how they differ, as in the keys of an attention, whose gradients add up
    to 0 in every sample.
    """
    lengths = torch.linalg.vector_norm(apart, dim=-1, keepdim=True)
    along: Tensor
    if apart.shape[1] == 1:
        along = gradient[:, 0] * lengths[:, 0]
        return along
    along = (gradient * lengths).sum(1)
    if apart.shape[1] > apart.shape[2]:
        # More positions than inputs: the sums themselves are smaller than the products of positions.
        sums: Tensor = torch.linalg.vector_norm(torch.einsum("bpr,bpi->bri", gradient, apart), dim=-1)
    else:
        products = apart @ apart.transpose(1, 2)
        sums = ((products @ gradient) * gradient).sum(1).clamp_min(0).sqrt()
    return torch.copysign(sums, along)


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


def _may_cover(module: _ConvNd) -> bool:
    """Whether a row of a convolution takes all channels, of one place in the input."""
    return module.groups == 1 and not module.transposed


def _only_patch(convolution: _ConvNd, inputs: Float[Tensor, "batch channels ..."]) -> Float[Tensor, "batch inputs"]:
    """What a convolution sees of inputs that are so small, beside its kernel, that it has one position on them."""
    reach = [each * (size - 1) for each, size in zip(convolution.dilation, convolution.kernel_size, strict=True)]
    if isinstance(convolution.padding, str):
        same = convolution.padding == "same"
        pads = [(each // 2, each - each // 2) if same else (0, 0) for each in reach]
    else:
        pads = [(each, each) for each in convolution.padding]
    if any(map(any, pads)):
        mode = "constant" if convolution.padding_mode == "zeros" else convolution.padding_mode
        inputs = nn.functional.pad(inputs, [each for pair in reversed(pads) for each in pair], mode)
    for dimension, (far, step) in enumerate(zip(reach, convolution.dilation, strict=True), start=2):
        inputs = inputs[(slice(None),) * dimension + (slice(0, far + 1, step),)]
    return inputs.flatten(1)


def _parameters(name: str, module: nn.Module) -> tuple[str, ...]:
    prefix = f"{name}." if name else ""
    own = [each for each, parameter in module.named_parameters(recurse=False) if parameter.requires_grad]
    return tuple(prefix + each for each in own)


def _tied(model: nn.Module) -> dict[str, tuple[str, ...]]:
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {name: tuple(same) for same in names.values() if len(same) > 1 for name in same}
