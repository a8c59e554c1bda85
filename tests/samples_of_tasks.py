"""Small samples for each kind of task that something can be learned from, as arrays and as sessions between parties."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tomlkit
import torch
from torch import Tensor

KINDS = ("multilabel", "regression", "segmentation", "several")
MODELS = {
    "multilabel": {"name": "mlp", "options": {"hidden": 16}},
    "regression": {"name": "mlp", "options": {"hidden": 16}},
    "segmentation": {"name": "fcn", "options": {"width": 6, "layers": 2}},
    "several": {"name": "fcn", "options": {"width": 6, "layers": 2}},
}
"""A model for each."""


def samples(kind: str, count: int, seed: int) -> tuple[Tensor, Tensor | dict[str, Tensor]]:
    """Inputs and what is to be told of them: of brightness and where it is."""
    draws = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 1, 6, 6, generator=draws)
    tops, lefts = inputs[:, 0, :3].mean(dim=(1, 2)), inputs[:, 0, :, :3].mean(dim=(1, 2))
    masks = (inputs[:, 0] > 0.5).to(torch.uint8)
    match kind:
        case "multilabel":
            return inputs, torch.stack([tops > 0, lefts > 0], dim=1)
        case "regression":
            return inputs, 3 * torch.stack([tops, lefts], dim=1)
        case "segmentation":
            return inputs, masks
        case _:
            return inputs, {"mask": masks, "depth": 2 * inputs}


def archive(path: Path, kind: str, count: int, seed: int) -> Path:
    """The samples in a file, with others to test on."""
    arrays: dict[str, np.ndarray] = {}
    for suffix, (inputs, targets) in (("", samples(kind, count, seed)), ("_test", samples(kind, 40, 99))):
        arrays[f"x{suffix}"] = inputs.numpy()
        if isinstance(targets, Tensor):
            arrays[f"y{suffix}"] = targets.numpy()
        else:
            arrays |= {f"y{suffix}.{name}": each.numpy() for name, each in targets.items()}
    np.savez(path, **arrays)
    return path


def script(
    folder: Path,
    kind: str,
    protocol: str,
    roles: dict[str, str],
    terms: dict[str, object],
    rounds: int,
    others: dict[str, str] | None = None,
) -> str:
    """A session of such parties, of which those with the last one's role help; each has samples of its own.

    Args:
        folder: Where their samples are written.
        kind: The kind of task.
        protocol: The protocol.
        roles: Each party's role.
        terms: The terms.
        rounds: How many rounds.
        others: Kinds of those parties whose samples are for another task than the session's.
    """
    *_, helps = roles.values()
    session = {
        "protocol": protocol,
        "id": f"{kind}-0",
        "acceptors": [name for name, role in roles.items() if role == helps],
        "rounds": rounds,
        "model": MODELS[kind],
        "terms": terms,
    }
    parties = {
        name: {
            "role": role,
            "secret": f"{name} of {kind}",
            "privacy": {"preset": "public"},
            "data": {"source": f"npz:{archive(folder / f'{name}.npz', (others or {}).get(name, kind), 48, seed)}"},
        }
        for seed, (name, role) in enumerate(roles.items())
    }
    return tomlkit.dumps({"session": session, "party": parties, "simulation": {"threads": 1}})
