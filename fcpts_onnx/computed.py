"""FIND: constants that a graph computes the weight of a layer from, as weight norm does."""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx_graphsurgeon as gs

from fcpts_onnx.flow import READ_SHAPES, constant_of, is_constant

__all__ = ["computed_from"]


def computed_from(value: gs.Tensor) -> Iterator[gs.Tensor]:
    """The stored matrices that a value inside a graph is computed from; of vectors it is none."""
    open_values, seen = [value], {id(value)}
    while open_values:
        found = open_values.pop()
        if is_constant(found):
            shape = constant_of(found).shape
            if math.prod(shape) > max(shape, default=1):
                yield found
            continue
        for node in found.inputs:
            if node.op in READ_SHAPES and not node.domain:
                continue
            fresh = [tensor for tensor in node.inputs if id(tensor) not in seen]
            seen.update(map(id, fresh))
            open_values.extend(reversed(fresh))
