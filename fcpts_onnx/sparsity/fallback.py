"""LEARN: the state that a run goes back to when it diverges."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from fcpts_onnx.sparsity.student import Student
from fcpts_onnx.sparsity.task import Task
from fcpts_onnx.sparsity.thresholds import Start, Thresholds

__all__ = ["LARGEST_COPIED", "Fallback", "State"]

LARGEST_COPIED = 2**27
"""Values of a network that is copied to be gone back to: half a GiB of them."""


@dataclass(frozen=True)
class State:
    """How things stand before a step."""

    step: int
    progress: float
    student: Student
    thresholds: Thresholds

    def parameters(self) -> list[nn.Parameter]:
        """All that optimizers move; what is held goes on changing."""
        return self.student.parameters() + self.thresholds.parameters()


@dataclass(frozen=True)
class _Copy:
    """A state with the values of its parameters, which go on changing."""

    state: State
    values: list[Tensor]


class Fallback:
    """The last state that proved good: learning went on well from it for a while.

    At first, and always for a network too large to be copied, that is the dense one.
    """

    def __init__(self, task: Task, start: Start) -> None:
        self._task, self._start = task, start
        self._proved: _Copy | None = None
        self._newest: _Copy | None = None

    @property
    def step(self) -> int:
        """How far it is."""
        return 0 if self._proved is None else self._proved.state.step

    def beginning(self) -> State:
        """The dense network, before the first step."""
        task = self._task
        student = Student(task.network, task.weights, task.recipe, task.centres, task.compensations)
        return State(0, 0.0, student, self._start(student.values(), task))

    def stored(self) -> list[dict[str, Any] | None]:
        """What it keeps, for a checkpoint."""
        return [None if copy is None else _stored(copy) for copy in (self._proved, self._newest)]

    def take_back(self, stored: Sequence[dict[str, Any] | None], begun: State) -> None:
        """What was stored, as copies of a state that goes on."""
        self._proved, self._newest = (
            None if entry is None else _taken_back(entry, begun) for entry in stored
        )

    def keep(self, state: State) -> None:
        """A state that does well proves the one kept before it, and is proved by the next."""
        parameters = state.parameters()
        is_small = sum(value.numel() for value in parameters) <= LARGEST_COPIED
        if is_small and all(bool(value.isfinite().all()) for value in parameters):
            values = [value.detach().clone() for value in parameters]
            kept = replace(state, thresholds=copy.copy(state.thresholds))
            self._proved, self._newest = self._newest, _Copy(kept, values)

    def restored(self) -> State:
        """That state, to go on from; or the beginning."""
        self._newest = self._proved
        if self._proved is None:
            return self.beginning()
        state = self._proved.state
        with torch.no_grad():
            for parameter, value in zip(state.parameters(), self._proved.values, strict=True):
                parameter.copy_(value)
        return replace(state, thresholds=copy.copy(state.thresholds))


def _stored(kept: _Copy) -> dict[str, Any]:
    state = kept.state
    return {
        "step": state.step,
        "progress": state.progress,
        "thresholds": state.thresholds.state(),
        "values": kept.values,
    }


def _taken_back(stored: dict[str, Any], begun: State) -> _Copy:
    thresholds = copy.copy(begun.thresholds)
    thresholds.restore(stored["thresholds"])
    state = replace(begun, step=stored["step"], progress=stored["progress"], thresholds=thresholds)
    return _Copy(state, stored["values"])
