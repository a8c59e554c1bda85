"""Local training and evaluation: what a party does with its own data, and no other party's."""

from typing import TYPE_CHECKING

from comity.lazy import lazily

if TYPE_CHECKING:
    from comity.training.device import choose_device
    from comity.training.distillation import AssistedDistillation, Distillation, distillation_loss
    from comity.training.optimizers import build_optimizer
    from comity.training.policy_gradient import Baseline, PolicyGradient
    from comity.training.quadratic import Quadratic
    from comity.training.samples import PoissonStream, SampleStream, Secret, sampling_rate
    from comity.training.supervised import Supervised
    from comity.training.terms import OptimizerSpec, TrainingTerms
    from comity.training.trajectories import Resume, Snapshot, sampled
else:
    __getattr__ = lazily(
        __name__,
        {
            "supervised": ["Supervised"],
            "device": ["choose_device"],
            "distillation": ["AssistedDistillation", "Distillation", "distillation_loss"],
            "optimizers": ["build_optimizer"],
            "policy_gradient": ["Baseline", "PolicyGradient"],
            "quadratic": ["Quadratic"],
            "samples": ["PoissonStream", "SampleStream", "Secret", "sampling_rate"],
            "terms": ["OptimizerSpec", "TrainingTerms"],
            "trajectories": ["Resume", "Snapshot", "sampled"],
        },
    )

__all__ = [
    "AssistedDistillation",
    "Baseline",
    "Distillation",
    "OptimizerSpec",
    "PoissonStream",
    "PolicyGradient",
    "Quadratic",
    "Resume",
    "SampleStream",
    "Secret",
    "Snapshot",
    "Supervised",
    "TrainingTerms",
    "build_optimizer",
    "choose_device",
    "distillation_loss",
    "sampled",
    "sampling_rate",
]
