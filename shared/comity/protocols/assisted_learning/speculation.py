"""Training ahead: work that is begun before it is known whether it is wanted."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from comity.tensors import State
from comity.training import Snapshot


class Speculation:
    """A training that is made step by step, and kept in memory until somebody wants it; nobody is told of it before.

    Args:
        start: Digest of the model that it begins with.
        samples: The training, from its beginning.
    """

    def __init__(self, start: bytes, samples: Iterator[Snapshot]) -> None:
        self.start = start
        self._samples = samples
        self._made: deque[Snapshot] = deque()

    def advance(self) -> bool:
        """Trains for a sampling period; False when the training is over."""
        sample = next(self._samples, None)
        if sample is None:
            return False
        # The tensors are live: the training goes on with them.
        self._made.append(replace(sample, state=_copied(sample.state), optimizer=_copied(sample.optimizer)))
        return True

    def __iter__(self) -> Iterator[Snapshot]:
        """What was made, and then the rest as it is made."""
        while self._made:
            yield self._made.popleft()
        yield from self._samples


def _copied(state: State) -> State:
    return {name: tensor.clone() for name, tensor in state.items()}
