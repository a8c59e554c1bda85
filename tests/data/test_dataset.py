"""What a data set holds together, and how its stored values become a model's inputs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from comity import data
from comity.data import Dataset
from comity.errors import InvalidValue


@pytest.fixture
def images() -> Dataset:
    inputs = torch.arange(2 * 3 * 2 * 2, dtype=torch.uint8).reshape(2, 3, 2, 2) * 10
    return Dataset(inputs, torch.tensor([1, 0]), scale=1 / 255, classes=3)


def test_exports_are_exact_and_sorted() -> None:
    assert data.__all__ == sorted(data.__all__)
    assert all(hasattr(data, name) for name in data.__all__)


def test_sizes(images: Dataset) -> None:
    assert (len(images), images.input_shape) == (2, (3, 2, 2))


def test_select_keeps_the_order_asked_for_and_copies(images: Dataset) -> None:
    turned = images.select(torch.tensor([1, 0]))
    assert turned.labels.tolist() == [0, 1]
    assert torch.equal(turned.inputs[0], images.inputs[1])
    assert turned.inputs.data_ptr() != images.inputs.data_ptr()
    assert len(images.select(torch.tensor([], dtype=torch.int64))) == 0


def test_concat_pools(images: Dataset) -> None:
    pooled = images.concat(images.select(torch.tensor([1])))
    assert pooled.labels.tolist() == [1, 0, 0]
    assert (pooled.scale, pooled.classes, pooled.input_shape) == (images.scale, 3, (3, 2, 2))


def test_concat_refuses_another_kind(images: Dataset) -> None:
    for other in (
        replace(images, scale=1.0),
        replace(images, classes=4),
        replace(images, inputs=images.inputs.to(torch.float32)),
        replace(images, inputs=images.inputs[:, :1]),
    ):
        with pytest.raises(InvalidValue, match="pooled"):
            images.concat(other)


def test_to_moves_and_keeps_the_dtype(images: Dataset) -> None:
    moved = images.to("meta")
    assert (moved.inputs.device.type, moved.labels.device.type) == ("meta", "meta")
    assert moved.inputs.dtype == torch.uint8


def test_prepare_scales_and_then_normalizes(images: Dataset) -> None:
    scaled = images.prepare(images.inputs, (), ())
    assert scaled.dtype == torch.float32
    assert torch.equal(scaled, images.inputs.float() * (1 / 255))
    normalized = images.prepare(images.inputs, (0.1, 0.2, 0.3), (1.0, 2.0, 4.0))
    for channel, (mean, std) in enumerate(((0.1, 1.0), (0.2, 2.0), (0.3, 4.0))):
        torch.testing.assert_close(normalized[:, channel], (scaled[:, channel] - mean) / std)


def test_prepare_does_not_write_into_the_stored_inputs() -> None:
    table = Dataset(torch.ones(2, 3), torch.tensor([0, 0]), scale=1.0, classes=1)
    normalized = table.prepare(table.inputs, (1.0, 1.0, 0.0), (1.0, 1.0, 1.0))
    assert normalized.tolist() == [[0, 0, 1], [0, 0, 1]]
    assert torch.equal(table.inputs, torch.ones(2, 3))


@pytest.mark.parametrize(
    ("mean", "std"),
    [((0.0,), (1.0,)), ((0.0,) * 3, ()), ((), (1.0,) * 3), ((0.0,) * 3, (1.0, 0.0, 1.0)), ((0.0,) * 3, (1.0,) * 2)],
)
def test_prepare_refuses_what_does_not_fit(images: Dataset, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    with pytest.raises(InvalidValue, match="normalize"):
        images.prepare(images.inputs, mean, std)


@pytest.mark.parametrize(
    "wrong",
    [
        {"inputs": torch.zeros(2, 3, dtype=torch.float64)},
        {"inputs": torch.zeros(2)},
        {"inputs": torch.zeros(3, 3)},
        {"labels": torch.zeros(2)},
        {"labels": torch.zeros(2, 1, dtype=torch.int64)},
        {"scale": 0.0},
        {"scale": float("nan")},
        {"classes": 0},
    ],
)
def test_tensors_that_do_not_fit_are_refused(images: Dataset, wrong: dict[str, Tensor | float]) -> None:
    with pytest.raises(InvalidValue, match="data set"):
        replace(images, **wrong)  # type: ignore[arg-type]
