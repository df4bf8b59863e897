"""TWIN: what depends on the shapes of the inputs alone, computed once for each of them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fcpts_onnx.ops.devices import without_autocast
from fcpts_onnx.twin.steps import Step

__all__ = ["with_shapes_remembered"]

_READ_SHAPES = ("Shape", "Size")
_MOST_SHAPES = 64
_MOST_NUMBERS = 4096  # masks and the like, and what follows from them, are made anew


class _Remembered:
    """A step that gives the same object again where it is given the same."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._known: dict[Hashable, tuple[tuple[Any, ...], tuple[Any, ...]]] = {}

    def __call__(self, *values: Any) -> tuple[Any, ...]:
        if self._step.op in _READ_SHAPES:
            key, kept = values[0].shape, ()
        else:  # an id is that of what exists, so what it is the id of is kept
            key, kept = tuple(map(id, values)), values
        if key not in self._known:
            result = self._run(values)
            if _size(kept) + _size(result) > _MOST_NUMBERS:
                return result
            if len(self._known) == _MOST_SHAPES:
                self._known.clear()
            self._known[key] = kept, result
        return self._known[key][1]

    def _run(self, values: Sequence[Any]) -> tuple[Any, ...]:
        named = zip(self._step.inputs, values, strict=True)
        read = {name: value for name, value in named if name}
        # Within inference it could be no part of a gradient later; positions follow from shapes.
        with torch.inference_mode(False), without_autocast(*values):
            return self._step.run(read)


def _size(values: Sequence[Any]) -> int:
    return sum(value.numel() for value in values if value is not None)


def with_shapes_remembered(steps: Sequence[Step], constants: Mapping[str, Tensor]) -> list[Step]:
    """The steps, of which those that read shapes and constants alone remember what they gave.

    Graphs are full of them where a size is open; together they can take longer than the layers.
    They are computed in float32 also where layers are not.

    Args:
        constants: values by name that never change.
    """
    of_shapes: set[str] = set()
    found = []
    for step in steps:
        follows = step.reads <= of_shapes | constants.keys() and not step.bodies
        if step.op in _READ_SHAPES or (follows and step.reads & of_shapes):
            of_shapes.update(step.outputs)
            step = replace(step, function=_Remembered(step), numbers=frozenset(), attributes={})
        found.append(step)
    return found
