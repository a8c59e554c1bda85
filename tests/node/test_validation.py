"""Files that nobody writes by hand are one line each, too."""

from __future__ import annotations

import pytest

from comity.errors import InvalidValue
from comity.node.validation import parse_toml


@pytest.mark.parametrize(
    "text", ["a = " + "[" * 20_000 + "]" * 20_000, "a = " + "9" * 5000, "a = " + "{b = " * 20_000 + "1" + "}" * 20_000]
)
def test_what_nobody_writes_by_hand(text: str) -> None:
    with pytest.raises(InvalidValue, match="script.toml") as caught:
        parse_toml(text, "script.toml")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
