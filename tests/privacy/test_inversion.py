"""What features show of inputs, where it is known how much they do."""

from __future__ import annotations

import pytest
import torch

from comity.errors import InvalidValue
from comity.privacy.inversion import reconstruction
from comity.randomness import generator


@pytest.mark.parametrize("features", [8, 200], ids=["fewer than samples", "more than samples"])
def test_features_that_are_a_linear_image_show_everything(features: int) -> None:
    draw = generator(0)
    inputs = torch.rand(150, 1, 2, 4, generator=draw)
    seen = inputs.flatten(1) @ torch.randn(8, features, generator=draw)
    found = reconstruction(seen[:100], inputs[:100], seen[100:], inputs[100:])
    assert found["r2"] == pytest.approx(1, abs=1e-3)
    assert float(found["psnr_db"]) > 30  # type: ignore[arg-type]
    assert (found["known"], found["unseen"]) == (100, 50)


def test_features_that_have_nothing_to_do_with_inputs_show_nothing() -> None:
    draw = generator(1)
    inputs, seen = torch.rand(300, 6, generator=draw), torch.randn(300, 3, generator=draw)
    found = reconstruction(seen[:200], inputs[:200], seen[200:], inputs[200:])
    assert abs(float(found["r2"])) < 0.1  # type: ignore[arg-type]


def test_inputs_that_are_all_alike_have_no_variance_to_explain() -> None:
    found = reconstruction(torch.rand(40, 3), torch.ones(40, 2), torch.rand(5, 3), torch.ones(5, 2))
    assert (found["r2"], found["psnr_db"]) == (None, None)


def test_a_few_samples_are_too_few() -> None:
    with pytest.raises(InvalidValue, match="20 or more"):
        reconstruction(torch.rand(19, 3), torch.rand(19, 2), torch.rand(5, 3), torch.rand(5, 2))
