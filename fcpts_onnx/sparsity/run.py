"""LEARN: a run under way: how far it is, its samples and losses, and what it can go back to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fcpts_onnx.checkpoint import Checkpoint
from fcpts_onnx.packing import moved
from fcpts_onnx.recipe import Recipe
from fcpts_onnx.results import Progress
from fcpts_onnx.sparsity.course import Course, Meter
from fcpts_onnx.sparsity.fallback import Fallback, State
from fcpts_onnx.sparsity.losses import reconstruction_loss
from fcpts_onnx.sparsity.samples import Samples
from fcpts_onnx.sparsity.task import Task
from fcpts_onnx.sparsity.thresholds import Start

__all__ = ["Optimizers", "Run", "epochs_of", "steps_of"]

Optimizers = Sequence[torch.optim.Optimizer]


class Run:
    """What goes on when learning falls back to an earlier state, or in another process.

    Args:
        start: the thresholds to learn with.
        seconds: how long to learn, instead of the recipe's epochs.
        report: told how it goes.
        checkpoint: what it goes on from, and is kept in.
    """

    def __init__(
        self,
        task: Task,
        start: Start,
        seconds: float | None,
        report: Callable[[Progress], None],
        checkpoint: Checkpoint,
    ) -> None:
        steps = steps_of(len(task.calibration), task.recipe)
        self.course = Course(steps, seconds, task.team)
        self.samples = Samples(task)
        self.meter = Meter(task.team, _of_nothing(task), report)
        self.fallback = Fallback(task, start)
        self.checkpoint = checkpoint

    @property
    def part(self) -> int:
        """What the learning rate was divided by when the checkpoint was kept."""
        return 1 if self.checkpoint.found is None else int(self.checkpoint.found["part"])

    def begin(self, device: torch.device) -> tuple[State, dict[str, Any] | None]:
        """The last good state; or a new one, with what a checkpoint is to make of it."""
        found, self.checkpoint.found = self.checkpoint.found, None
        if found is None:
            return self.fallback.restored(), None
        return self.fallback.beginning(), {
            name: entry if name == "samples" else moved(entry, device)
            for name, entry in found.items()
        }

    @torch.no_grad()
    def resume(self, found: dict[str, Any], begun: State, optimizers: Optimizers) -> State:
        """Make of a new state, and of all else, what was kept."""
        self.fallback.take_back(found["fallback"], begun)
        for parameter, value in zip(begun.parameters(), found["values"], strict=True):
            parameter.copy_(value)
        begun.thresholds.restore(found["thresholds"])
        for optimizer, entries in zip(optimizers, found["optimizers"], strict=True):
            for parameter, entry in zip(_moved_by(optimizer), entries, strict=True):
                optimizer.state[parameter] = entry
        self.samples.restore(found["samples"])
        self.meter.restore(found["meter"])
        self.course.skip(found["meter"]["seconds"])
        return replace(begun, step=found["step"], progress=found["progress"])

    def stored(self, part: int, state: State, optimizers: Optimizers) -> dict[str, Any]:
        """All that a run goes on from."""
        return {
            "part": part,
            "step": state.step,
            "progress": state.progress,
            "values": state.parameters(),
            "thresholds": state.thresholds.state(),
            "optimizers": [
                [dict(optimizer.state[parameter]) for parameter in _moved_by(optimizer)]
                for optimizer in optimizers
            ],
            "samples": self.samples.state(),
            "meter": self.meter.state(),
            "fallback": self.fallback.stored(),
        }


def steps_of(samples: int, recipe: Recipe) -> int:
    """How many steps a recipe takes with so many samples."""
    return max(recipe.min_steps, round(recipe.epochs * _steps_of_epoch(samples, recipe)))


def epochs_of(samples: int, recipe: Recipe) -> float:
    """How often a recipe goes through so many samples."""
    return steps_of(samples, recipe) / _steps_of_epoch(samples, recipe)


def _steps_of_epoch(samples: int, recipe: Recipe) -> int:
    return max(1, samples // recipe.batch_size)


def _moved_by(optimizer: torch.optim.Optimizer) -> Iterator[nn.Parameter]:
    for group in optimizer.param_groups:
        yield from group["params"]


def _of_nothing(task: Task) -> float:
    """The loss of outputs that are all zero."""
    samples = torch.arange(min(task.recipe.batch_size, len(task.calibration)))
    parts = task.pieces_of(task.calibration.take(samples))
    return sum(share * _loss_of_nothing(task, piece) for piece, share in parts) or math.inf


@torch.no_grad()
def _loss_of_nothing(task: Task, batch: dict[str, Tensor]) -> float:
    expected = task.network(batch, {})
    zeros = {name: torch.zeros_like(value) for name, value in expected.items()}
    heads = (*task.heads, *task.features)
    return float(reconstruction_loss(expected, zeros, heads, task.recipe.temperature))
