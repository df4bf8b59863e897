"""LEARN: the batches of a run, in an order and in views that its seed draws."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fcpts_onnx.sparsity.task import Task

__all__ = ["Samples"]


class Samples:
    """Batches in random order, epoch after epoch, without end."""

    def __init__(self, task: Task) -> None:
        self._calibration, self._recipe, self._device = task.calibration, task.recipe, task.device
        self._generator = torch.Generator().manual_seed(task.seed)
        self._left = torch.empty(0, dtype=torch.int64)  # of the epoch

    def next(self) -> dict[str, Tensor]:
        """Values of every input, on the network's device."""
        size = min(self._recipe.batch_size, len(self._calibration))
        if len(self._left) < size:
            self._left = torch.randperm(len(self._calibration), generator=self._generator)
        indices, self._left = self._left[:size], self._left[size:]
        return self._calibration.views(indices, self._recipe.augment, self._generator, self._device)

    def state(self) -> dict[str, Any]:
        """How far it is."""
        return {"generator": self._generator.get_state(), "left": self._left}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._generator.set_state(state["generator"])
        self._left = state["left"]
