"""FIND: which initializers can be pruned, and why the others cannot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto, helper

from fcpts_onnx.computed import computed_from
from fcpts_onnx.fixed import why_never_trained
from fcpts_onnx.flow import (
    PASS_THROUGH,
    READ_SHAPES,
    RESHAPING,
    before_outputs,
    constant_of,
    graphs_inside,
    is_constant,
    is_fixed,
    passed_on,
    uses_of,
    without_inputs,
)
from fcpts_onnx.model import Model
from fcpts_onnx.quantization import Grid, grid_behind

__all__ = [
    "LEARNED_TYPES",
    "Norm",
    "Weight",
    "count_zeros",
    "find_weights",
    "is_named",
    "node_label",
    "nodes_by_label",
]

LEARNED_TYPES = {
    helper.tensor_dtype_to_np_dtype(kind).name: kind
    for kind in (
        TensorProto.FLOAT,
        TensorProto.DOUBLE,
        TensorProto.FLOAT16,
        TensorProto.BFLOAT16,
    )
}
"""ONNX's number of each float type that is learned, by numpy's name of it."""

# Input positions that hold the weights of an operator.
_WEIGHT_INPUTS = {"Conv": (1,), "ConvTranspose": (1,), "Gemm": (0, 1), "MatMul": (0, 1)}

_Axes = tuple[int | None, int | None]
"""Of a weight: the axis of output channels and that of input channels, None where there is none."""
_NO_AXES: _Axes = (None, None)


@dataclass(frozen=True)
class Norm:
    """A BatchNormalization right behind a layer, which multiplies each channel by a gain.

    Attributes:
        scale, shift, mean, variance: the names of its parameters.
        epsilon: what it adds to the variance.
    """

    scale: str
    shift: str
    mean: str
    variance: str
    epsilon: float


@dataclass(frozen=True)
class Weight:
    """One constant tensor that serves as the weight of a layer: a candidate for pruning.

    Attributes:
        name: the initializer, or the output of the Constant node.
        op: the operator it is a weight of.
        nodes: the nodes that use it so; more than one when it is shared.
        channel_axis: the axis of output channels in the stored layout, None where there is none.
        zeros: how many of its values are zero already.
        excluded: why it is not pruned, None when it is.
        norm: the batch norm that all its output goes through, if there is one.
        grid: what its integers mean, where it is stored as such.
        input_axis: the axis of input channels in the stored layout, None where there is none.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    op: str
    nodes: tuple[str, ...]
    channel_axis: int | None
    zeros: int
    excluded: str | None = None
    norm: Norm | None = None
    grid: Grid | None = field(default=None, metadata={"json": False})  # arrays, in the model
    input_axis: int | None = None

    @property
    def value(self) -> str:
        """The name of its values in float: its own, or that of what DequantizeLinear gives."""
        return self.name if self.grid is None else self.grid.value

    @property
    def count(self) -> int:
        """The number of values."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def channels(self) -> int | None:
        """The number of output channels, where there is an axis of them."""
        return None if self.channel_axis is None else self.shape[self.channel_axis]


def find_weights(model: Model) -> list[Weight]:
    """Every candidate once, in the order of the graph, shared ones at their first use."""
    stored, model = model.tensors.keys(), model.inlined()
    graph_outputs, live = set(model.outputs), before_outputs(model.graph)
    fixed = without_inputs(model.graph)
    found: dict[str, Weight] = {}
    for graph, scope in _graphs(model.graph):
        for node in graph.nodes:
            for position in _WEIGHT_INPUTS.get(node.op, ()) if not node.domain else ():
                if position >= len(node.inputs):
                    continue
                source, axes = _trace(node.inputs[position], _axes(node, position))
                if not is_constant(source):
                    for weight in _computed(model, source, node, fixed):
                        found.setdefault(weight.name, weight)
                elif source.name in found:
                    found[source.name] = _shared(found[source.name], node, axes)
                else:
                    weight = _describe(model, source, node, axes, scope)
                    reason = weight.excluded or _other_use(source, graph_outputs, live, fixed)
                    if reason is None and source.name not in stored:
                        reason = "a constant inside a function"
                    reason = reason or _never_trained(model, weight, node)
                    norm = _norm_after(node, model) if position else None
                    found[source.name] = replace(weight, excluded=reason, norm=norm)
    return list(found.values())


def count_zeros(model: Model, weight: Weight) -> int:
    """How many values of a weight are zero: stored as their zero point, if as integers."""
    zero = 0 if weight.grid is None else weight.grid.zero_point
    return int((model.array(weight.name) == zero).sum())


def nodes_by_label(model: Model) -> dict[str, gs.Node]:
    """The nodes of a model, functions taken apart, by what weights call them."""
    return {node_label(node): node for node in model.inlined().graph.nodes}


def is_named(pattern: str, *names: str) -> bool:
    """Whether a glob fits one of some names, or is one: names may have brackets."""
    return any(name == pattern or fnmatchcase(name, pattern) for name in names)


def node_label(node: gs.Node) -> str:
    """What to call a node in a message: its name, or its operator and first output."""
    outputs = [tensor.name for tensor in node.outputs]
    return node.name or f"{node.op} -> {outputs[0] if outputs else '?'}"


def _graphs(graph: gs.Graph) -> Iterator[tuple[gs.Graph, str | None]]:
    """The graph and those inside its nodes, each with the node of the graph that it lies in."""
    yield graph, None
    for node in graph.nodes:
        for body in graphs_inside(node):
            yield body, f"{node.op} node {node_label(node)!r}"


def _axes(node: gs.Node, position: int) -> _Axes:
    """Those of a weight as the node sees it; for MatMul from the end."""
    if node.op == "Conv":
        return 0, 1
    if node.op == "ConvTranspose":
        return (1, 0) if node.attrs.get("group", 1) == 1 else _NO_AXES
    if node.op == "Gemm":
        transposed = node.attrs.get("transB" if position else "transA", 0)
        channels = int(bool(transposed) != bool(position))
        return channels, 1 - channels
    return (-1, -2) if position else (-2, -1)


def _trace(tensor: gs.Tensor, axes: _Axes = _NO_AXES) -> tuple[gs.Tensor, _Axes]:
    """Walk back from a node's input to where its values are stored, and the axes along."""
    while not is_constant(tensor) and tensor.inputs:
        producer = tensor.inputs[0]
        if producer.domain or producer.op not in PASS_THROUGH:
            break
        if producer.op in RESHAPING:
            axes = _NO_AXES
        if producer.op == "Transpose":
            perm = producer.attrs.get("perm")
            axes = _before(axes[0], perm), _before(axes[1], perm)
        tensor = producer.inputs[0]
    return tensor, axes


def _before(axis: int | None, perm: Sequence[int] | None) -> int | None:
    """Where an axis lay before a Transpose; None where that, in a broken file, has too few."""
    if axis is None or not perm:
        return None if axis is None else -1 - axis
    return perm[axis] if -len(perm) <= axis < len(perm) else None


def _norm_after(node: gs.Node, model: Model) -> Norm | None:
    """The batch norm that is all that reads a layer's output."""
    output = node.outputs[0]
    after = output.outputs[0] if len(output.outputs) == 1 else None
    if after is None or after.op != "BatchNormalization" or output.name in model.outputs:
        return None
    # It norms axis 1, which is not the last one of every product of matrices.
    if node.op == "MatMul" and (output.shape is None or len(output.shape) != 2):
        return None
    if after.attrs.get("training_mode", 0):
        return None
    scale, shift, mean, variance = (tensor.name for tensor in after.inputs[1:5])
    if after.domain or not {scale, shift, mean, variance} <= model.tensors.keys():
        return None
    return Norm(scale, shift, mean, variance, after.attrs.get("epsilon", 1e-5))


def _describe(
    model: Model, source: gs.Tensor, node: gs.Node, axes: _Axes, scope: str | None
) -> Weight:
    constant = constant_of(source)
    shape = tuple(constant.shape)
    channels, inputs = (_counted(axis, shape) for axis in axes)
    # graphsurgeon keeps ONNX's number of a type that numpy itself does not have.
    is_number = isinstance(constant.dtype, int)
    kind = helper.tensor_dtype_to_np_dtype(constant.dtype) if is_number else constant.dtype
    dtype = np.dtype(kind).name
    nodes = (node_label(node),)
    weight = Weight(source.name, shape, dtype, node.op, nodes, channels, 0, input_axis=inputs)
    if scope is None and source.name in model.tensors:
        weight = replace(weight, grid=grid_behind(model, source, dtype))
        weight = replace(weight, zeros=count_zeros(model, weight))
    if dtype not in LEARNED_TYPES and weight.grid is None:
        reason = f"stored as {dtype}, not as int8 or uint8 behind one DequantizeLinear"
        return replace(weight, excluded=reason)
    if weight.grid is not None and not weight.grid.is_sound:
        return replace(weight, excluded="has a scale that is negative or not finite")
    if scope is not None:
        return replace(weight, excluded=f"inside the {scope}")
    if source.name not in model.tensors:
        return replace(weight, excluded="stored as a sparse initializer")
    if len(shape) < 2 or not weight.count:
        return replace(weight, excluded="a vector, not a matrix" if weight.count else "empty")
    return weight


def _never_trained(model: Model, weight: Weight, node: gs.Node) -> str | None:
    values, axes = model.array(weight.name), (weight.channel_axis, weight.input_axis)
    if weight.grid is not None:
        return why_never_trained(weight.grid.values(values), None, node, axes)
    return why_never_trained(values, weight.dtype, node, axes)


def _computed(model: Model, value: gs.Tensor, node: gs.Node, fixed: set[int]) -> Iterator[Weight]:
    """What a layer's weight is computed from, if so; zeros in it need not be zeros there."""
    if id(value) not in fixed or all(is_fixed(factor, fixed) for factor in node.inputs[:2]):
        return
    for source in computed_from(value):
        weight = _describe(model, source, node, _NO_AXES, None)
        if weight.dtype in LEARNED_TYPES and source.name in model.tensors:
            by = f"the weight of the {node.op} node {node_label(node)!r} is computed from it"
            reason = f"{by}; fold constants first"
            yield replace(weight, excluded=reason)


def _counted(axis: int | None, shape: Sequence[int]) -> int | None:
    """An axis counted from the front; None of a vector, which has no channels."""
    return None if axis is None or len(shape) < 2 else axis % len(shape)


def _shared(weight: Weight, node: gs.Node, axes: _Axes) -> Weight:
    """The weight with one more node using it; its axes hold only where both agree."""
    nodes = tuple(dict.fromkeys((*weight.nodes, node_label(node))))
    channels, inputs = (
        known if _counted(axis, weight.shape) == known else None
        for known, axis in zip((weight.channel_axis, weight.input_axis), axes, strict=True)
    )
    return replace(weight, nodes=nodes, channel_axis=channels, input_axis=inputs, norm=None)


def _other_use(
    source: gs.Tensor, graph_outputs: set[str], live: set[int], fixed: set[int]
) -> str | None:
    """Why a weight is more than a weight, or none at all, if so."""
    if not {passed.name for passed in passed_on(source)}.isdisjoint(graph_outputs):
        return "also an output of the graph"
    uses = [(node, place) for node, place in uses_of(source) if not _reads_shape(node, place)]
    for node, position in uses:
        if node.domain or position not in _WEIGHT_INPUTS.get(node.op, ()):
            return f"also used by the {node.op} node {node_label(node)!r}"
    if not any(id(node) in live for node, _ in uses):
        return "no output depends on it"
    if all(is_fixed(value, fixed) for node, _ in uses for value in node.inputs[:2]):
        node, _ = uses[0]
        return f"the {node.op} node {node_label(node)!r} reads only constants and shapes"
    return None


def _reads_shape(node: gs.Node, position: int) -> bool:
    """Whether a node reads none of the values at that position, but their shape or type."""
    return not node.domain and (node.op in READ_SHAPES or (node.op, position) == ("CastLike", 1))
