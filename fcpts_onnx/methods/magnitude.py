"""RIVALS: the smallest weights of all layers together, by size or by a layer's norm."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from fcpts_onnx.sparsity.budget import counts_by_rank
from fcpts_onnx.sparsity.task import Task

__all__ = ["global_magnitude", "l1norm", "l2norm"]


def global_magnitude(task: Task) -> dict[str, float]:
    """Zeros by weight where all are ranked by |w| (Han et al. 2015)."""
    return _ranked(task, lambda value: value.abs())


def l1norm(task: Task) -> dict[str, float]:
    """Zeros by weight where all are ranked by |w| relative to the layer's L1 norm."""
    return _ranked(task, lambda value: value.abs() / value.norm(p=1))


def l2norm(task: Task) -> dict[str, float]:
    """Zeros by weight where all are ranked by |w| relative to the layer's L2 norm.

    What POT starts from (Lazarevich, Kozlov and Malinin 2021).
    """
    return _ranked(task, lambda value: value.abs() / value.norm())


def _ranked(task: Task, score: Callable[[Tensor], Tensor]) -> dict[str, float]:
    scores = {name: score(value) for name, value in task.dense().items()}
    return counts_by_rank(scores, task.budget.zeros)
