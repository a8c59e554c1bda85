"""Models by name, built alike wherever the name, the sizes, the options and the seed are the same."""

from comity.models.own import OWN_TARGET, Factory, OwnModels
from comity.models.registry import build, names

__all__ = ["OWN_TARGET", "Factory", "OwnModels", "build", "names"]
