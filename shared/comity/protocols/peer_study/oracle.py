"""An annotator for experiments: it knows the labels, and mistakes some for a class that is like theirs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from comity.errors import InvalidValue, MalformedMessage
from comity.protocols.peer_study.choices import IGNORED
from comity.randomness import derive, generator


class SimulatedOracle:
    """Says the label of any sample; asked twice it says the same.

    Args:
        labels: The true ones, each in [0, classes); of segmentation `[samples, height, width]`, where the label `IGNORED`
            of pixels that do not count is never mistaken.
        classes: How many classes there are.
        noise: The chance that a sample, or a pixel, is taken for another class of its superclass, 0 to 1. What a smaller one
            mistakes, a greater one does too.
        superclasses: Classes that are like each other; each class is in one. None: all are in one. A class that is alone
            in its own is never mistaken.
        seed: Decides which samples are mistaken, and for what.

    Raises:
        InvalidValue: The noise is out of range, or the superclasses do not have each class once.
        MalformedMessage: A label is no class.
    """

    def __init__(
        self,
        labels: Int[Tensor, "samples ..."],
        classes: int,
        *,
        noise: float = 0.0,
        superclasses: Sequence[Sequence[int]] | None = None,
        seed: int = 0,
    ) -> None:
        if not 0 <= noise <= 1:
            raise InvalidValue("An oracle's noise", expected="0 to 1", received=noise)
        groups = [[*range(classes)]] if superclasses is None else [[*each] for each in superclasses]
        if sorted(each for group in groups for each in group) != [*range(classes)]:
            raise InvalidValue("Superclasses", expected=f"each class from 0 to {classes - 1} in one", received=groups)
        counted = labels != IGNORED if labels.ndim > 1 else torch.ones_like(labels, dtype=torch.bool)
        if labels.ndim not in {1, 3} or bool((((labels < 0) | (labels >= classes)) & counted).any()):
            raise MalformedMessage(
                "An oracle's labels",
                expected=f"one class a sample, or a pixel, 0 to {classes - 1}",
                received=f"shape {list(labels.shape)}, {sorted({*labels.flatten().tolist()})[:20]}",
            )
        draws = generator(derive(seed, "oracle"))
        mistaken = torch.rand(labels.shape, generator=draws, dtype=torch.float64) < noise
        steps = torch.randint(2**31, labels.shape, generator=draws)
        self._said = labels.clone()
        for group in groups:
            members = torch.tensor(group)
            for place, each in enumerate(group if len(group) > 1 else []):
                hit = mistaken & (labels == each)
                self._said[hit] = members[(place + 1 + steps[hit] % (len(group) - 1)) % len(group)].to(labels.dtype)

    def label(self, indices: Int[Tensor, " n"]) -> Int[Tensor, "n ..."]:
        """What it says of samples, in their order."""
        return self._said[indices]
