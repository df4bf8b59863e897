"""FIND: which values of a graph follow from which others."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import onnx_graphsurgeon as gs

__all__ = [
    "PASS_THROUGH",
    "READ_SHAPES",
    "RESHAPING",
    "before_outputs",
    "constant_of",
    "graphs_inside",
    "is_constant",
    "is_fixed",
    "passed_on",
    "uses_of",
    "without_inputs",
]

# Operators through which a weight stays a weight: its values are passed on, once at most.
RESHAPING = {"Reshape", "Unsqueeze", "Squeeze", "Flatten", "Slice", "Split"}
PASS_THROUGH = {
    "Identity", "Cast", "Transpose", "QuantizeLinear", "DequantizeLinear", *RESHAPING,
}  # fmt: skip
READ_SHAPES = {"Shape", "Size"}
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


def is_fixed(tensor: gs.Tensor, fixed: Collection[int]) -> bool:
    """Whether a tensor is a constant, or among those of `without_inputs`."""
    return is_constant(tensor) or id(tensor) in fixed


def constant_of(tensor: gs.Tensor) -> gs.Constant:
    """What is stored of a constant tensor, whichever of both it is."""
    return tensor if isinstance(tensor, gs.Constant) else tensor.inputs[0].attrs["value"]


def graphs_inside(node: gs.Node) -> Iterator[gs.Graph]:
    """The graphs inside a node, and those inside their nodes."""
    for value in node.attrs.values():
        if isinstance(value, gs.Graph):
            yield value
            for inner in value.nodes:
                yield from graphs_inside(inner)


def passed_on(tensor: gs.Tensor) -> list[gs.Tensor]:
    """A tensor, and what Identity, Transpose and the like make of it."""
    found, seen = [tensor], {id(tensor)}
    for passed in found:  # it grows meanwhile
        for node in passed.outputs:
            made = node.outputs if _passes(node) and node.inputs[0] is passed else []
            found.extend(new for new in made if id(new) not in seen)
            seen.update(map(id, made))
    return found


def uses_of(tensor: gs.Tensor) -> Iterator[tuple[gs.Node, int]]:
    """Every node and input position that a constant reaches, through what passes it on."""
    for passed in passed_on(tensor):
        for node in {id(node): node for node in passed.outputs}.values():
            for position, value in enumerate(node.inputs):
                if value is passed and not (_passes(node) and position == 0):
                    yield node, position


def _passes(node: gs.Node) -> bool:
    return node.op in PASS_THROUGH and not node.domain


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
        if node.op in READ_SHAPES and not node.domain:
            found.update(map(id, node.outputs))
            continue
        bodies = list(graphs_inside(node))
        nodes = [node, *(inner for body in bodies for inner in body.nodes)]
        if any(each.op in _RANDOM for each in nodes):
            continue
        if all(is_fixed(tensor, found) for tensor in _read(node, bodies)):
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
