"""A learner with few, lopsided data is helped by a provider: your own module and tensors, in one process."""

# %% Data: what you have as tensors. Here, handwritten digits, of which the learner has few and mostly one.
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import comity

digits = load_digits()
inputs = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
labels = torch.tensor(digits.target)

order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
test, rest = order[:400], order[400:]
zeros = rest[labels[rest] == 0][:30]
others = rest[labels[rest] != 0]
of_learner = torch.cat([zeros, others[:20]])
of_provider = others[20:220]


# %% A model: any `nn.Module`. Every party builds its own, so hand over what makes it, not an instance.
class Net(nn.Module):
    """One hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))

    def forward(self, images: Tensor) -> Tensor:
        """`[batch, 1, 8, 8]` to `[batch, 10]`, scores without softmax."""
        scores: Tensor = self.layers(images)
        return scores


# %% The parties. The first asks; those after it help. Data are tensors, arrays, or a torch Dataset.
learner = comity.Party(
    model=Net, data=(inputs[of_learner], labels[of_learner]), test=(inputs[test], labels[test]), name="clinic"
)
provider = comity.Party(data=TensorDataset(inputs[of_provider], labels[of_provider]), name="hospital")

# %% The session: contract, gates and bytes are those of two daemons. `baselines` trains each party alone as well.
result = comity.simulate(
    "assisted_learning",
    [learner, provider],
    {"iterations": 400, "learning_rate": 0.001, "batch_size": 32, "sampling_period": 20, "objective": "mean"},
    rounds=6,
    baselines=True,
)
print(result)

# %% What each round came to: rows, arrays by column, or a data frame where pandas is installed.
print(result.rounds)
print("global loss never rises:", result.rounds["global_loss"])

# %% The model is an nn.Module, ready to use.
with torch.no_grad():
    accuracy = (result.model(inputs[test]).argmax(dim=1) == labels[test]).float().mean()
print(f"accuracy of the model in hand: {accuracy:.1%}")
print("kept in", result.save("assisted"))
