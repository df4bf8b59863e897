"""FIND: which values of a graph follow from which others."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_graphsurgeon as gs

__all__ = ["before_outputs", "graphs_inside", "is_constant", "without_inputs"]

_READ_SHAPES = {"Shape", "Size"}
_RANDOM = {
    "Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
    "RandomUniformLike",
}  # fmt: skip


def is_constant(tensor: gs.Tensor) -> bool:
    """Whether a tensor is an initializer, or the value of a Constant node."""
    if isinstance(tensor, gs.Constant):
        return True
    producer = tensor.inputs[0] if tensor.inputs else None
    return producer is not None and producer.op == "Constant" and "value" in producer.attrs


def graphs_inside(node: gs.Node) -> Iterator[gs.Graph]:
    """The graphs inside a node, and those inside their nodes."""
    for value in node.attrs.values():
        if isinstance(value, gs.Graph):
            yield value
            for inner in value.nodes:
                yield from graphs_inside(inner)


def before_outputs(graph: gs.Graph) -> set[int]:
    """The ids of the nodes that an output depends on."""
    open_tensors, live = list(graph.outputs), set[int]()
    while open_tensors:
        for node in open_tensors.pop().inputs:
            if id(node) in live:
                continue
            live.add(id(node))
            open_tensors.extend(node.inputs)
            for body in graphs_inside(node):  # it may read anything outside it
                open_tensors.extend(tensor for inner in body.nodes for tensor in inner.inputs)
    return live


def without_inputs(graph: gs.Graph) -> set[int]:
    """The ids of the tensors that follow from constants and shapes alone.

    They are the same for all samples of a size. Values inside a Loop and the like are not looked
    at, and random ones count as inputs.
    """
    found: set[int] = set()
    for node in graph.nodes:
        if node.op in _READ_SHAPES and not node.domain:
            found.update(map(id, node.outputs))
            continue
        bodies = list(graphs_inside(node))
        nodes = [node, *(inner for body in bodies for inner in body.nodes)]
        if any(each.op in _RANDOM for each in nodes):
            continue
        if all(id(tensor) in found or is_constant(tensor) for tensor in _read(node, bodies)):
            found.update(map(id, node.outputs))
    return found


def _read(node: gs.Node, bodies: list[gs.Graph]) -> Iterator[gs.Tensor]:
    """What a node and the graphs inside it read of what lies outside of them."""
    made = {id(tensor) for body in bodies for tensor in body.inputs}
    made.update(id(tensor) for body in bodies for inner in body.nodes for tensor in inner.outputs)
    inside = (tensor for body in bodies for inner in body.nodes for tensor in inner.inputs)
    given = (tensor for body in bodies for tensor in body.outputs)
    for tensor in (*node.inputs, *inside, *given):
        if tensor.name and id(tensor) not in made:  # an input that is left out has no name
            yield tensor
