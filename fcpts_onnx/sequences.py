"""LOAD: parts of sequences that are read at known places, and cuts of tensors in their place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from fcpts_onnx.branches import constant_value, constants_of
from fcpts_onnx.functions import all_nodes, domain_of

__all__ = ["with_sequences_cut"]

_MAKERS = ("SequenceConstruct", "SplitToSequence")
_READERS = ("ConcatFromSequence", "SequenceAt")
_TO_THE_END = 2**63 - 1


def with_sequences_cut(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with cuts of tensors where it reads parts of sequences; itself if it reads none.

    torch exports split, chunk and unbind as sequences unless it optimises. What is read at places
    or in ways that the graph leaves open stays as it is.
    """
    makers = {node.output[0]: node for node in proto.graph.node if _is_one_of(node, _MAKERS)}
    if not makers:
        return proto
    cuts = _Cuts(proto.graph, makers)
    cut = onnx.ModelProto()
    cut.CopyFrom(proto)
    del cut.graph.node[:]
    for node in proto.graph.node:
        cut.graph.node.extend(cuts.instead_of(node) or [node])
    _drop_unread(cut.graph, makers)
    return cut


class _Cuts:
    """What gives the same as nodes that read sequences.

    Args:
        makers: the nodes that make sequences, by the names of these.
    """

    def __init__(self, graph: GraphProto, makers: Mapping[str, NodeProto]) -> None:
        self._graph, self._makers = graph, makers
        self._known = constants_of(graph)
        names = {name for node in all_nodes(graph) for name in (*node.input, *node.output)}
        self._prefix = "cut"
        while any(name.startswith(self._prefix) for name in names | self._known.keys()):
            self._prefix += "_"

    def instead_of(self, node: NodeProto) -> list[NodeProto]:
        """Nodes in the place of one, none where it stays."""
        maker = self._makers.get(node.input[0]) if _is_one_of(node, _READERS) else None
        if maker is None:
            return []
        if node.op_type == "ConcatFromSequence":
            return _joined(node, maker)
        places = self._integers(node.input[1])
        if places is None or places.size != 1:
            return []
        place = int(places.item())
        if maker.op_type == "SplitToSequence":
            return list(self._part(node, maker, place))
        parts = maker.input
        is_there = -len(parts) <= place < len(parts)
        return [_renamed(node, "Identity", [parts[place]])] if is_there else []

    def _part(self, node: NodeProto, maker: NodeProto, place: int) -> Iterator[NodeProto]:
        """The part of a tensor at a place, as the nodes that cut it out."""
        attributes = _attributes(maker)
        x, axis = maker.input[0], attributes.get("axis", 0)
        if len(maker.input) > 1 and maker.input[1]:
            span = self._span(maker, axis, place)
            if span is None:
                return
        elif attributes.get("keepdims", 1):
            span = place, _TO_THE_END if place == -1 else place + 1
        else:
            index = self._constant(node, "place", place)
            yield index
            yield _renamed(node, "Gather", [x, index.output[0]], axis)
            return
        ends = zip(("start", "end", "axis"), (*span, axis), strict=True)
        constants = [self._constant(node, name, [value]) for name, value in ends]
        yield from constants
        yield _renamed(node, "Slice", [x, *(constant.output[0] for constant in constants)])

    def _span(self, maker: NodeProto, axis: int, place: int) -> tuple[int, int] | None:
        """Where a part begins and ends, by the sizes of parts or the one of all, if known."""
        sizes = self._integers(maker.input[1])
        if sizes is None or sizes.ndim > 1:
            return None
        if sizes.ndim:
            spans = list(pairwise(accumulate(sizes.tolist(), initial=0)))
            return spans[place] if -len(spans) <= place < len(spans) else None
        size = max(1, int(sizes))
        if place < 0:
            place += -(-self._length(maker.input[0], axis) // size)
        return (place * size, (place + 1) * size) if place >= 0 else None

    def _length(self, name: str, axis: int) -> int:
        """Of an axis as the graph states it; 0 where it does not."""
        for value in (*self._graph.input, *self._graph.value_info):
            sizes = value.type.tensor_type.shape.dim
            if value.name == name and -len(sizes) <= axis < len(sizes):
                return max(0, sizes[axis].dim_value)
        stored = self._known.get(name, TensorProto()).dims
        return stored[axis] if -len(stored) <= axis < len(stored) else 0

    def _integers(self, name: str) -> np.ndarray[Any, Any] | None:
        value = constant_value(self._known, name)
        return value if value is not None and value.dtype.kind == "i" else None

    def _constant(self, node: NodeProto, name: str, value: int | list[int]) -> NodeProto:
        number = np.clip(value, -_TO_THE_END, _TO_THE_END).astype(np.int64)
        output = f"{self._prefix}/{node.output[0]}/{name}"
        return helper.make_node(
            "Constant", [], [output], value=numpy_helper.from_array(np.asarray(number))
        )


def _joined(node: NodeProto, maker: NodeProto) -> list[NodeProto]:
    """The tensors of a sequence as one; not where that gets an axis for it, or they are cut."""
    attributes = _attributes(node)
    if maker.op_type == "SplitToSequence" or attributes.get("new_axis", 0):
        return []
    return [_renamed(node, "Concat", maker.input, attributes["axis"])]


def _renamed(node: NodeProto, op: str, inputs: Sequence[str], axis: int | None = None) -> NodeProto:
    """Another operator under the name, and with the output, of a node."""
    return helper.make_node(op, inputs, node.output, node.name, axis=axis)


def _attributes(node: NodeProto) -> dict[str, int]:
    return {entry.name: entry.i for entry in node.attribute}


def _is_one_of(node: NodeProto, operators: tuple[str, ...]) -> bool:
    return node.op_type in operators and not domain_of(node.domain)


def _drop_unread(graph: GraphProto, makers: Mapping[str, NodeProto]) -> None:
    """Leave out the sequences that nothing reads any more."""
    read = {value.name for value in graph.output}
    read.update(name for node in all_nodes(graph) for name in node.input)
    for place in reversed(range(len(graph.node))):
        node = graph.node[place]
        if node.output and node.output[0] in makers and node.output[0] not in read:
            del graph.node[place]
