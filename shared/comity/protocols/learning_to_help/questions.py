"""Asking the server about many inputs in a row, each by a number that it keeps after a restart."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import torch
from torch import Tensor

from comity.errors import MalformedMessage, NonFiniteValue
from comity.protocols.learning_to_help.messages import Helping
from comity.session.metering.requests import RequestMeter

_QUESTION = 64
"""Inputs of one question."""


class Questions:
    """Asks, and settles on the way.

    Args:
        server: Who answers.
        meter: Numbers and charges.
        classes: How many outputs each input has.
    """

    def __init__(self, server: Helping, meter: RequestMeter, classes: int) -> None:
        self._server = server
        self._meter = meter
        self._classes = classes

    def ask(self, begin: int, steps: Tensor) -> Tensor:
        """The classes that the server says; −1 for inputs beyond what was bought, which are answered at home.

        Inputs are asked in an order that does not change, so that after a restart each goes by the number that it had; and
        no more at a time than the server answers without a signed request.

        Args:
            begin: Number of the first.
            steps: Their features as they cross.
        """
        answers = torch.full((len(steps),), -1, dtype=torch.int64)
        wanted = min(len(steps), max(self._meter.metered.bought - begin + 1, 0))
        if not wanted:
            return answers
        self._meter.use(begin + wanted - 1)
        for window in torch.arange(wanted).split(max(self._meter.metered.credit // 2, 1)):
            asked = [
                (part, begin + int(part[0]), self._question(begin, part, steps)) for part in window.split(_QUESTION)
            ]
            for part, first, answer in asked:
                answered = answer.result()
                answers[part] = outputs_in(answered.value, first, len(part), self._classes).argmax(dim=1)
                for number in range(first, first + len(part)):
                    # The whole question is on its first number's account.
                    self._meter.answered(number, *((answered.asked, answered.answered) if number == first else (0, 0)))
            self._meter.settle(self._server)
        return answers

    def _question(self, begin: int, part: Tensor, steps: Tensor) -> Future[Any]:
        return self._server.ask(begin + int(part[0]), len(part), steps[part].numpy().tobytes(), 0)


def outputs_in(value: Any, first: int, count: int, classes: int) -> Tensor:
    """The outputs in a server's answer, `[count, classes]`.

    Raises:
        MalformedMessage: It answers another question.
        NonFiniteValue: An output is NaN or infinite.
    """
    number, counted, given = value
    outputs = torch.tensor(given, dtype=torch.float32)
    if (number, counted) != (first, count) or len(outputs) != count * classes:
        raise MalformedMessage(
            "the server answers another question",
            expected=f"{count * classes} outputs for {count} inputs from number {first}",
            received=f"{len(outputs)} for {counted} from {number}",
            action="ask the server's operator what happened",
        )
    if not bool(torch.isfinite(outputs).all()):
        raise NonFiniteValue("the server's answer", expected="finite values", received="NaN or infinity")
    return outputs.view(count, -1)
