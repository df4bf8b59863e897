"""LOAD: If nodes whose condition is a constant, and the branch that always runs in their place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

__all__ = [
    "bodies",
    "branches_taken",
    "constant_value",
    "constants_of",
    "with_branches_inlined",
]


def branches_taken(graph: GraphProto) -> dict[int, GraphProto]:
    """By place among the nodes, the branch of each If that is always taken.

    Left out are branches with a name that something outside their If has too: these cannot
    become a part of the graph.
    """
    if not any(_is_if(node) for node in graph.node):
        return {}
    known = constants_of(graph)
    places = Counter(_made(graph))
    for node in graph.node:
        places.update({name for body in bodies(node) for name in _made(body, deep=True)})
    taken = {}
    for place, node in enumerate(graph.node):
        branch = _branch(node, known) if _is_if(node) else None
        if branch is not None and all(places[name] == 1 for name in _made(branch, deep=True)):
            taken[place] = branch
    return taken


def with_branches_inlined(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with these branches as a part of its graph; itself if it has none."""
    taken = branches_taken(proto.graph)
    if not taken:
        return proto
    inlined = onnx.ModelProto()
    inlined.CopyFrom(proto)
    del inlined.graph.node[:]
    for place, node in enumerate(proto.graph.node):
        branch = taken.get(place)
        inlined.graph.node.extend([node] if branch is None else _nodes(node, branch))
        inlined.graph.initializer.extend(() if branch is None else branch.initializer)
    return inlined


def constants_of(graph: GraphProto) -> dict[str, TensorProto]:
    """The constants of a graph by name: its initializers, and the tensors of Constant nodes."""
    known = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            values = (entry.t for entry in node.attribute if entry.HasField("t"))
            known.update(zip(node.output, values, strict=False))
    return known


def constant_value(known: Mapping[str, TensorProto], name: str) -> np.ndarray[Any, Any] | None:
    """The value of a constant; None if it is none, or cannot be read from the graph alone."""
    tensor = known.get(name)
    if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
        return None
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError):
        return None


def _is_if(node: NodeProto) -> bool:
    return node.op_type == "If" and node.domain in ("", "ai.onnx")


def _branch(node: NodeProto, known: Mapping[str, TensorProto]) -> GraphProto | None:
    """The branch that is taken, if that is known; what is wrong with a node is said elsewhere."""
    condition = constant_value(known, node.input[0]) if node.input else None
    if condition is None:
        return None
    wanted = "then_branch" if condition.all() else "else_branch"
    branch = next((entry.g for entry in node.attribute if entry.name == wanted), None)
    if branch is None or branch.sparse_initializer or len(branch.output) != len(node.output):
        return None
    return branch


def _made(graph: GraphProto, *, deep: bool = False) -> Iterator[str]:
    """The names that a graph, or all graphs inside it too, give to values."""
    yield from (value.name for value in graph.input)
    yield from (tensor.name for tensor in graph.initializer)
    for node in graph.node:
        yield from filter(None, node.output)
        for body in bodies(node) if deep else ():
            yield from _made(body, deep=True)


def bodies(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs inside a node."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _nodes(node: NodeProto, branch: GraphProto) -> Iterator[NodeProto]:
    """The branch's nodes, and its outputs under the names that the If gives them."""
    yield from branch.node
    for inner, outer in zip(branch.output, node.output, strict=True):
        if outer:
            yield helper.make_node("Identity", [inner.name], [outer], f"{node.name}/{outer}")
