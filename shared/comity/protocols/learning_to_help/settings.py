"""A client's own settings: `[protocols.learning_to_help]`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from comity.inference.settings import DoorSettings


class Settings(BaseModel):
    """What a client decides for itself.

    Attributes:
        compare: Whether it asks about every test sample, also those that its rejector keeps, so that both parties alone and
            together can be compared. Each costs a request.
        raw_inputs: Whether queries may carry the inputs themselves, where the contract's layer is the first.
        within_s: How long an application's input waits for the server's answer, in seconds; then the client's model answers.
        window: Of any so many inputs in a row at most the share `reject_rate` is asked about, whatever chance does; None to
            hold the rate in expectation alone.
        report_every: After how many predictions observers are told what they came to.
        predictions: Where applications ask.
    """

    model_config = ConfigDict(extra="forbid")

    compare: bool = False
    raw_inputs: bool = False
    within_s: Annotated[float, Field(gt=0, le=3600)] = 10.0
    window: Annotated[int, Field(ge=1, le=10**6)] | None = None
    report_every: Annotated[int, Field(ge=1)] = 1000
    predictions: DoorSettings = DoorSettings()
