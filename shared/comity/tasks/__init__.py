"""What models are for: kinds of task, by name, and a task's models."""

from typing import TYPE_CHECKING

from comity.lazy import lazily

if TYPE_CHECKING:
    from comity.tasks.kind import TaskKind, TrainedKind
    from comity.tasks.models import (
        ModelSize,
        agreed_model,
        build_model,
        model_bytes,
        model_outline,
        no_weights,
        signed_model,
        task_size,
        whole_model,
    )
    from comity.tasks.objective import Objective, Outputs, Tally, Targets
    from comity.tasks.registry import (
        kind_for,
        kind_names,
        objective_of,
        predictions,
        require_task,
        require_usable,
        task_kind,
    )
else:
    __getattr__ = lazily(
        __name__,
        {
            "kind": ["TaskKind", "TrainedKind"],
            "models": [
                "ModelSize",
                "agreed_model",
                "build_model",
                "model_bytes",
                "model_outline",
                "no_weights",
                "signed_model",
                "task_size",
                "whole_model",
            ],
            "objective": ["Objective", "Outputs", "Tally", "Targets"],
            "registry": [
                "kind_for",
                "kind_names",
                "objective_of",
                "predictions",
                "require_task",
                "require_usable",
                "task_kind",
            ],
        },
    )

__all__ = [
    "ModelSize",
    "Objective",
    "Outputs",
    "Tally",
    "Targets",
    "TaskKind",
    "TrainedKind",
    "agreed_model",
    "build_model",
    "kind_for",
    "kind_names",
    "model_bytes",
    "model_outline",
    "no_weights",
    "objective_of",
    "predictions",
    "require_task",
    "require_usable",
    "signed_model",
    "task_kind",
    "task_size",
    "whole_model",
]
