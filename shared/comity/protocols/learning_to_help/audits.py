"""What a server could have learned from what a client sent: `comity audit features`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from comity.contract import Json
from comity.data import Splits
from comity.errors import InvalidValue
from comity.privacy.inversion import reconstruction
from comity.protocol.audits import AuditContext
from comity.protocols.learning_to_help.task import LOCAL, HelpTask
from comity.tensors import Layout


def features(context: AuditContext) -> Mapping[str, Json]:
    """How well the client's test samples can be reconstructed from the 8-bit features that a query carries.

    The map from features to inputs is fitted to the client's training samples: a server has such of its own, and the model.

    Raises:
        InvalidValue: The model that was sent was not kept, or there are too few samples.
    """
    party = context.require_party()
    task: HelpTask = party.task(None)
    sent = [each.blob for each in party.sent if each.kind == "local_model"]
    if not sent:
        raise InvalidValue(
            "no model that makes features left this node",
            expected="a client's session",
            received=", ".join(sorted({each.kind for each in party.sent})),
            action="run the audit at the client's node",
        )
    task.load(LOCAL, Layout.unpack(sent[0]))
    quantization = task.quantization()

    def seen(inputs: Any) -> torch.Tensor:
        return quantization.decode(quantization.encode(task.map(inputs)[1])).cpu()

    known = task.inputs("train")
    if isinstance(party.data, Splits) and task.labels("test") is not None:
        unseen = task.inputs("test")
    else:
        known, unseen = known[::2], known[1::2]
    found = reconstruction(seen(known), known.cpu(), seen(unseen), unseen.cpu())
    return found | {"bytes_per_input": task.feature_size, "values_per_input": int(known[0].numel())}
