"""TWIN: what a network has made of its inputs before its last layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from fcpts_onnx.twin.steps import Step

__all__ = ["features"]

State = Literal["parameter", "input", "feature"]


def features(
    steps: Sequence[Step],
    inputs: Iterable[str],
    learned: Iterable[str],
    weights: Iterable[str],
    outputs: Sequence[str],
) -> tuple[str, ...]:
    """The values that the layers nearest to some outputs multiply with their weights.

    Args:
        steps: in the order of the graph.
        inputs: of the graph.
        learned: names of what is learned.
        weights: those of layers among them.
        outputs: from which to look back.
    """
    states: dict[str, State] = dict.fromkeys(inputs, "input")
    states |= dict.fromkeys(learned, "parameter")
    layered, producer = set(weights), {}
    for step in steps:
        kinds = {states[name] for name in step.reads & states.keys()}
        if not kinds or step.gradient in ("shapes", "ends"):
            continue
        found: State = "feature" if len(kinds) > 1 else kinds.pop()
        if found == "parameter" and not layered.isdisjoint(step.reads):
            layered.update(step.outputs)
        states |= dict.fromkeys(step.outputs, found)
        producer.update(dict.fromkeys(step.outputs, step))
    reached: dict[str, None] = {}
    open_names, seen = list(reversed(outputs)), set()
    while open_names:
        name = open_names.pop()
        if name in seen or name not in producer:
            continue
        seen.add(name)
        step = producer[name]
        before = [name for name in sorted(step.reads) if states.get(name) == "feature"]
        if layered.isdisjoint(step.reads):
            open_names.extend(reversed(before))
        else:
            reached |= dict.fromkeys(before)
    return tuple(reached)
