"""What a node gives at most, however much is asked of it: the one place for its limits; what it waits for, `comity.transport.retry` says."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


RESTART_ONLY = ("calls", "connections", "idle_s", "handshake_s")
"""Limits that a server is made with; new values of the others are taken over while it runs."""


class Limits(BaseModel):
    """Limits of a node's process, beside what its policy says of sessions. The defaults touch no session that works.

    Attributes:
        calls: Calls that are served at a time; each holds a thread, a follower of a stream holds none.
        calls_a_party: Those of one party. The last quarter of all is kept for parties that have none.
        streams_a_party: Streams that one party follows at a time.
        call_s: Longest that a call waits for its turn in a session that is at work, in seconds; the caller then tries again.
        unit_s: Longest that one unit of a session's work may take, in seconds, such as a training up to the next model that is
            sent; a session in which one takes longer fails.
        trial_s: Longest that trying a contract's models before a session may take, in seconds: they are built, and make one
            step and one evaluation.
        half_uploads: Uploads of one session that are on their way or half here, at a time; each takes memory.
        half_upload_s: How long half an upload waits for the other half, in seconds.
        grace_s: How long an upload or a download may take beside what it moves, in seconds.
        slowest: Bytes per second that it has to move after that; what is slower is cut, and goes on where it was.
        connections: Connections at a time, with those that have not shown who they are; each is a file, and more are closed.
            None for 4096; never more than the process may open files, less what it needs itself. Before there are as many,
            some of those who have the most are closed, by party, and by address where no party is known yet.
        idle_s: How long a connection without calls is kept, in seconds.
        handshake_s: How long a caller may take to show who it is, in seconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    calls: Annotated[int, Field(ge=4, le=1000)] = 32
    calls_a_party: Count = 16
    streams_a_party: Count = 64
    call_s: Seconds = 25.0
    unit_s: Seconds = 3600.0
    trial_s: Seconds = 300.0
    half_uploads: Count = 8
    half_upload_s: Seconds = 900.0
    grace_s: Seconds = 60.0
    slowest: Annotated[int, Field(ge=0)] = 50_000
    connections: Count | None = None
    idle_s: Seconds = 900.0
    handshake_s: Seconds = 20.0
