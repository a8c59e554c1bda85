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
