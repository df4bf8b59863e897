"""RIVALS: STR, soft thresholds that weight decay brings up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fcpts_onnx.recipe import Recipe
from fcpts_onnx.sparsity.task import Task

__all__ = ["SoftThresholds"]


class SoftThresholds:
    """W becomes sign(W) relu(|W| - sigmoid(s)), with s learned for each layer.

    Kusupati et al. (2020), Eq. 3 and 6. Weight decay alone drives s from far below towards zero, so
    that the sparsity follows from the decay, the rate and the length of the run: no target is held.
    What remains is smaller by the threshold than it was. `thresholds.Thresholds`.
    """

    holds_target = False

    def __init__(self, values: Mapping[str, Tensor], task: Task) -> None:
        start = values[next(iter(values))].new_tensor(task.recipe.threshold_start)
        self._scores = {name: nn.Parameter(start.clone()) for name in values}

    def groups(self, recipe: Recipe) -> list[dict[str, Any]]:
        rate = recipe.learning_rate * recipe.threshold_rate
        scores = list(self._scores.values())
        return [{"params": scores, "lr": rate, "weight_decay": recipe.weight_decay}]

    def begin_step(self, values: Mapping[str, Tensor], progress: float) -> None:
        del values, progress  # scores move with the optimizer alone

    def masked(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: value.sign() * torch.relu(value.abs() - torch.sigmoid(self._scores[name]))
            for name, value in values.items()
        }

    def control_loss(self, values: Mapping[str, Tensor]) -> Tensor:
        return next(iter(values.values())).new_zeros(())

    def settle(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self.masked(values)
