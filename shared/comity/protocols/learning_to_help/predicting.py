"""What a session says of inputs: while it stays on, its node does, which asks the server; afterwards, the client's own model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from comity.inference.asking import asked
from comity.protocol.predicting import PredictionContext, Predictor
from comity.protocols.learning_to_help.settings import Settings
from comity.protocols.learning_to_help.task import LOCAL


@contextmanager
def answers(context: PredictionContext) -> Iterator[Predictor]:
    """See `PredictorFactory`."""
    if context.is_on:
        settings = context.settings or Settings()
        with asked(settings.predictions, context.state_dir, context.contract.session) as predict:
            yield predict
    else:
        yield context.model(LOCAL).predict
