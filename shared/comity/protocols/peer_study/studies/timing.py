"""How long models take of what is done with them."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

from torch import nn
from torch.utils.hooks import RemovableHandle


class Stopwatch:
    """Adds up the time of models' forward passes, within its body.

    Args:
        models: Whose.

    Attributes:
        seconds: So far.
    """

    def __init__(self, *models: nn.Module) -> None:
        self.seconds = 0.0
        self._models = models
        self._began = 0.0
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        for model in self._models:
            self._hooks += [model.register_forward_pre_hook(self._start), model.register_forward_hook(self._stop)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    def _start(self, *_: Any) -> None:
        self._began = time.perf_counter()

    def _stop(self, *_: Any) -> None:
        self.seconds += time.perf_counter() - self._began
