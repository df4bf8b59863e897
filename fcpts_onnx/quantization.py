"""FIND: weights that are stored as integers behind DequantizeLinear, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx import NodeProto

from fcpts_onnx.model import Model

__all__ = ["Coded", "Grid", "coded_outputs", "grid_behind"]

Array = np.ndarray[Any, Any]

_KINDS = ("int8", "uint8")
_AXIS_IS_LAST = 13  # the opset from which on Softmax is along the last axis, if not told
_NO_ZERO = 1e-12


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


@dataclass(frozen=True, eq=False)
class Coded:
    """What the whole numbers of an output mean.

    Attributes:
        grid: what they lie on.
        axis: of the distributions that were rounded to it; None if none were.
    """

    grid: Grid
    axis: int | None

    def values(self, stored: Array) -> Array:
        """Float values of what is stored; distributions sum to 1, as they did before."""
        found = self.grid.values(stored)
        if self.axis is None:
            return found
        found = found + _NO_ZERO  # classes may be so many that each is rounded to nothing
        shares: Array = found / found.sum(self.axis, keepdims=True)
        return shares


def coded_outputs(model: Model) -> dict[str, Coded]:
    """What the whole numbers of outputs mean that a QuantizeLinear with one scale gives, by output.

    Where its settings are no constants, or are of each channel, nothing is said.
    """
    found = {}
    producers = {name: node for node in model.proto.graph.node for name in node.output}
    for name in model.outputs:
        node = producers.get(name)
        if node is None or node.op_type != "QuantizeLinear":
            continue
        settings = [setting for setting in node.input[1:] if setting]
        if not {*settings} <= model.tensors.keys():
            continue
        scale, *zero_points = (model.array(setting) for setting in settings)
        zero_point = zero_points[0] if zero_points else np.zeros(scale.shape, "uint8")
        if scale.size != 1 or zero_point.size != 1 or zero_point.dtype.name not in _KINDS:
            continue
        kind, point = zero_point.dtype.name, zero_point.reshape(()).astype(np.int32)
        grid = Grid(name, scale.reshape(()).astype(np.float32), point, kind)
        found[name] = Coded(grid, _axis_of_distributions(producers.get(node.input[0]), model))
    return found


def _axis_of_distributions(node: NodeProto | None, model: Model) -> int | None:
    if node is None or node.op_type != "Softmax":
        return None
    usual = -1 if model.opsets[""] >= _AXIS_IS_LAST else 1
    return next((int(entry.i) for entry in node.attribute if entry.name == "axis"), usual)
