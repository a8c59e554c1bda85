"""Five clients train together; a server pays each in entries of the common gradient, by what it contributed."""

# %% Five clients with as many digits each. The first three have labelled some of theirs wrongly.
import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

import comity

digits = load_digits()
inputs = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
labels = torch.tensor(digits.target)
draw = torch.Generator().manual_seed(0)
order = torch.randperm(len(labels), generator=draw)
test, shares = order[:297], order[297:].chunk(5)

WRONG = (0.6, 0.4, 0.2, 0.0, 0.0)
clients: list[comity.Party] = []
for share, wrong in zip(shares, WRONG, strict=True):
    own = labels[share].clone()
    spoiled = torch.randperm(len(own), generator=draw)[: int(wrong * len(own))]
    own[spoiled] = (own[spoiled] + 1) % 10
    clients.append(
        comity.Party(
            model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10)),
            data=(inputs[share], own),
            test=(inputs[test], labels[test]),
            name=f"wrong-{wrong * 100:.0f}" if wrong else f"right-{len(clients)}",
        )
    )

# %% All of them ask one server, which is made where no party has its role. It trains on nothing.
result = comity.simulate(
    "gradient_rewards",
    clients,
    {"clients": 5, "min_clients": 5, "learning_rate": 0.15, "epochs": 1, "length": 0.25, "alpha": 0.8},
    rounds=15,
)
print(result)

# %% A row for each round and client: contribution, importance, and the share of the aggregate that it got.
print(result.per_party[-5:])
for name, model in result.models.items():
    with torch.no_grad():
        accuracy = (model(inputs[test]).argmax(dim=1) == labels[test]).float().mean()
    print(f"{name:>10}: {accuracy:.1%}")

# %% A plot of what each client is paid.
for name in result.models:
    rows = [row for row in result.per_party if row["party"] == name]
    plt.plot([row["round"] for row in rows], [row["fraction"] for row in rows], label=name)
plt.xlabel("round")
plt.ylabel("share of the aggregate")
plt.legend()
plt.savefig("rewards.png")
print("plotted to rewards.png")
