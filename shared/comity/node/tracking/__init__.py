"""A node's sessions in the trackers that a team has already: TensorBoard and MLflow, live.

A tracker works in a thread of its own, so that one that is slow or away holds nothing up: see `Tracker`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from comity.errors import InvalidValue
from comity.node.watchers import Watchers

if TYPE_CHECKING:
    from comity.node.config_sections import TrackingConfig


ENVIRONMENT = {
    # It would tell its makers what it is used for.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # It would try for minutes; the tracker's own thread tries again.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
"""What MLflow reads of the environment when it is imported; what an operator has set goes before."""


@contextmanager
def tracking(settings: TrackingConfig, party: str, watchers: Watchers) -> Iterator[None]:
    """Has a party's sessions written to the configured trackers until the block is left.

    Args:
        settings: Which, and where.
        party: The party.
        watchers: Those of its sessions.

    Raises:
        InvalidValue: A tracker's extra is not installed, or its address holds a password.
    """
    if settings.tensorboard is None and not settings.mlflow:
        yield
        return
    from comity.node.tracking.tracker import Tracker  # noqa: PLC0415 - a node without trackers needs none

    with ExitStack() as stack:
        if settings.tensorboard is not None:
            _require("tensorboard", "tensorboard")
            from comity.node.tracking.tensorboard import TensorBoard  # noqa: PLC0415 - extra `tensorboard`

            board = TensorBoard(settings.tensorboard, party)
            stack.enter_context(watchers.added(stack.enter_context(Tracker(board, party))))
        if settings.mlflow:
            _require("mlflow", "mlflow")
            _require_no_password(settings.mlflow)
            for name, value in ENVIRONMENT.items():
                os.environ.setdefault(name, value)
            from comity.node.tracking.mlflow import MLflow  # noqa: PLC0415 - extra `mlflow`

            runs = MLflow(settings.mlflow, settings.experiment, party)
            stack.enter_context(watchers.added(stack.enter_context(Tracker(runs, party))))
        yield


def _require(module: str, extra: str) -> None:
    if find_spec(module) is None:
        raise InvalidValue(
            f"[tracking] {extra} needs more than is installed",
            expected=f"the extra {extra}",
            received=f"no {module}",
            action=f"pip install 'comity[{extra}]'",
        )


def _require_no_password(address: str) -> None:
    """MLflow and whatever it rests on name the address in their errors, which go to the log."""
    if urlsplit(address).password is not None:
        raise InvalidValue(
            "tracking.mlflow holds a password",
            expected="an address alone",
            received="one with a name and a password",
            action="take them out, and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment",
        )
