"""Where tensors live."""

from __future__ import annotations

import torch

from comity.errors import InvalidValue


def choose_device(name: str = "auto") -> torch.device:
    """The device of a name; `auto` is CUDA where there is one, else the CPU.

    Raises:
        InvalidValue: The name is no device of this machine.
    """
    has_cuda = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if has_cuda else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        known = "auto, cpu" + (", cuda" if has_cuda else "")
        raise InvalidValue(
            "device cannot be used", expected=known, received=name, action="set device = 'auto'"
        ) from error
    return device
