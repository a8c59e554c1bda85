"""Two auxiliary tasks beside a main one, of which one misleads: AuxiNash in TorchJD's autojac. Needs comity[torchjd]."""

# %% Few digits to learn from; beside their labels, whether they are odd, and labels that went through a permutation.
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torchjd.autojac import backward, jac_to_grad

from comity.protocols.nash_bargaining.aggregators import AuxiNash

digits = load_digits()
inputs = torch.tensor(digits.data, dtype=torch.float32) / 16
labels = torch.tensor(digits.target)
draw = torch.Generator().manual_seed(0)
order = torch.randperm(len(labels), generator=draw)
train, helpers, test = order[:80], order[80:480], order[-500:]
permuted = torch.tensor([3, 7, 0, 5, 9, 1, 8, 2, 6, 4])[labels]

# %% One trunk; the misleading task goes through the main task's head, parity has its own.
torch.manual_seed(0)
trunk = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
head, parity_head = nn.Linear(64, 10), nn.Linear(64, 2)
shared, own_head = [*trunk.parameters(), *head.parameters()], [*parity_head.parameters()]
optimizer = torch.optim.SGD([*shared, *own_head], lr=0.3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 500)
aggregator = AuxiNash(3, main_power=0.25, ridge=1e-2)


def batch(samples: torch.Tensor) -> torch.Tensor:
    """Some samples, drawn anew."""
    return samples[torch.randperm(len(samples), generator=draw)[:32]]


# %% The powers follow from what helps the main task on another batch.
for step in range(500):
    own, other, third = batch(train), batch(helpers), batch(helpers)
    features = trunk(inputs[torch.cat([own, other, third])])
    of_own, of_other, of_third = features.split(32)
    losses = [
        cross_entropy(head(of_own), labels[own]),
        cross_entropy(parity_head(of_other), labels[other] % 2),
        cross_entropy(head(of_third), permuted[third]),
    ]
    optimizer.zero_grad()
    for each, gradient in zip(own_head, torch.autograd.grad(losses[1], own_head, retain_graph=True), strict=True):
        each.grad = gradient
    backward(losses, inputs=shared)
    jac_to_grad(shared, aggregator)
    optimizer.step()
    schedule.step()
    if step % 5 == 4:
        again = batch(train)
        loss = cross_entropy(head(trunk(inputs[again])), labels[again])
        aggregator.update_powers(torch.cat([each.flatten() for each in torch.autograd.grad(loss, shared)]))

accuracy = (head(trunk(inputs[test])).argmax(1) == labels[test]).double().mean()
print(f"powers {[round(each, 3) for each in aggregator.powers.tolist()]}, test accuracy {accuracy:.3f}")
