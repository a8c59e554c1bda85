"""What a session of peer study may choose between; light, for definitions and terms."""

from __future__ import annotations

from typing import Literal

Form = Literal["printed", "directed"]
"""How the Out-of-Class loss is written: as eq. (5) is printed, or as the prose around it says."""

Difference = Literal["leave_out", "first", "majority"]
"""What counts when two people label a sample differently."""

Selection = Literal["peer_study", "random"]
"""What chooses samples in a session: the strategies for which the pool stays at the client."""

IGNORED = 255
"""The label of pixels that do not count, in segmentation."""

Mode = Literal["federated", "upload"]
"""What a session's clients send: models of their own, section 4.5; or samples that their people release, section 3.1."""
