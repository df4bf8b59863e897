"""RIVALS: LTP, thresholds learned with a soft count of what is left."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fcpts_onnx.sparsity.task import Task
from fcpts_onnx.sparsity.thresholds import Thresholds, Values

__all__ = ["LearnedThresholds"]


class LearnedThresholds(Thresholds):
    """W becomes W sigm((W^2 - tau) / T), with tau learned for each layer; a hard cut in the end.

    Azarian et al. (2020), Eq. 3: tau is learned in units of the layer's variance, T is a fixed part
    of that (Eq. 9), and the gradient of a weight leaves out the slope of the step, as they do
    (Eq. 8), so that weights are not driven across it. The loss has the soft count of what is left
    times `control_weight` (Eq. 6, as a share of all weights here): no target is held.
    """

    holds_target = False

    def __init__(self, values: Values, task: Task) -> None:
        self._recipe = task.recipe
        least = torch.finfo(torch.float32).tiny  # of a layer that is all zeros
        self._variances = {
            name: value.detach().var(correction=0).clamp_min(least)
            for name, value in values.items()
        }
        start = values[next(iter(values))].new_full((), task.recipe.threshold_start)
        self._taus = {name: nn.Parameter(start.clone()) for name in values}

    def parameters(self) -> list[nn.Parameter]:
        return list(self._taus.values())

    def begin_step(self, values: Values, progress: float) -> None:
        del values, progress  # thresholds move with the optimizer alone

    def masked(self, values: Values) -> dict[str, Tensor]:
        return {name: value * self._step(name, value) for name, value in values.items()}

    def control_loss(self, values: Values) -> Tensor:
        left = [self._step(name, value).sum() for name, value in values.items()]
        count = sum(value.numel() for value in values.values())
        return self._recipe.control_weight * torch.stack(left).sum() / count

    def settle(self, values: Values) -> dict[str, Tensor]:
        return {
            name: torch.where(self._excess(name, value) > 0, value, 0.0)
            for name, value in values.items()
        }

    def _step(self, name: str, value: Tensor) -> Tensor:
        """1 for what is well above the threshold, 0 for what is well below."""
        return torch.sigmoid(self._excess(name, value.detach()) / self._recipe.kernel)

    def _excess(self, name: str, value: Tensor) -> Tensor:
        """W^2 - tau, in units of the variance."""
        return value.square() / self._variances[name] - self._taus[name]
