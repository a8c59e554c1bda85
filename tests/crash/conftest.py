"""Sessions that are killed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from comity import faults


@pytest.fixture(autouse=True)
def _no_fault_stays() -> Iterator[None]:
    yield
    faults.install(None)
