"""What models are for: kinds of task, by name, and a task's models."""

from comity.tasks.kind import TaskKind
from comity.tasks.models import (
    ModelSize,
    agreed_model,
    build_model,
    model_bytes,
    model_outline,
    no_weights,
    signed_model,
)
from comity.tasks.registry import kind_for, kind_names, require_task, require_usable, task_kind

__all__ = [
    "ModelSize",
    "TaskKind",
    "agreed_model",
    "build_model",
    "kind_for",
    "kind_names",
    "model_bytes",
    "model_outline",
    "no_weights",
    "require_task",
    "require_usable",
    "signed_model",
    "task_kind",
]
