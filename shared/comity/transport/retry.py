"""How long a node waits for its peers, and tries again."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class RetryPolicy(BaseModel):
    """How long to wait for peers.

    Attributes:
        call_s: For the answer to one small call, in seconds.
        retry_s: For a peer that is away, from the first failure on, in seconds; 0 to try once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    call_s: Annotated[float, Field(gt=0)] = 30.0
    retry_s: Annotated[float, Field(ge=0)] = 600.0
