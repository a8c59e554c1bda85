"""Whether a forward pass draws where nothing seeds it: by Python's generator, or by numpy's."""

from __future__ import annotations

import random  # noqa: TID251 - nothing is drawn
from collections.abc import Callable

import numpy as np

from comity.errors import InvalidValue

_LOOKS = 3
"""Other threads draw from these, too: what happens each time is the model's."""


def require_seeded(forward: Callable[[], object]) -> None:
    """Checks that what a forward pass draws is torch's, which is seeded; a session could not be repeated otherwise.

    Args:
        forward: Makes one, in training.

    Raises:
        InvalidValue: It is not.
    """
    suspects = set(_states())
    for _ in range(_LOOKS):
        before = _states()
        forward()
        after = _states()
        suspects = {name for name in suspects if before[name] != after[name]}
        if not suspects:
            return
    raise InvalidValue(
        "the model draws by a generator that nothing seeds",
        expected="torch's, such as torch.rand or nn.Dropout",
        received=" and ".join(sorted(suspects)),
        action="draw by torch",
    )


def _states() -> dict[str, object]:
    # The one that is asked about.
    name, keys, at, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    return {"Python's random": random.getstate(), "numpy.random": (name, np.asarray(keys).tobytes(), at, rest)}
