"""Long work stops at its next point."""

from __future__ import annotations

import pytest

from comity import interruption


def test_work_that_takes_longer_than_it_is_given_stops() -> None:
    with pytest.raises(interruption.TookTooLong), interruption.at_most(0.0):
        while True:
            interruption.point()
    interruption.point()


def test_work_that_is_given_time_is_still_stopped_by_who_wants_it_no_more() -> None:
    def unwanted() -> None:
        raise interruption.Interrupted

    with interruption.checked(unwanted), interruption.at_most(1e6), pytest.raises(interruption.Interrupted):
        interruption.point()
