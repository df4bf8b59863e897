"""RIVALS: LAMP, layer-adaptive magnitudes."""

from __future__ import annotations

import torch
from torch import Tensor

from fcpts_onnx.sparsity.budget import counts_by_rank
from fcpts_onnx.sparsity.task import Task

__all__ = ["lamp", "lamp_score"]


def lamp(task: Task) -> dict[str, float]:
    """Zeros by weight where all are ranked by their LAMP scores (Lee et al. 2021)."""
    scores = {name: lamp_score(value) for name, value in task.dense().items()}
    return counts_by_rank(scores, task.budget.zeros)


def lamp_score(value: Tensor) -> Tensor:
    """w^2 over the sum of the squares of all weights of the layer that are no smaller (Eq. 4)."""
    squares = value.flatten().square().double()
    order = squares.argsort(stable=True)
    ranked = squares[order]
    no_smaller = ranked.flip(0).cumsum(0).flip(0)
    scores = torch.empty_like(squares)
    scores[order] = ranked / no_smaller.clamp_min(torch.finfo(torch.float64).tiny)
    return scores.reshape(value.shape)
