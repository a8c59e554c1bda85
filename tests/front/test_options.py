"""What data say of their task, and what a caller says instead."""

from __future__ import annotations

from typing import Any

import pytest

from comity.front.simulate import _with_options


@pytest.mark.parametrize(
    ("of_data", "said", "both"),
    [
        ({}, {}, {}),
        ({"kind": "classification"}, {}, {"kind": "classification"}),
        ({"classes": 2}, {"classes": 3}, {"classes": 3}),
        ({"options": {"smoothing": 0.1}}, {}, {"options": {"smoothing": 0.1}}),
        (
            {"classes": 2, "options": {"ignore": 255, "smoothing": 0.1}},
            {"options": {"smoothing": 0.2}, "weights": [1, 9]},
            {"classes": 2, "weights": [1, 9], "options": {"ignore": 255, "smoothing": 0.2}},
        ),
    ],
)
def test_the_callers_word_goes_before_the_datas_and_options_are_joined(
    of_data: dict[str, Any], said: dict[str, Any], both: dict[str, Any]
) -> None:
    before = dict(of_data), dict(said)
    assert _with_options(of_data, said) == both
    assert (of_data, said) == before
