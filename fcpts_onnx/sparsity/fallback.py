"""LEARN: the state that a run goes back to when it diverges."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fcpts_onnx.recipe import Recipe
from fcpts_onnx.sparsity.student import Student
from fcpts_onnx.sparsity.thresholds import Thresholds

__all__ = ["Fallback", "State"]

_LARGEST_COPIED = 2**27  # values of a network, half a GiB


@dataclass(frozen=True)
class State:
    """How things stood before a step."""

    step: int
    progress: float
    values: list[Tensor]
    thresholds: Thresholds


class Fallback:
    """The last state that proved good: learning went on well from it for a while.

    A network too large to be copied goes back to where it began.
    """

    def __init__(self, student: Student, thresholds: Thresholds, recipe: Recipe) -> None:
        groups = [*student.groups(recipe), *thresholds.groups(recipe)]
        self._parameters: list[nn.Parameter] = [p for group in groups for p in group["params"]]
        self._is_small = sum(p.numel() for p in self._parameters) <= _LARGEST_COPIED
        self._proved = self._newest = self._state(0, 0.0, thresholds)

    @property
    def step(self) -> int:
        """How far it is."""
        return self._proved.step

    def keep(self, step: int, progress: float, thresholds: Thresholds) -> None:
        """A state that does well proves the one kept before it, and is proved by the next."""
        if self._is_small and all(bool(p.isfinite().all()) for p in self._parameters):
            self._proved, self._newest = self._newest, self._state(step, progress, thresholds)

    def restored(self) -> State:
        """That state; the student has its values again, the thresholds are free to move on."""
        state = self._newest = self._proved
        with torch.no_grad():
            for parameter, value in zip(self._parameters, state.values, strict=True):
                parameter.copy_(value)
        return replace(state, thresholds=copy.copy(state.thresholds))

    def _state(self, step: int, progress: float, thresholds: Thresholds) -> State:
        values = [parameter.detach().clone() for parameter in self._parameters]
        return State(step, progress, values, copy.copy(thresholds))
