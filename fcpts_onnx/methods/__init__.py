"""RIVALS: rules that share sparsity among layers, one a file; none knows another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fcpts_onnx.errors import TargetError
from fcpts_onnx.methods.erk import erk
from fcpts_onnx.methods.fisher import fisher
from fcpts_onnx.methods.lamp import lamp
from fcpts_onnx.methods.magnitude import global_magnitude, l1norm, l2norm
from fcpts_onnx.methods.stored import stored_rates
from fcpts_onnx.methods.uniform import uniform
from fcpts_onnx.sparsity.task import Task

__all__ = ["ALLOCATIONS", "LEARNED", "Allocation", "allocated", "allocation"]

Allocation = Callable[[Task], dict[str, float]]
"""Zeros by weight, any real numbers whose sum is about the budget's."""

LEARNED = "learned"
ALLOCATIONS: dict[str, Allocation] = {
    "uniform": uniform,
    "global": global_magnitude,
    "l1norm": l1norm,
    "l2norm": l2norm,
    "erk": erk,
    "lamp": lamp,
    "fisher": fisher,
}


def allocation(name: str) -> Allocation | None:
    """A rule by its name, or rates from a JSON file; None where they are learned.

    Raises:
        TargetError: there is no such rule, or the file has no rates.
    """
    if name == LEARNED:
        return None
    if name.endswith(".json"):
        return stored_rates(Path(name))
    if name not in ALLOCATIONS:
        raise TargetError(
            f"--allocate {name} is unknown; expected {LEARNED}, {', '.join(ALLOCATIONS)} or a "
            ".json file."
        )
    return ALLOCATIONS[name]


def allocated(task: Task, rule: Allocation | None) -> Task:
    """The task with as many zeros for each weight as the rule says, on the budget; or as it was."""
    return task if rule is None else replace(task, zeros=task.budget.counts(rule(task)))
