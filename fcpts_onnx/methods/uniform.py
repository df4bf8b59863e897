"""RIVALS: the same sparsity in every layer."""

from __future__ import annotations

from fcpts_onnx.sparsity.task import Task

__all__ = ["uniform"]


def uniform(task: Task) -> dict[str, float]:
    """Zeros by weight in proportion to its size."""
    return {weight.name: task.budget.target * weight.count for weight in task.weights}
