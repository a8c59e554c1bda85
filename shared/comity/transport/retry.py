"""How long a node waits for another, and how it tries again: the one place for the times of a line.

What a server gives at most, however slow its callers are, `comity.session.limits` says. Times are in seconds.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class RetryPolicy(BaseModel):
    """How long to wait for peers.

    Attributes:
        call_s: For the answer to one small call, in seconds.
        retry_s: For a peer that is away, from the first failure on, in seconds; 0 to try once. The session then stops.
        again_s: How long after that a node tries again by itself, in seconds; None to wait for its operator, or a restart.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    call_s: Annotated[float, Field(gt=0)] = 30.0
    retry_s: Annotated[float, Field(ge=0)] = 600.0
    again_s: Annotated[float, Field(gt=0)] | None = 300.0


FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
"""Between two tries, and between two attempts of a channel to connect: twice as long each time."""

SLOWEST_BYTES_PER_S = 100_000
"""A transfer may take `call_s` and what its bytes take at this speed; then it is taken for stuck, and goes on where it was."""

KEEPALIVE_S = 20.0
"""How often each end of a line asks whether the other is there while calls are on."""

SILENCE_S = 10.0
"""How long it waits for the answer: a peer that is gone without a word is noticed after the sum."""

STUCK_S = 8.0
"""How long a message may wait for a follower who has stopped to read; then its stream is cancelled, and begun again."""

CONNECT_S = 3.0
"""For a connection by hand, which finds out why calls fail."""

DECISION_PAUSES_S = 0.5, 2.0
"""Least and most between two questions whether a peer's operator has decided."""

FAREWELL = RetryPolicy(call_s=3.0, retry_s=0.0)
"""For telling a peer that a session is cancelled: it may be away, which may be why."""

PREFLIGHT = RetryPolicy(call_s=10.0, retry_s=0.0)
"""For a peer to say who it is, when an operator checks."""

DRAFT = RetryPolicy(call_s=900.0, retry_s=0.0)
"""For a peer to try a draft's model, when an operator checks: longer than `limits.trial_s`, and it may read its data first."""

CONTROL_S = 60.0
"""For a node to answer its own operator; it may have to read its data first."""

TRYING_S = 600.0
"""For a node to begin a session as its operator wants: it builds the models and tries them first, which may be large."""


def keepalive() -> list[tuple[str, int]]:
    """The channel options, of either end, by which a peer that is gone without a word is noticed."""
    return [
        ("grpc.keepalive_time_ms", milliseconds(KEEPALIVE_S)),
        ("grpc.keepalive_timeout_ms", milliseconds(SILENCE_S)),
        # A ping has a time of its own, of a minute if nothing is said.
        ("grpc.http2.ping_timeout_ms", milliseconds(SILENCE_S)),
        # However long a call waits, without a byte.
        ("grpc.http2.max_pings_without_data", 0),
    ]


def milliseconds(seconds: float) -> int:
    """As gRPC wants it."""
    return int(seconds * 1000)
