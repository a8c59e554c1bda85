"""Local training and evaluation: what a party does with its own data, and nobody else's."""

from comity.training.classification import Classification
from comity.training.device import choose_device
from comity.training.distillation import AssistedDistillation, Distillation, distillation_loss
from comity.training.optimizers import OptimizerSpec
from comity.training.policy_gradient import Baseline, PolicyGradient
from comity.training.quadratic import Quadratic
from comity.training.samples import PoissonStream, SampleStream, Secret, sampling_rate
from comity.training.trajectories import Resume, Snapshot, sampled

__all__ = [
    "AssistedDistillation",
    "Baseline",
    "Classification",
    "Distillation",
    "OptimizerSpec",
    "PoissonStream",
    "PolicyGradient",
    "Quadratic",
    "Resume",
    "SampleStream",
    "Secret",
    "Snapshot",
    "choose_device",
    "distillation_loss",
    "sampled",
    "sampling_rate",
]
