"""Peer study: "Responsible Active Learning via Human-in-the-loop Peer Study" (2022)."""

from typing import TYPE_CHECKING

from comity.lazy import lazily

if TYPE_CHECKING:
    from comity.protocols.peer_study.algorithm import (
        average,
        consensus_split,
        discrepancy,
        in_class_loss,
        out_of_class_loss,
        pair,
        select,
    )
    from comity.protocols.peer_study.choices import Form
else:
    __getattr__ = lazily(
        __name__,
        {
            "algorithm": [
                "average",
                "consensus_split",
                "discrepancy",
                "in_class_loss",
                "out_of_class_loss",
                "pair",
                "select",
            ],
            "choices": ["Form"],
        },
    )

__all__ = ["Form", "average", "consensus_split", "discrepancy", "in_class_loss", "out_of_class_loss", "pair", "select"]
