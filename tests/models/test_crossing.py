"""What of a module crosses."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from comity.errors import InvalidValue, TensorMismatch
from comity.models.crossing import Crossing, train
from comity.models.split import TrunkAndHeads, WithFeatures, end_before, feature_shape, layer_of
from comity.tensors import Layout


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.BatchNorm1d(6, affine=False), nn.ReLU())
        self.head = nn.Linear(6, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.head(self.trunk(inputs))
        return answer


def test_all_of_a_model_crosses_that_is_trained_as_a_whole() -> None:
    model = Net()
    assert Crossing.of(model) == Crossing(tuple(model.state_dict()))


def test_buffers_go_with_the_parameters_beside_or_around_them() -> None:
    model = Net()
    model.trunk.requires_grad_(False)
    crossing = Crossing.of(model)
    assert crossing.names == ("head.weight", "head.bias")
    assert set(crossing.names) | set(crossing.rest) == set(model.state_dict())
    model = Net()
    model.head.requires_grad_(False)
    assert "trunk.2.running_mean" in Crossing.of(model).names


def test_what_is_frozen_keeps_its_statistics() -> None:
    model = Net()
    model.trunk[1].requires_grad_(False)
    train(model)(torch.randn(8, 4) + 3)
    assert torch.equal(model.state_dict()["trunk.1.running_mean"], torch.zeros(6))
    assert not torch.equal(model.state_dict()["trunk.2.running_mean"], torch.zeros(6))


def test_other_tensors_than_the_models_are_not_loaded() -> None:
    model = Net()
    model.trunk.requires_grad_(False)
    with pytest.raises(TensorMismatch, match="expected 2, received"):
        Crossing.of(model).load(model, Net().state_dict())


def test_weights_that_are_not_finite_are_refused_and_masks_stay() -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    assert Crossing.of(model).rest == ("mask",)
    with torch.no_grad():
        model.bias[0] = torch.nan
    with pytest.raises(TensorMismatch, match="bias is not finite"):
        Crossing.of(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_a_digest_is_that_of_the_blob_without_making_it(dtype: torch.dtype) -> None:
    state = {"a": torch.ones(3, 2).to(dtype).T, "b": torch.tensor(1).to(dtype), "c": torch.empty(0, 3).to(dtype)}
    layout = Layout.of(state)
    assert layout.digest(state) == layout.pack(state).hex


def test_a_trunk_makes_the_features_that_its_head_goes_by() -> None:
    model = Net().eval()
    inputs = torch.randn(5, 4)
    answer, features = WithFeatures(model, "head")(inputs)
    assert torch.equal(answer, model(inputs))
    head = end_before(model, "head")
    assert torch.equal(model(inputs), features)
    assert torch.equal(head(features), answer)
    assert feature_shape(model, (4,)) == (6,)
    assert "head.weight" not in model.state_dict()
    both = TrunkAndHeads(model, {"seen": head, "other": nn.Linear(6, 2)})
    found = both(inputs)
    assert torch.equal(found["seen"], answer)
    assert found["other"].shape == (5, 2)


def test_a_layer_that_is_not_there_or_not_called_is_named() -> None:
    model = Net()
    with pytest.raises(InvalidValue, match=r"trunk, trunk\.0.*received 'hat'"):
        layer_of(model, "hat")
    model.spare = nn.Linear(1, 1)
    with pytest.raises(InvalidValue, match="layer spare has no features"):
        WithFeatures(model, "spare")(torch.randn(5, 4))
