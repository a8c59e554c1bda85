"""Opacus, where it is installed."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from comity.errors import InvalidValue


def load(module: str) -> ModuleType:
    """A module of Opacus.

    Raises:
        InvalidValue: The extra is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise InvalidValue(
            f"Differential privacy needs Opacus: {error}", action="install the extra: pip install 'comity[dp]'"
        ) from error
