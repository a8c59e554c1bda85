"""A module as trainings and evaluations use it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from comity.training.network import Network


def at(tensor: Tensor, offset: int) -> Tensor:
    """The tensor in a buffer of bytes, as a blob's are: so many bytes behind where torch would have put it."""
    buffer = torch.zeros(tensor.nbytes + 64, dtype=torch.uint8)
    copied = buffer[offset : offset + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
    return copied.copy_(tensor)


@pytest.mark.parametrize("inputs", [(1, 64), (16, 64), (256, 64)], ids=str)
@pytest.mark.parametrize("hidden", [1, 10, 33, 256])
def test_what_a_model_says_does_not_depend_on_where_its_weights_lie(inputs: tuple[int, ...], hidden: int) -> None:
    torch.manual_seed(0)
    network = Network(nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10)), torch.device("cpu"))
    batch = torch.randn(inputs)
    state = network.state()
    expected = network.evaluate(network.on_device(state), batch, seed=0)
    for offset in range(4, 64, 4):
        moved = network.on_device({name: at(each, offset) for name, each in state.items()})
        found = network.evaluate(moved, batch, seed=0)
        assert isinstance(found, Tensor)
        assert isinstance(expected, Tensor)
        assert torch.equal(found, expected)


def test_what_a_model_says_does_not_depend_on_the_order_of_its_matrices_in_memory() -> None:
    torch.manual_seed(0)
    network = Network(nn.Linear(64, 33), torch.device("cpu"))
    state = network.state()
    by_columns = {name: each.mT.contiguous().mT if each.ndim > 1 else each for name, each in state.items()}
    for count in (1, 16):
        batch = torch.randn(count, 64)
        found = [network.evaluate(network.on_device(each), batch, seed=0) for each in (state, by_columns)]
        assert all(isinstance(each, Tensor) for each in found)
        assert torch.equal(*found)  # type: ignore[arg-type]
