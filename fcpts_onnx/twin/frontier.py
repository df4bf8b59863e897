"""TWIN: where gradients stop: the last tensors that learning can compare."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from fcpts_onnx.twin.steps import Step

__all__ = ["frontier"]

# A gradient passes, as if nothing were rounded; to compare, what is not rounded yet is better.
_ROUNDING = ("QuantizeLinear", "DynamicQuantizeLinear")

State = Literal["fixed", "smooth", "mask", "chosen"]


def frontier(
    steps: Sequence[Step], learned: Collection[str], outputs: Sequence[str]
) -> tuple[str, ...]:
    """The last values before each output that gradients of the learned tensors reach.

    An output that they reach is one itself. Detectors end in NonMaxSuppression, TopK, ArgMax or
    casts to integers: what follows belongs to other places for other weights, so that dense
    and sparse cannot be compared there, and what went into it takes the output's place. What is
    learned behind a choice is nothing to compare.

    Args:
        steps: in the order of the graph.
        learned: names of what is learned.
    """
    states: dict[str, State] = dict.fromkeys(learned, "smooth")
    producer = {}
    for step in steps:
        reads = step.inputs[:1] if step.gradient == "values" else step.reads
        found = _outcome(step, {states.get(name or "", "fixed") for name in reads})
        for place, name in enumerate(step.outputs):
            if name in learned:
                continue
            states[name] = "chosen" if found == "smooth" and _counts(step, place) else found
            producer[name] = step
    reached: dict[str, None] = {}
    seen: set[str] = set()
    open_names = list(reversed(outputs))
    while open_names:
        name = open_names.pop()
        if name in seen or name in learned:
            continue
        seen.add(name)
        is_rounded = name in producer and producer[name].op in _ROUNDING
        if states.get(name) == "smooth" and not is_rounded:
            reached[name] = None
        elif states.get(name, "fixed") != "fixed":
            open_names.extend(sorted(producer[name].reads, reverse=True))
    return tuple(reached)


def _outcome(step: Step, inputs: set[State]) -> State:
    """What a step makes of what it reads."""
    if step.gradient == "shapes" or inputs <= {"fixed"}:
        return "fixed"
    if "chosen" in inputs or step.gradient == "ends":
        return "chosen"
    if step.gradient == "masks" or "smooth" not in inputs:
        return "mask"
    return "smooth"


def _counts(step: Step, place: int) -> bool:
    """Whether an output holds places instead of values."""
    return step.gradient == "first" and place > 0
