"""The policy of the reinforcement-learning experiments of Chen et al. 2023 (section 4.3)."""

from __future__ import annotations

from torch import nn

from comity.models.mlp import mlp


def policy_mlp(input_shape: tuple[int, ...], classes: int, *, hidden: int = 4, hidden_layers: int = 1) -> nn.Module:
    """A policy's scores: `[batch, *input_shape]` to `[batch, actions]`; a softmax over them gives the probabilities.

    The paper's "three-layer feed-forward neural network with 4 and 32 hidden neurons" (for CartPole and LunarLander) is
    read as a layer of inputs, one of hidden units and one of outputs.

    Args:
        input_shape: Shape of an observation.
        classes: Number of actions.
        hidden: Width of each hidden layer, 1 to 8192.
        hidden_layers: How many hidden layers, 0 to 16; 2 is the paper's text with three layers of weights.

    Raises:
        InvalidValue: An option is out of its range.
    """
    return mlp(input_shape, classes, hidden=hidden, hidden_layers=hidden_layers)
