"""What models other than small float32 ones ask of gradient rewards."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import comity
from comity.protocols.gradient_rewards.rewards import length_of, normalize_update

SHIFT = 5.0


def test_the_clients_statistics_are_kept() -> None:
    def normed() -> nn.Module:
        return nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))

    def samples(party: int) -> tuple[Tensor, Tensor]:
        draws = torch.Generator().manual_seed(party)
        labels = torch.arange(40) % 2
        inputs = torch.randn(40, 8, generator=draws) + SHIFT
        inputs[:, 0] += 6 * labels
        return inputs, labels

    parties = [
        comity.Party(model=normed, data=samples(place), test=samples(9), role="client", name=f"c{place}")
        for place in range(3)
    ]
    terms = {"clients": 3, "min_clients": 3, "learning_rate": 0.2, "batch_size": 8, "epochs": 4}
    server = comity.Party(model=normed, role="server", name="server")
    result = comity.simulate("gradient_rewards", [*parties, server], terms, rounds=6)
    means = {name: model.state_dict()["1.running_mean"] for name, model in result.models.items()}
    assert all(int(model.state_dict()["1.num_batches_tracked"]) == 6 * 4 * 5 for model in result.models.values())
    # Each keeps those of its own data, which nobody sends.
    assert len({tuple(mean.tolist()) for mean in means.values()}) == 3
    for model in result.models.values():
        first = model.get_submodule("0")
        with torch.no_grad():
            made = first(samples(0)[0]).mean(0)
        assert torch.allclose(model.state_dict()["1.running_mean"], made, atol=0.3 * float(made.abs().max()))
    assert min(result.metrics["score_together"]) > 0.8


def test_a_long_update_has_the_same_length_on_both_sides() -> None:
    update = normalize_update(torch.full((30_000_000,), 0.37), 0.1)
    assert abs(float(length_of(update)) - 0.1) < 1e-7
    # What a sum in float32 says of the same.
    assert update.dtype == torch.float32
