"""How a node tells that the one before it was killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from comity.errors import InvalidValue
from comity.node.garbage import marked_running, was_killed


def test_a_node_that_cannot_start_was_not_killed(tmp_path: Path) -> None:
    def start() -> None:
        with marked_running(tmp_path):
            assert was_killed(tmp_path)
            raise InvalidValue("listen is missing", expected="host:port", received="nothing")

    with pytest.raises(InvalidValue):
        start()
    assert not was_killed(tmp_path)
