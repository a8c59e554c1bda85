"""What a node imports before its first session; processes that are forked after it need not import it again."""

import torch._dynamo  # noqa: F401 - the first step of an optimizer imports it
import torchmetrics.functional  # noqa: F401 - the first test of a model imports it

import comity.data.digits
import comity.node.daemon  # noqa: F401
from comity.protocol.registry import unusable

# What cannot be used is left out.
unusable(implementations=True)
