"""A party's local task, of what was agreed and what it has."""

from __future__ import annotations

from torch import nn

from comity.contract import TaskSpec
from comity.data import Splits, no_samples
from comity.privacy import Mechanism
from comity.privacy.leak_guard import Rules
from comity.tasks import objective_of, task_kind
from comity.training.device import choose_device
from comity.training.samples import Secret
from comity.training.settings import TrainingSettings
from comity.training.supervised import Supervised
from comity.training.terms import Sampling, TrainingTerms


def supervised(  # noqa: PLR0913
    model: nn.Module,
    splits: Splits | None,
    task: TaskSpec,
    terms: TrainingTerms,
    *,
    secret: Secret,
    device: str,
    mechanism: Mechanism | None,
    rules: Rules | None = None,
    sampling: Sampling = "uniform",
    is_judged_on_validation: bool = False,
    training: TrainingSettings | None = None,
) -> Supervised:
    """A task of samples.

    Args:
        model: The contract's model.
        splits: The party's samples; None for a party without.
        task: What the model is for.
        terms: How it is trained.
        secret: The party's randomness in the session.
        device: Where to compute: `auto`, `cpu`, `cuda` …
        mechanism: The noise of the training; None for none.
        rules: By which a leak guard decides what of the training is sent; None for no guard.
        sampling: How batches are drawn.
        is_judged_on_validation: Whether losses are over the samples that are held out, where there are any.
        training: How steps are made.
    """
    return Supervised(
        model,
        splits or no_samples(task.inputs.shape, task_kind(task.kind).outputs(task)),
        normalization=(task.inputs.preprocessing.mean, task.inputs.preprocessing.std),
        batch_size=terms.batch_size,
        evaluation_batch_size=terms.evaluation_batch_size,
        secret=secret,
        device=choose_device(device),
        privacy=mechanism,
        rules=rules,
        objective=objective_of(task),
        sampling=sampling,
        judged=splits.find("validation") if splits is not None and is_judged_on_validation else None,
        training=training,
    )
