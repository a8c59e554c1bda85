"""Texts of a contract are shown to operators: none drives a terminal, or has others read in another order."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from comity.contract import HeadSpec, ModelSpec


@pytest.mark.parametrize("odd", ["\x1b[2J", "\r", "\x07", "\x00", "\u202e", "\u2066", "\u200f", "\u2028"])
def test_what_cannot_be_shown_is_refused(odd: str) -> None:
    with pytest.raises(ValidationError, match="has a character that cannot be shown"):
        HeadSpec(name="class", size=2, labels=(f"nine{odd}", "eight"))
    with pytest.raises(ValidationError, match="has a character that cannot be shown"):
        ModelSpec(name="mlp", options={"how": odd}, signature="0" * 64)


@pytest.mark.parametrize("name", ["Größe", "مرحبا", "می\u200cخواهم", "数字", "👩\u200d⚕️", "mg/dl\n(fasting)"])
def test_words_of_any_script_are_taken(name: str) -> None:
    assert HeadSpec(name="class", size=2, labels=(name, "other")).labels == (name, "other")
