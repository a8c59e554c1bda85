"""The papers' algorithms on your own tensors: no parties, no contract, no network."""

# %% Every protocol's algorithms are attributes under its name; `comity.protocol_names()` lists the protocols.
import torch

import comity
from comity.protocols import assisted_learning, gradient_rewards

print(comity.protocol_names())

# %% Screening (Chen et al. 2023): of a trajectory of checkpoints, the one of least global loss, without evaluating all.
# What a sender says of its checkpoints is a loss each; what the receiver evaluates are losses of its own samples.
draw = torch.Generator().manual_seed(0)
samples = 2000
quality = torch.tensor([2.0, 1.4, 0.9, 0.5, 0.45, 0.6, 1.1, 3.0])
losses = torch.rand(len(quality), samples, generator=draw) * quality[:, None]


def evaluate(checkpoint: int, where: torch.Tensor) -> torch.Tensor:
    """Losses of one checkpoint on some samples: in your code, a forward pass."""
    return losses[checkpoint, where]


screening = assisted_learning.Screening(evaluate, losses[0].double(), block=100, objective="mean")
for index, sent in enumerate([1.0, 0.8, 0.5, 0.3, 0.25, 0.3, 0.7, 2.0]):
    screening.add(index, assisted_learning.Loss(sum=sent * 500, count=500))
chosen = screening.select()
print(f"checkpoint {chosen.index}, global loss {chosen.total:.3f}, {chosen.work:.0%} of the forward passes")

# %% The same choice, had all been evaluated.
totals = [
    float(own.double().mean()) + sent for own, sent in zip(losses, [1, 0.8, 0.5, 0.3, 0.25, 0.3, 0.7, 2], strict=True)
]
print("by a full evaluation:", assisted_learning.argmin(totals))

# %% Rewards (Xu et al. 2021): contributions of five clients' updates, of which one is noise.
direction = torch.randn(1000, generator=draw)
noise = torch.tensor([0.5, 0.5, 1.0, 2.0, 20.0])
updates = direction + noise[:, None] * torch.randn(5, 1000, generator=draw)
updates = gradient_rewards.normalize_update(updates, length=0.5)
products = gradient_rewards.gram(updates)
print("cosine, eq. (3):      ", gradient_rewards.cosine_contribution(products))
print("exact Shapley, eq. (2):", gradient_rewards.cosine_gradient_shapley(products))

# %% Rounds: importance is a moving average, and pays for shares of the aggregate's largest entries.
state = gradient_rewards.ServerState.first([100] * 5)
mechanism = gradient_rewards.Mechanism(alpha=0.5, beta=2.0)
for number in range(1, 4):
    result = gradient_rewards.aggregate_round(updates, state, mechanism)
    state = result.state
    paid = [len(reward.values) for reward in result.rewards]
    print(f"round {number}: importance {[round(float(each), 3) for each in state.importance]}, entries paid {paid}")

# %% What a client gets is sparse, and never more than it earned.
print(result.rewards[4].dense().count_nonzero(), "of", len(direction), "entries for the noisy client")
