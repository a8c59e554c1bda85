"""What a session of peer study may choose between; light, for definitions and terms."""

from __future__ import annotations

from typing import Literal

Form = Literal["printed", "directed"]
"""How the Out-of-Class loss is written: as eq. (5) is printed, or as the prose around it says."""

Selection = Literal["peer_study", "random"]
"""What chooses samples in a session: the strategies for which the pool stays at the client."""
