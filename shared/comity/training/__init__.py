"""Local training and evaluation: what a party does with its own data, and nobody else's."""

from comity.training.classification import Classification, Resume, Sample
from comity.training.device import choose_device
from comity.training.optimizers import OptimizerSpec
from comity.training.samples import SampleStream, Secret

__all__ = ["Classification", "OptimizerSpec", "Resume", "Sample", "SampleStream", "Secret", "choose_device"]
