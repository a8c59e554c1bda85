"""What a session of learning to help may choose between; light, for definitions and terms."""

from __future__ import annotations

from typing import Literal

Form = Literal["shifted", "paper"]
"""How the rejector's loss is written: with weights that are never negative, or as printed."""

Training = Literal["server", "client", "predictions"]
"""Who trains the rejector: the server, on its own samples; the client, which gets copies of the classifier while that is
trained; or the client, which asks the server about its own samples."""

RejectsOn = Literal["features", "scores", "inputs"]
"""What the rejector goes by: the features that queries carry, what the client's model says, or the inputs themselves."""
