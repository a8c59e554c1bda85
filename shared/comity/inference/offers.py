"""What can be asked, and by whom it is answered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor

from comity.contract import Json
from comity.errors import UnknownSession

OFFERS = "predictions"
"""The name under which a node's `Offers` are among its services."""

Parameters = Mapping[str, Json]
"""Of a request or an answer: texts, numbers, yes and no."""


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of a request or an answer, without the dimension of the batch.

    Attributes:
        name: Its name.
        dtype: Its type as torch calls it, for example `float32`; empty where any will do.
        shape: Shape of what belongs to one input.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What is said of a batch.

    Attributes:
        outputs: By name, each with the inputs in the first dimension.
        parameters: What else there is to say.
    """

    outputs: Mapping[str, Tensor]
    parameters: Parameters


Predict = Callable[[Tensor, Parameters, float | None], Future[Answer]]
"""Takes stored inputs `[batch, *shape]`, the request's parameters, and within how many seconds an answer is of use."""


@dataclass(frozen=True)
class Offer:
    """Something that predicts.

    Attributes:
        name: What applications call the model: the session.
        inputs: What it takes.
        outputs: What it says.
        predict: Answers. Cancelling what it returns is to wait no more.
    """

    name: str
    inputs: TensorSpec
    outputs: tuple[TensorSpec, ...]
    predict: Predict


class Offers:
    """What of a node predicts now; for any number of threads.

    Args:
        patterns: Other names, and the sessions that they stand for, as `fnmatch` has them: the one that was offered last.
    """

    def __init__(self, patterns: Mapping[str, str] | None = None) -> None:
        self._patterns = patterns or {}
        self._lock = threading.Lock()
        self._offers: dict[str, Offer] = {}

    @contextmanager
    def offered(self, offer: Offer) -> Iterator[None]:
        """Has something asked while the body lasts."""
        with self._lock:
            self._offers[offer.name] = offer
        try:
            yield
        finally:
            with self._lock:
                self._offers.pop(offer.name, None)

    def names(self) -> list[str]:
        """What can be asked now."""
        with self._lock:
            found = {*self._offers, *(each for each in self._patterns if self._latest(each) is not None)}
        return sorted(found)

    def find(self, name: str) -> Offer:
        """What is asked by a name.

        Raises:
            UnknownSession: Nothing predicts under it now.
        """
        with self._lock:
            found = self._offers.get(name) or self._latest(name)
        if found is None:
            raise UnknownSession(
                "no model of this name predicts now",
                expected=", ".join(self.names()) or "a session that serves; none does",
                received=name[:200],
                action="comity sessions lists them: the model is called as the session is, or as predictions.names has it",
            )
        return found

    def _latest(self, name: str) -> Offer | None:
        """The last of the offers that another name stands for."""
        pattern = self._patterns.get(name)
        matching = (each for each in reversed(self._offers.values()) if pattern and fnmatchcase(each.name, pattern))
        return next(matching, None)
