"""Models by name, built alike wherever the name, the sizes, the options and the seed are the same."""

from typing import TYPE_CHECKING

from comity.lazy import lazily

if TYPE_CHECKING:
    from comity.models.catalogue import OWN_TARGET, names
    from comity.models.own import Factory, OwnModels
    from comity.models.registry import build
else:
    __getattr__ = lazily(
        __name__,
        {
            "catalogue": ["OWN_TARGET", "names"],
            "own": ["Factory", "OwnModels"],
            "registry": ["build"],
        },
    )

__all__ = [
    "OWN_TARGET",
    "Factory",
    "OwnModels",
    "build",
    "names",
]
