"""FIND: weights that are stored as integers behind DequantizeLinear, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from fcpts_onnx.model import Model

__all__ = ["Grid", "grid_behind", "grids_of_outputs"]

Array = np.ndarray[Any, Any]

_KINDS = ("int8", "uint8")


@dataclass(frozen=True, eq=False)
class Grid:
    """value = (stored - zero_point) * scale.

    Attributes:
        value: the name of the float tensor, DequantizeLinear's output.
        scale: float32, in a shape that multiplies the weight.
        zero_point: int32, of the same shape; what is stored for a zero.
        kind: the stored type.
    """

    value: str
    scale: Array
    zero_point: Array
    kind: str

    @property
    def step(self) -> Array:
        """What to divide by: the scale, and next to nothing where it is 0, as all values are."""
        return np.where(self.scale == 0, np.finfo(np.float32).tiny, self.scale)

    @property
    def is_sound(self) -> bool:
        """Whether no scale is negative, infinite or no number."""
        return bool((np.isfinite(self.scale) & (self.scale >= 0)).all())

    @property
    def limits(self) -> tuple[Array, Array]:
        """The least and greatest value, in steps of the scale."""
        info = np.iinfo(self.kind)
        return info.min - self.zero_point, info.max - self.zero_point

    def values(self, stored: Array) -> Array:
        """Float values of what is stored."""
        return ((stored.astype(np.int32) - self.zero_point) * self.scale).astype(np.float32)

    def stored(self, values: Array) -> Array:
        """What is stored for values that lie on the grid."""
        return (np.round(values / self.step).astype(np.int32) + self.zero_point).astype(self.kind)


def grid_behind(model: Model, source: gs.Tensor, kind: str) -> Grid | None:
    """The grid of a stored tensor that one DequantizeLinear with constant settings reads.

    Blocked quantisation is not among them, nor settings that do not fit the tensor.
    """
    node = source.outputs[0] if len(source.outputs) == 1 else None
    if kind not in _KINDS or node is None or node.op != "DequantizeLinear":
        return None
    settings = [tensor.name for tensor in node.inputs[1:] if tensor.name]
    if node.attrs.get("block_size") or not set(settings) <= model.tensors.keys():
        return None
    scale = model.array(settings[0]).astype(np.float32)
    zero_point = model.array(settings[1]) if settings[1:] else np.zeros(scale.shape, kind)
    if scale.size != zero_point.size or zero_point.dtype != kind:
        return None
    if scale.ndim:
        sizes, axis = model.tensors[source.name].dims, node.attrs.get("axis", 1)
        shape = [1] * len(sizes)
        if scale.size != 1:
            if not -len(sizes) <= axis < len(sizes) or sizes[axis] != scale.size:
                return None
            shape[axis] = scale.size
        scale, zero_point = scale.reshape(shape), zero_point.reshape(shape)
    return Grid(node.outputs[0].name, scale, zero_point.astype(np.int32), kind)


def grids_of_outputs(model: Model) -> dict[str, Grid]:
    """What the whole numbers of outputs mean that a QuantizeLinear with one scale gives, by output.

    Where its settings are no constants, or are of each channel, nothing is said.
    """
    found = {}
    for node in model.proto.graph.node:
        settings = [name for name in node.input[1:] if name]
        if node.op_type != "QuantizeLinear" or not {*settings} <= model.tensors.keys():
            continue
        scale, *zero_points = (model.array(name) for name in settings)
        zero_point = zero_points[0] if zero_points else np.zeros(scale.shape, "uint8")
        single = scale.size == zero_point.size == 1 and zero_point.dtype.name in _KINDS
        if single and node.output[0] in model.outputs:
            scale, kind = scale.reshape(()).astype(np.float32), zero_point.dtype.name
            zero_point = zero_point.reshape(()).astype(np.int32)
            found[node.output[0]] = Grid(node.output[0], scale, zero_point, kind)
    return found
