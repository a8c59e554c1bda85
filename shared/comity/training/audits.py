"""What the models and changes that a classifier's training sent say of its samples."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, grad

from comity.contract import Json
from comity.data import Dataset, Splits
from comity.data.dataset import CLASSIFICATION
from comity.errors import InvalidValue
from comity.privacy.audits import confidence, correlation, directions, likelihood, separation, shown, unmixed
from comity.randomness import derive, generator
from comity.tensors import State
from comity.training.supervised import Supervised
from comity.training.terms import OptimizerSpec

SHADOWS = 8
"""Models that LiRA compares with; each sample is left out by half of them."""
MOST_ITERATIONS = 2000
"""Iterations of a shadow model at most."""
_INVERTED = 8
_INVERSION_STEPS = 300


def membership(
    models: Sequence[State],
    splits: Splits,
    task: Callable[[Splits], Supervised],
    spec: OptimizerSpec,
    iterations: int,
) -> dict[str, Json]:
    """How well members are told from others by models that were sent.

    Args:
        models: The models, oldest first.
        splits: The party's samples: members, and, to compare with, its test samples.
        task: Builds a task of the session's model with other samples.
        spec: The optimiser of the shadow models.
        iterations: How long they train.

    Raises:
        InvalidValue: There is nothing to compare, or no model.
    """
    members, everything = together(splits, len(models))
    judge = task(Splits(everything, None))

    def shadow(half: Int[Tensor, " half"], number: int) -> Tensor:
        learner = task(Splits(everything.select(half), None))
        state = learner.initial_state
        for snapshot in learner.trajectory(
            learner.initial_state, spec, iterations=iterations + 1, period=iterations, round=number + 1
        ):
            state = {name: tensor.clone() for name, tensor in snapshot.state.items()}
        return judge.losses(state).cpu()

    # LiRA goes by the probability of a sample's class, which is exp(-loss) of classes alone.
    is_of_classes = splits.train.task == CLASSIFICATION
    losses = torch.stack([judge.losses(state).cpu() for state in models])
    return told_apart(losses, members, shadow if is_of_classes else None)


def together(splits: Splits, models: int) -> tuple[int, Dataset]:
    """Members, and after them the test samples that they are told from.

    Args:
        splits: The party's samples.
        models: How many models were sent and kept.

    Returns:
        How many members there are, and all samples.

    Raises:
        InvalidValue: There is nothing to compare, or no model.
    """
    if splits.test is None or not len(splits.test) or not len(splits.train) or not models:
        raise InvalidValue(
            "membership compares members with samples that were not trained on",
            expected="test samples of this node, and models that were sent and kept",
            received=f"{len(splits.test or ())} and {models}",
            action="give [data] test samples; set [audit] keep = true before a session",
        )
    return len(splits.train), splits.train.concat(splits.test)


def told_apart(
    losses: Float[Tensor, "models samples"],
    members: int,
    shadow: Callable[[Int[Tensor, " half"], int], Float[Tensor, " samples"]] | None = None,
) -> dict[str, Json]:
    """How well members are told from others by losses.

    Args:
        losses: Of each model that was sent, oldest first, on members and then on others.
        members: How many of the samples are members.
        shadow: Trains a model on some of the samples, and says its losses on all of them; None to do without LiRA.
    """
    everything = losses.shape[1]
    by_model = [separation(-each[:members], -each[members:]) for each in losses]
    best = max(by_model, key=lambda each: each.auc)
    mean = -losses.double().mean(dim=0)
    over = separation(mean[:members], mean[members:])
    found: dict[str, Json] = {
        "models": len(losses),
        "members": members,
        "others": everything - members,
        "loss_auc": by_model[-1].auc,
        "loss_tpr_at_1_percent": by_model[-1].tpr,
        "best_model_auc": best.auc,
        "best_model_tpr_at_1_percent": best.tpr,
        "all_models_auc": over.auc,
        "all_models_tpr_at_1_percent": over.tpr,
    }
    if shadow is None:
        return found
    without = torch.zeros(SHADOWS, everything, dtype=torch.bool)
    scores = []
    for number in range(SHADOWS):
        # Each sample is left out by half of them, two by two.
        order = torch.randperm(everything, generator=generator(derive(0, "shadow models", number // 2)))
        half = order[: len(order) // 2] if number % 2 else order[len(order) // 2 :]
        without[number] = True
        without[number, half] = False
        scores.append(confidence(shadow(half, number)))
    last = likelihood(confidence(losses[-1]), torch.stack(scores), without)
    lira = separation(last[:members], last[members:])
    return found | {"lira_auc": lira.auc, "lira_tpr_at_1_percent": lira.tpr, "shadow_models": SHADOWS}


def rows_shown(changes: Sequence[Tensor], samples: Float[Tensor, "samples inputs"]) -> dict[str, Json]:
    """What changes of a layer's rows, and differences of successive ones, show of the layer's inputs.

    Args:
        changes: The layer's weight in each change, oldest first.
        samples: Its inputs.
    """
    rows, found = [each.cpu() for each in changes], dict[str, Json]()
    successive = [after - before for before, after in pairwise(rows)]
    for name, those in (("", rows), ("successive_", successive)):
        each_shows = [_shown(one, samples) for one in those]
        found |= {
            f"{name}changes_that_show_a_sample": sum(bool(each) for each in each_shows),
            f"{name}samples_shown": sum(map(len, each_shows)),
            f"{name}distinct_samples_shown": len(set().union(*each_shows)) if each_shows else 0,
        }
    found["unmixed_samples_shown"] = len(set().union(*(shown(unmixed(each), samples).tolist() for each in rows)))
    return found


def reconstruction(changes: Sequence[State], data: Dataset, model: nn.Module, initial: State) -> dict[str, Json]:
    """What changes that were sent show of samples.

    Args:
        changes: Differences of neighbouring models, or updates, oldest first.
        data: The samples that stand behind them.
        model: The model.
        initial: The weights that cross, when the session began.
    """
    samples = data.all_inputs.flatten(start_dim=1)
    layer = _first_layer(model, samples.shape[1], changes[0] if changes else {})
    found: dict[str, Json] = {"changes": len(changes), "samples": len(samples), "first_layer": layer}
    if layer is not None:
        found |= rows_shown([each[f"{layer}.weight"] for each in changes], samples)
    if data.task != CLASSIFICATION:
        # Label counts, and inputs that are guessed with their labels, are of samples that have one class each.
        return found
    counts = torch.bincount(data.labels, minlength=data.classes).double()
    bias = [name for name, tensor in (changes[0] if changes else {}).items() if tensor.shape == (data.classes,)]
    if bias:
        # A class that is behind more samples than the model expects pulls its own bias up.
        found["label_counts_correlation"] = correlation(changes[0][bias[-1]].cpu().double(), counts)
    if changes:
        found["inverted"] = _INVERTED
        found["inverted_that_show_a_sample"] = len(shown(_inverted(changes[0], data, model, initial), samples))
    return found


def _first_layer(model: nn.Module, inputs: int, change: State) -> str | None:
    """The first linear layer that has the inputs themselves, and is trained; None where there is none."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            return None
        if isinstance(module, nn.Linear):
            if module.in_features != inputs:
                return None
            if f"{name}.weight" in change:
                return str(name)
            # Beside a layer that is not trained there may be an adapter that is.
    return None


def _shown(rows: Float[Tensor, "rows inputs"], samples: Tensor) -> set[int]:
    return set().union(*(shown(each, samples).tolist() for each in directions(rows)))


def _inverted(change: State, data: Dataset, model: nn.Module, initial: State) -> Float[Tensor, "few inputs"]:
    """Inputs whose gradient at the first model points where the change does (Geiping et al. 2020), found by Adam."""
    parameters = {name: initial[name].cpu() for name, _ in model.named_parameters() if name in change}
    # What is not trained is as the model has it.
    wanted = -torch.cat([change[name].cpu().flatten() for name in parameters])
    model = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    draws = generator(derive(0, "inversion"))
    inputs = torch.randn(_INVERTED, *data.inputs.shape[1:], generator=draws).requires_grad_()
    logits = torch.zeros(_INVERTED, data.classes).requires_grad_()

    def loss(weights: dict[str, Tensor], given: Tensor, targets: Tensor) -> Tensor:
        made: Tensor = functional_call(model, weights, (given,)).log_softmax(dim=1)
        entropy: Tensor = -(targets.softmax(dim=1) * made).sum(dim=1).mean()
        return entropy

    optimizer = torch.optim.Adam([inputs, logits], lr=0.05)
    for _ in range(_INVERSION_STEPS):
        optimizer.zero_grad()
        made = grad(loss)(parameters, inputs, logits)
        flat = torch.cat([made[name].flatten() for name in parameters])
        torch.nn.functional.cosine_similarity(flat, wanted, dim=0).neg().backward()
        optimizer.step()
    return inputs.detach().flatten(start_dim=1)
