"""What a session of learning to help may choose between; light, for definitions and terms."""

from __future__ import annotations

from typing import Literal

Form = Literal["shifted", "paper"]
"""How the rejector's loss is written: with weights that are never negative, or as printed."""
