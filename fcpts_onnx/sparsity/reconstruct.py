"""LEARN: the loop of Algorithm 1: thresholds and weights learned against the dense network."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fcpts_onnx.errors import FcptsError
from fcpts_onnx.recipe import Recipe
from fcpts_onnx.results import Progress, silent
from fcpts_onnx.sparsity.losses import reconstruction_loss
from fcpts_onnx.sparsity.student import Student
from fcpts_onnx.sparsity.task import Task
from fcpts_onnx.sparsity.thresholds import Start, Thresholds
from fcpts_onnx.team import Team

__all__ = ["Learned", "reconstruct"]

_REPORTS = 200  # over a whole run
_PARTS = (1, 2, 4)  # what the learning rate is divided by, while it proves too high


@dataclass(frozen=True)
class Learned:
    """What learning gives.

    Attributes:
        tensors: the values of the learned tensors by their name in the graph, float32 on the CPU;
            the weights among them have exactly the zeros of the budget, if the target is held.
        history: loss and sparsity over the run.
        holds_target: whether the method is one that can.
    """

    tensors: dict[str, Tensor]
    history: tuple[Progress, ...] = ()
    holds_target: bool = True


def reconstruct(
    task: Task,
    start: Start,
    *,
    seconds: float | None = None,
    say: Callable[[str], None] = silent,
    report: Callable[[Progress], None] = silent,
) -> Learned:
    """Learn a sparse network from the dense one and unlabelled samples.

    A run that diverges starts anew from the dense network at half the learning rate, twice.

    Args:
        start: the thresholds to learn with.
        seconds: how long to learn, instead of the recipe's epochs.

    Raises:
        FcptsError: the loss becomes NaN or Inf all the same.
    """
    course = _Course(_steps(len(task.calibration), task.recipe), seconds, task.team)
    density = 1 - task.budget.target if task.recipe.rate_by_density else 1.0
    for part in _PARTS:
        rate = task.recipe.learning_rate / density / part
        trial = replace(task, recipe=replace(task.recipe, learning_rate=rate))
        try:
            return _learn(trial, start, course, report)
        except _DivergedError as error:
            failure = f"{error}, with a learning rate of {rate:g}"
            say(failure)
    raise FcptsError(f"{failure} too. Lower learning_rate in the recipe (--recipe FILE.toml).")


def _learn(
    task: Task, start: Start, course: _Course, report: Callable[[Progress], None]
) -> Learned:
    network, recipe, team = task.network, task.recipe, task.team
    student = Student(network, task.weights, recipe)
    thresholds = start(student.values(), task)
    optimizer = _optimizer(student, thresholds, recipe)
    batches = _batches(task, student.device)
    precision = _precision(recipe, student.device)
    meter = _Meter(team, report)
    heads = (*task.heads, *task.features)
    for step, progress in course:
        whole = next(batches)
        batch, part = team.share(whole), team.weight(whole)
        _set_rate(optimizer, _rate(progress, recipe))
        values = student.values()
        thresholds.begin_step({k: v.detach() for k, v in values.items()}, progress)
        masked = thresholds.masked(values)
        with precision():
            with torch.no_grad():
                expected = network(batch, student.dense)
            found = network(batch, student.tensors(masked))
        loss = reconstruction_loss(expected, found, heads, recipe.temperature)
        optimizer.zero_grad()
        (loss * part + thresholds.control_loss(values)).backward()
        team.average(_gradients(optimizer))
        optimizer.step()
        meter.add(step + 1, course.length, loss.detach() * part, masked)
        del values, masked, expected, found, loss  # before the next step makes them anew
    learned = student.finish(thresholds)
    return Learned(learned, tuple(meter.history), thresholds.holds_target)


class _DivergedError(Exception):
    """The loss is no finite number."""


class _Course:
    """How long a run is, by steps or by time: iterates (step, progress from 0 to 1).

    Attributes:
        length: the number of steps; by time, as many as the pace so far allows.
    """

    def __init__(self, steps: int, seconds: float | None, team: Team) -> None:
        self.length, self._team = steps, team
        self._end = None if seconds is None else time.monotonic() + seconds

    def __iter__(self) -> Iterator[tuple[int, float]]:
        if self._end is None:
            yield from ((step, step / self.length) for step in range(self.length))
            return
        start = time.monotonic()
        (seconds,) = self._team.mean([self._end - start])
        step, elapsed = 0, 0.0
        # Another step has to fit; the first one is taken in any case.
        while not step or elapsed * (step + 1) <= seconds * step:
            self.length = max(step + 1, round(step * seconds / elapsed) if elapsed else 1)
            yield step, min(1.0, elapsed / seconds) if step else 0.0
            step, (elapsed,) = step + 1, self._team.mean([time.monotonic() - start])


class _Meter:
    """Averages the loss and reports it some times during a run."""

    def __init__(self, team: Team, report: Callable[[Progress], None]) -> None:
        self._team, self._report = team, report
        self._losses: list[Tensor] = []
        self.history: list[Progress] = []
        self._start = time.monotonic()

    def add(self, step: int, steps: int, loss: Tensor, masked: dict[str, Tensor]) -> None:
        """Count a step of so many.

        Raises:
            _DivergedError: the loss is not a finite number.
        """
        self._losses.append(loss)
        if step % max(1, steps // _REPORTS) and step != steps:
            return
        (mean,) = self._team.mean([torch.stack(self._losses).mean().item()])
        self._losses.clear()
        if not math.isfinite(mean):
            raise _DivergedError(f"Learning diverged: the loss is {mean} at step {step} of {steps}")
        zeros = {name: v.numel() - int(v.count_nonzero()) for name, v in masked.items()}
        sparsity = sum(zeros.values()) / sum(value.numel() for value in masked.values())
        rates = {name: zeros[name] / value.numel() for name, value in masked.items()}
        seconds = time.monotonic() - self._start
        self.history.append(Progress(step, steps, mean, sparsity, seconds, rates))
        self._report(self.history[-1])


def _steps(samples: int, recipe: Recipe) -> int:
    a_pass = max(1, samples // recipe.batch_size)
    return max(recipe.min_steps, round(recipe.epochs * a_pass))


def _optimizer(student: Student, thresholds: Thresholds, recipe: Recipe) -> torch.optim.Optimizer:
    groups = [*student.groups(recipe), *thresholds.groups()]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, recipe.learning_rate, recipe.momentum, fused=True)
    betas = (recipe.momentum, 0.99)
    return torch.optim.AdamW(groups, recipe.learning_rate, betas=betas, fused=True)


def _gradients(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    parameters = (value for group in optimizer.param_groups for value in group["params"])
    return [value.grad for value in parameters if value.grad is not None]


def _set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Scale each group's learning rate from what it was given at first."""
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


def _rate(progress: float, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine from 1 to 0."""
    if progress < recipe.warmup or recipe.warmup == 1:
        return progress / recipe.warmup
    return 0.5 + 0.5 * math.cos(math.pi * (progress - recipe.warmup) / (1 - recipe.warmup))


def _batches(task: Task, device: torch.device) -> Iterator[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(task.seed)
    for indices in task.calibration.shuffled(task.recipe.batch_size, generator):
        batch = task.calibration.views(indices, task.recipe.augment, generator)
        yield {name: value.to(device, non_blocking=True) for name, value in batch.items()}


def _precision(
    recipe: Recipe, device: torch.device
) -> Callable[[], AbstractContextManager[object]]:
    """A context for the passes: bfloat16 where the recipe, or the processor, says so."""
    half = recipe.precision == "bfloat16"
    if recipe.precision == "auto":
        half = (
            torch.cuda.is_bf16_supported()
            if device.type == "cuda"
            else bool(torch.cpu.get_capabilities().get("amx_bf16", False))
        )
    return lambda: torch.autocast(device.type, torch.bfloat16, enabled=half)
