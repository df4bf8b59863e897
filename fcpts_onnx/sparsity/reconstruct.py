"""LEARN: the loop of Algorithm 1: thresholds and weights learned against the dense network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fcpts_onnx.errors import FcptsError
from fcpts_onnx.recipe import Recipe
from fcpts_onnx.results import Progress, silent
from fcpts_onnx.sparsity.course import Course, DivergedError, Meter
from fcpts_onnx.sparsity.fallback import Fallback, State
from fcpts_onnx.sparsity.losses import reconstruction_loss
from fcpts_onnx.sparsity.student import Student
from fcpts_onnx.sparsity.task import Task
from fcpts_onnx.sparsity.thresholds import Start, Thresholds

__all__ = ["Learned", "reconstruct", "steps_of"]

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

    A run that diverges goes on from its last good state at half the learning rate, twice.

    Args:
        start: the thresholds to learn with.
        seconds: how long to learn, instead of the recipe's epochs.

    Raises:
        FcptsError: it diverges all the same.
    """
    fallback = Fallback(task, start)
    run = _Run(
        Course(steps_of(len(task.calibration), task.recipe), seconds, task.team),
        _batches(task),
        Meter(task.team, _of_nothing(task), report),
    )
    density = 1 - task.budget.target if task.recipe.rate_by_density else 1.0
    for part in _PARTS:
        rate = task.recipe.learning_rate / density / part
        trial = replace(task, recipe=replace(task.recipe, learning_rate=rate))
        try:
            end = _learn(trial, fallback, run)
        except DivergedError as error:
            failure = f"{error}, with a learning rate of {rate:g}"
            if part < _PARTS[-1]:
                say(f"{failure}; going on from step {fallback.step} with half of it")
            continue
        history = tuple(run.meter.history)
        return Learned(end.student.finish(end.thresholds), history, end.thresholds.holds_target)
    raise FcptsError(f"{failure} too. Lower learning_rate in the recipe (--recipe FILE.toml).")


@dataclass(frozen=True)
class _Run:
    """What goes on when learning falls back: how far it is, the samples, the losses."""

    course: Course
    batches: Iterator[dict[str, Tensor]]
    meter: Meter


def _learn(task: Task, fallback: Fallback, run: _Run) -> State:
    """Learn to the end from the last good state.

    Raises:
        DivergedError: the loss is no finite number, or far beyond what it can be.
    """
    network, recipe, team = task.network, task.recipe, task.team
    begun = fallback.restored()
    student, thresholds = begun.student, begun.thresholds
    optimizers = _optimizers(student, thresholds, recipe)
    precision = _precision(recipe, student.device)
    heads = (*task.heads, *task.features)
    for step, progress in run.course.since(begun.step, begun.progress):
        whole = next(run.batches)
        batch, part = team.share(whole), team.weight(whole)
        _set_rate(optimizers, _rate(progress, recipe))
        values = student.values()
        thresholds.begin_step({k: v.detach() for k, v in values.items()}, progress)
        masked = thresholds.masked(values)
        with precision():
            with torch.no_grad():
                expected = network(batch, student.dense)
            found = network(batch, student.tensors(masked))
        loss = reconstruction_loss(expected, found, heads, recipe.temperature)
        for optimizer in optimizers:
            optimizer.zero_grad()
        (loss * part + thresholds.control_loss(values)).backward()
        team.average(_gradients(optimizers))
        for optimizer in optimizers:
            optimizer.step()
        if run.meter.add(step + 1, run.course.length, loss.detach() * part, masked):
            fallback.keep(replace(begun, step=step + 1, progress=progress))
        del values, masked, expected, found, loss  # before the next step makes them anew
    return begun


def _of_nothing(task: Task) -> float:
    """The loss of outputs that are all zero."""
    samples = torch.arange(min(task.recipe.batch_size, len(task.calibration)))
    with torch.no_grad():
        expected = task.network(task.batch(samples), {})
        zeros = {name: torch.zeros_like(value) for name, value in expected.items()}
        heads = (*task.heads, *task.features)
        loss = reconstruction_loss(expected, zeros, heads, task.recipe.temperature)
    return float(loss) or math.inf


def steps_of(samples: int, recipe: Recipe) -> int:
    """How many steps a recipe takes with so many samples."""
    a_pass = max(1, samples // recipe.batch_size)
    return max(recipe.min_steps, round(recipe.epochs * a_pass))


def _optimizers(
    student: Student, thresholds: Thresholds, recipe: Recipe
) -> list[torch.optim.Optimizer]:
    """What moves the weights, and what moves the thresholds, if they are learned."""
    parts = (
        (recipe.optimizer, student.groups(recipe)),
        (thresholds.optimizer, thresholds.groups(recipe)),
    )
    return [_optimizer(name, groups, recipe) for name, groups in parts if groups]


def _optimizer(name: str, groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    if name == "sgd":
        return torch.optim.SGD(groups, recipe.learning_rate, recipe.momentum, fused=True)
    betas = (recipe.momentum, 0.99)
    return torch.optim.AdamW(groups, recipe.learning_rate, betas=betas, fused=True)


def _gradients(optimizers: Sequence[torch.optim.Optimizer]) -> list[Tensor]:
    groups = (group for optimizer in optimizers for group in optimizer.param_groups)
    parameters = (value for group in groups for value in group["params"])
    return [value.grad for value in parameters if value.grad is not None]


def _set_rate(optimizers: Sequence[torch.optim.Optimizer], factor: float) -> None:
    """Scale each group's learning rate from what it was given at first."""
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


def _rate(progress: float, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine from 1 to 0."""
    if progress < recipe.warmup or recipe.warmup == 1:
        return progress / recipe.warmup
    return 0.5 + 0.5 * math.cos(math.pi * (progress - recipe.warmup) / (1 - recipe.warmup))


def _batches(task: Task) -> Iterator[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(task.seed)
    for indices in task.calibration.shuffled(task.recipe.batch_size, generator):
        batch = task.calibration.views(indices, task.recipe.augment, generator)
        yield {name: value.to(task.device, non_blocking=True) for name, value in batch.items()}


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
