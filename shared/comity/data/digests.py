"""Digests of samples, by which a node knows whether its data are those that a session was agreed on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import torch
from blake3 import blake3
from torch import Tensor

from comity.data.dataset import Dataset, Splits
from comity.data.reading import ReadInputs


def digest(splits: Splits) -> str:
    """BLAKE3, hexadecimal, of all samples with their labels, ids and marks; it stays at the node."""
    hasher = blake3(max_threads=blake3.AUTO)
    for name, each in splits.items():
        hasher.update(f"split {name}\0".encode())
        _add(hasher, each)
    return hasher.hexdigest()


def _add(hasher: blake3, dataset: Dataset) -> None:
    for each in fields(dataset):
        value = getattr(dataset, each.name)
        tensors = value if isinstance(value, Mapping) else {"": value}
        if all(isinstance(tensor, Tensor) for tensor in tensors.values()):
            for name, tensor in tensors.items():
                hasher.update(f"{each.name} {name} {tensor.dtype} {list(tensor.shape)}\0".encode())
                hasher.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        elif isinstance(value, ReadInputs):
            hasher.update(f"{each.name} {value.dtype} {list(value.shape)} {value.stamp}\0".encode())
        elif each.name == "ids":
            hasher.update("\0".join(value).encode())
        else:
            hasher.update(f"{each.name} {value!r}\0".encode())
