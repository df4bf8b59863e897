"""RIVALS: STR, soft thresholds that weight decay brings up."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fcpts_onnx.sparsity.task import Task
from fcpts_onnx.sparsity.thresholds import Thresholds, Values

__all__ = ["SoftThresholds"]


class SoftThresholds(Thresholds):
    """W becomes sign(W) relu(|W| - sigmoid(s)), with s learned for each layer.

    Kusupati et al. (2020), Eq. 3 and 6. Weight decay alone drives s from far below towards zero, so
    that the sparsity follows from the decay, the rate and the length of the run: no target is held.
    What remains is smaller by the threshold than it was.
    """

    holds_target = False
    decays = True

    def __init__(self, values: Values, task: Task) -> None:
        start = values[next(iter(values))].new_full((), task.recipe.threshold_start)
        self._scores = {name: nn.Parameter(start.clone()) for name in values}

    def parameters(self) -> list[nn.Parameter]:
        return list(self._scores.values())

    def begin_step(self, values: Values, progress: float) -> None:
        del values, progress  # scores move with the optimizer alone

    def masked(self, values: Values) -> dict[str, Tensor]:
        return {
            name: value.sign() * torch.relu(value.abs() - torch.sigmoid(self._scores[name]))
            for name, value in values.items()
        }

    def settle(self, values: Values) -> dict[str, Tensor]:
        return self.masked(values)
