"""LEARN: the loop of Algorithm 1: thresholds and weights learned against the dense network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fcpts_onnx.checkpoint import NO_CHECKPOINT, Checkpoint
from fcpts_onnx.errors import FcptsError
from fcpts_onnx.recipe import Recipe
from fcpts_onnx.results import Progress, silent
from fcpts_onnx.sparsity.course import DivergedError
from fcpts_onnx.sparsity.fallback import State
from fcpts_onnx.sparsity.losses import reconstruction_loss
from fcpts_onnx.sparsity.precision import precision_of
from fcpts_onnx.sparsity.run import Optimizers, Run
from fcpts_onnx.sparsity.student import Student
from fcpts_onnx.sparsity.task import Task
from fcpts_onnx.sparsity.thresholds import Start, Thresholds

__all__ = ["Learned", "reconstruct"]

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
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> Learned:
    """Learn a sparse network from the dense one and unlabelled samples.

    A run that diverges goes on from its last good state at half the learning rate, twice.

    Args:
        start: the thresholds to learn with.
        seconds: how long to learn, instead of the recipe's epochs.
        checkpoint: what an interrupted run goes on from, and is kept in.

    Raises:
        FcptsError: it diverges all the same.
        Interrupted: a signal asked to stop.
    """
    run = Run(task, start, seconds, report, checkpoint)
    density = 1 - task.budget.target if task.recipe.rate_by_density else 1.0
    for part in _PARTS[_PARTS.index(run.part) :]:
        rate = task.recipe.learning_rate / density / part
        trial = replace(task, recipe=replace(task.recipe, learning_rate=rate))
        try:
            end = _learn(trial, part, run)
        except DivergedError as error:
            failure = f"{error}, with a learning rate of {rate:g}"
            if part < _PARTS[-1]:
                say(f"{failure}; going on from step {run.fallback.step} with half of it")
            continue
        history = tuple(run.meter.history)
        return Learned(end.student.finish(end.thresholds), history, end.thresholds.holds_target)
    raise FcptsError(f"{failure} too. Lower learning_rate in the recipe (--recipe FILE.toml).")


def _learn(task: Task, part: int, run: Run) -> State:
    """Learn to the end from the last good state, or from a checkpoint.

    Raises:
        DivergedError: the loss is no finite number, or far beyond what it can be.
    """
    recipe, team = task.recipe, task.team
    begun, found = run.begin(task.device)
    student, thresholds = begun.student, begun.thresholds
    optimizers = _optimizers(student, thresholds, recipe)
    if found is not None:
        begun = run.resume(found, begun, optimizers)
    state = begun
    for step, progress in run.course.since(begun.step, begun.progress):
        whole = run.samples.next()
        batch, weight = team.share(whole), team.weight(whole)
        _set_rate(optimizers, _rate(progress, recipe))
        values = student.values()
        masks = thresholds.masks
        thresholds.begin_step({k: v.detach() for k, v in values.items()}, progress)
        if student.make_up(values, masks, thresholds.masks):
            values = student.values()
        masked = thresholds.masked(values)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = _gradients_of(task, student, masked, weight, thresholds.control_loss(values), batch)
        team.average(_gradients(optimizers))
        for optimizer in optimizers:
            optimizer.step()
        state = replace(begun, step=step + 1, progress=progress)
        if run.meter.add(step + 1, run.course.length, loss, masked):
            run.fallback.keep(state)
        del values, masked  # before the next step makes them anew
        run.checkpoint.keep(partial(run.stored, part, state, optimizers))
    run.checkpoint.keep_last(partial(run.stored, part, state, optimizers))
    return begun


def _gradients_of(
    task: Task,
    student: Student,
    masked: dict[str, Tensor],
    weight: float,
    control: Tensor,
    batch: dict[str, Tensor],
) -> Tensor:
    """Leave the gradients of a batch in the parameters, and give back its loss.

    In several pieces the gradients of the masked weights are summed first, and pass on to what
    they were made of but once, as with the whole batch.
    """
    parts = task.pieces_of(batch)
    acting = masked
    if len(parts) > 1:
        acting = {name: value.detach().requires_grad_() for name, value in masked.items()}
    losses = []
    for piece, share in parts:
        loss = weight * share * _loss(task, student, acting, piece)
        losses.append(loss.detach())
        (loss + control if acting is masked else loss).backward()
    if acting is not masked:
        used = [name for name, value in acting.items() if value.grad is not None]
        torch.autograd.backward(
            [masked[name] for name in used], [acting[name].grad for name in used], retain_graph=True
        )
        if control.requires_grad:
            control.backward()
    return torch.stack(losses).sum()


def _loss(
    task: Task, student: Student, masked: dict[str, Tensor], batch: dict[str, Tensor]
) -> Tensor:
    with precision_of(task.recipe, student.device)():
        with torch.no_grad():
            expected = task.network(batch, student.dense)
        given = task.network(batch, student.tensors(masked))
    heads = (*task.heads, *task.features)
    return reconstruction_loss(expected, given, heads, task.recipe.temperature)


def _optimizers(student: Student, thresholds: Thresholds, recipe: Recipe) -> Optimizers:
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
