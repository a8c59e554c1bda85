"""What a node imports before its first session; processes that are forked after it need not import it again."""

import os
import signal

import torch._dynamo  # noqa: F401 - the first step of an optimizer imports it
import torchmetrics.functional  # noqa: F401 - the first test of a model imports it

import comity.data.digits
import comity.node.daemon  # noqa: F401
from comity.orphans import end_with_parent
from comity.protocol.registry import unusable

# What cannot be used is left out.
unusable(implementations=True)

_PARENT = os.getpid()


def _end_with_it() -> None:
    if os.getppid() == _PARENT:
        end_with_parent(signal.SIGTERM)


# What is forked from this process is to end in good order once this process has ended.
os.register_at_fork(after_in_child=_end_with_it)
