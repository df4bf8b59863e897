"""FIND: which initializers can be pruned, why the others cannot, and what is learned along."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto, helper

from fcpts_onnx.errors import TargetError
from fcpts_onnx.model import Model

__all__ = ["Weight", "find_weights", "learned_along", "node_label", "select"]

_LEARNED_TYPE = TensorProto.FLOAT

# Input positions that hold the weights of an operator.
_WEIGHT_INPUTS = {"Conv": (1,), "ConvTranspose": (1,), "Gemm": (0, 1), "MatMul": (0, 1)}
# Operators through which a weight stays a weight: each of its values is passed on once.
_PASS_THROUGH = {"Identity", "Cast", "Transpose", "Reshape"}
# Input positions of per-channel parameters that are learned with the weights.
_ALONG_INPUTS = {
    "Conv": (2,),
    "ConvTranspose": (2,),
    "Gemm": (2,),
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
}


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
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    op: str
    nodes: tuple[str, ...]
    channel_axis: int | None
    zeros: int
    excluded: str | None = None

    @property
    def count(self) -> int:
        """The number of values."""
        return int(np.prod(self.shape, dtype=np.int64))


def find_weights(model: Model) -> list[Weight]:
    """Every candidate once, in the order of the graph, shared ones at their first use."""
    graph_outputs = set(model.outputs)
    found: dict[str, Weight] = {}
    for graph, scope in _graphs(model.graph):
        for node in graph.nodes:
            for position in _WEIGHT_INPUTS.get(node.op, ()) if not node.domain else ():
                if position >= len(node.inputs):
                    continue
                source, axis = _trace(node.inputs[position], _channel_axis(node, position))
                if not _is_constant(source):
                    continue
                if source.name in found:
                    found[source.name] = _shared(found[source.name], node, axis)
                else:
                    weight = _describe(model, source, node, axis, scope)
                    reason = weight.excluded or _other_use(source, graph_outputs)
                    found[source.name] = replace(weight, excluded=reason)
    return list(found.values())


def select(
    weights: Sequence[Weight],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    keep_dense: Sequence[str] = (),
) -> list[Weight]:
    """The same weights, with those that the user leaves out marked as excluded.

    Args:
        include: globs on the initializer's or a node's name; only what matches one is pruned.
        exclude: globs; what matches one is not pruned.
        keep_dense: "first" and "last", of the candidates that are left.

    Raises:
        TargetError: a glob matches nothing.
    """
    for option, patterns in (("--include", include), ("--exclude", exclude)):
        for pattern in patterns:
            if not any(_matches(weight, pattern) for weight in weights):
                raise TargetError(
                    f"{option} {pattern!r} matches no candidate. "
                    "'fcpts-onnx inspect' lists their names."
                )
    chosen = [_leave_out(weight, include, exclude) for weight in weights]
    left = [index for index, weight in enumerate(chosen) if weight.excluded is None]
    for place, index in (("first", left[:1]), ("last", left[-1:])):
        if place in keep_dense and index:
            chosen[index[0]] = replace(chosen[index[0]], excluded=f"--keep-dense {place}")
    return chosen


def learned_along(model: Model, exclude: Sequence[str] = ()) -> list[str]:
    """The names of biases and norm parameters that are learned together with the weights.

    Only constants that are never anything else: a bias input, the scale or shift of a norm, or
    what is added to the result of a MatMul, Conv or Gemm.
    """
    names = []
    for name, tensor in model.graph.tensors().items():
        stored = model.tensors.get(name)
        if stored is None or stored.data_type != _LEARNED_TYPE or name in model.outputs:
            continue
        uses = list(_uses(tensor))
        left_out = any(fnmatchcase(name, pattern) for pattern in exclude)
        if uses and not left_out and all(_is_along(node, index) for node, index in uses):
            names.append(name)
    return names


def node_label(node: gs.Node) -> str:
    """What to call a node in a message: its name, or its operator and first output."""
    outputs = [tensor.name for tensor in node.outputs]
    return node.name or f"{node.op} -> {outputs[0] if outputs else '?'}"


def _graphs(graph: gs.Graph, scope: str | None = None) -> Iterator[tuple[gs.Graph, str | None]]:
    """The graph and those inside its nodes, each with the node it lies in."""
    yield graph, scope
    for node in graph.nodes:
        for value in node.attrs.values():
            if isinstance(value, gs.Graph):
                yield from _graphs(value, scope or f"{node.op} node {node_label(node)!r}")


def _is_constant(tensor: gs.Tensor) -> bool:
    if isinstance(tensor, gs.Constant):
        return True
    producer = tensor.inputs[0] if tensor.inputs else None
    return producer is not None and producer.op == "Constant" and "value" in producer.attrs


def _constant(tensor: gs.Tensor) -> gs.Constant:
    return tensor if isinstance(tensor, gs.Constant) else tensor.inputs[0].attrs["value"]


def _channel_axis(node: gs.Node, position: int) -> int | None:
    """The axis of output channels of a weight, as the node sees it; for MatMul from the end."""
    if node.op == "Conv":
        return 0
    if node.op == "ConvTranspose":
        return 1 if node.attrs.get("group", 1) == 1 else None
    if node.op == "Gemm":
        transposed = node.attrs.get("transB" if position else "transA", 0)
        return int(bool(transposed) != bool(position))
    return -1 if position else -2


def _trace(tensor: gs.Tensor, axis: int | None) -> tuple[gs.Tensor, int | None]:
    """Walk back from a node's input to where its values are stored, and the axis along."""
    while not _is_constant(tensor) and tensor.inputs:
        producer = tensor.inputs[0]
        if producer.domain or producer.op not in _PASS_THROUGH | {"DequantizeLinear"}:
            break
        if producer.op == "Reshape":
            axis = None
        if producer.op == "Transpose" and axis is not None:
            perm = producer.attrs.get("perm")
            axis = perm[axis] if perm else -1 - axis
        tensor = producer.inputs[0]
    return tensor, axis


def _uses(tensor: gs.Tensor) -> Iterator[tuple[gs.Node, int]]:
    """Every node and input position that a constant reaches, through what passes it on."""
    seen = set()
    for node in tensor.outputs:
        if id(node) in seen:
            continue
        seen.add(id(node))
        for position, value in enumerate(node.inputs):
            if value is not tensor:
                continue
            if node.op in _PASS_THROUGH and not node.domain and position == 0:
                yield from _uses(node.outputs[0])
            else:
                yield node, position


def _is_along(node: gs.Node, position: int) -> bool:
    if node.domain:
        return False
    if node.op == "Add":
        other = node.inputs[1 - position]
        return bool(other.inputs) and other.inputs[0].op in ("MatMul", "Conv", "Gemm")
    return position in _ALONG_INPUTS.get(node.op, ())


def _describe(
    model: Model, source: gs.Tensor, node: gs.Node, axis: int | None, scope: str | None
) -> Weight:
    constant = _constant(source)
    shape = tuple(constant.shape)
    if axis is not None and len(shape) > 1:
        axis %= len(shape)
    dtype = np.dtype(constant.dtype).name if not isinstance(constant.dtype, int) else "bfloat16"
    weight = Weight(source.name, shape, dtype, node.op, (node_label(node),), axis, 0)
    if dtype != helper.tensor_dtype_to_np_dtype(_LEARNED_TYPE).name:
        return replace(weight, excluded=f"stored as {dtype}; only float32 is learned yet")
    if scope is not None:
        return replace(weight, excluded=f"inside the {scope}")
    if source.name not in model.tensors:
        return replace(weight, excluded="stored as a sparse initializer")
    weight = replace(weight, zeros=int(weight.count - np.count_nonzero(model.array(source.name))))
    return replace(weight, excluded="a vector, not a matrix") if len(shape) < 2 else weight


def _shared(weight: Weight, node: gs.Node, axis: int | None) -> Weight:
    """The weight with one more node using it; its channel axis holds only where both agree."""
    if axis is not None:
        axis %= len(weight.shape)
    nodes = dict.fromkeys((*weight.nodes, node_label(node)))
    return replace(
        weight, nodes=tuple(nodes), channel_axis=axis if axis == weight.channel_axis else None
    )


def _other_use(source: gs.Tensor, graph_outputs: set[str]) -> str | None:
    """Why a weight is more than a weight, if it is."""
    if source.name in graph_outputs:
        return "also an output of the graph"
    for node, position in _uses(source):
        if node.domain or position not in _WEIGHT_INPUTS.get(node.op, ()):
            return f"also used by the {node.op} node {node_label(node)!r}"
        if all(_is_constant(_trace(value, None)[0]) for value in node.inputs[:2]):
            return f"the {node.op} node {node_label(node)!r} has only constant inputs"
    return None


def _matches(weight: Weight, pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in (weight.name, *weight.nodes))


def _leave_out(weight: Weight, include: Sequence[str], exclude: Sequence[str]) -> Weight:
    if weight.excluded is not None:
        return weight
    for pattern in exclude:
        if _matches(weight, pattern):
            return replace(weight, excluded=f"--exclude {pattern}")
    if include and not any(_matches(weight, pattern) for pattern in include):
        return replace(weight, excluded="not named by --include")
    return weight
