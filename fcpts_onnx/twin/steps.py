"""TWIN: the nodes of a graph as steps, ready to run: operators looked up, attributes read."""

from __future__ import annotations

from collections import ChainMap, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import numpy as np
import onnx_graphsurgeon as gs
import torch
from onnx import TensorProto
from torch import Tensor

from fcpts_onnx.errors import UnsupportedError
from fcpts_onnx.model import Model
from fcpts_onnx.ops import Op, find_op
from fcpts_onnx.ops.dtypes import PROMOTED_TYPES, TORCH_TYPES, promoted, to_torch
from fcpts_onnx.ops.registry import Gradient
from fcpts_onnx.texts import one_line
from fcpts_onnx.weights import node_label

__all__ = ["Body", "Step", "bind", "check_supported"]

_TYPES = ("to", "dtype", "output_dtype", "output_datatype")  # attributes that name one


@dataclass(frozen=True)
class Step:
    """One node, ready to run.

    Attributes:
        inputs: value names, None where an optional input is left out.
        numbers: positions of inputs that are handed over as Python numbers.
        attributes: what else the function is given, by name.
        bodies: the graphs inside the node, by attribute.
        gradient: what becomes of one, see `ops.registry.op`.
        problem: why it cannot be run, empty when it can.
        frees: names that no later step reads.
        parts: the steps that it stands for, if it stands for more than its own node.
    """

    label: str
    op: str
    function: Callable[..., Any]
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]
    numbers: frozenset[int]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    bodies: Mapping[str, Body] = field(default_factory=dict)
    gradient: Gradient = "through"
    problem: str = ""
    frees: tuple[str, ...] = ()
    parts: tuple[Step, ...] = ()

    @property
    def reads(self) -> set[str]:
        """The values it depends on, those that only the graphs inside it read among them."""
        own = {name for name in self.inputs if name is not None}
        return own.union(*(body.captures for body in self.bodies.values()))

    @property
    def read_as_numbers(self) -> set[str]:
        """Names of what it, or a step inside it, reads as Python numbers."""
        own = {name for place, name in enumerate(self.inputs) if name and place in self.numbers}
        inside = (step for body in self.bodies.values() for step in body.steps)
        return own.union(*(step.read_as_numbers for step in inside))

    def nodes(self) -> Iterator[Step]:
        """A step for each node that it stands for, in the order of the graph."""
        if not self.parts:
            yield self
        for part in self.parts:
            yield from part.nodes()

    def problems(self) -> Iterator[tuple[str, str]]:
        """(problem, node) of the step and of all inside it."""
        if self.problem:
            yield self.problem, self.label
        for body in self.bodies.values():
            for step in body.steps:
                yield from step.problems()

    def promoted(self) -> Step:
        """The step in float32, whatever float type its attributes say."""
        attributes = {key: _promoted(key, value) for key, value in self.attributes.items()}
        bodies = {
            key: replace(body, steps=tuple(step.promoted() for step in body.steps))
            for key, body in self.bodies.items()
        }
        return replace(self, attributes=attributes, bodies=bodies)

    def run(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """The node's outputs, from values by name.

        Raises:
            RuntimeError: it cannot be computed; the node is named.
        """
        arguments: list[Any] = [None if name is None else values[name] for name in self.inputs]
        for position in self.numbers:
            if position < len(arguments) and arguments[position] is not None:
                arguments[position] = tuple(arguments[position].reshape(-1).tolist())
        inside = {key: partial(body.run, values) for key, body in self.bodies.items()}
        try:
            result = self.function(*arguments, **self.attributes, **inside)
        except Exception as error:  # the graph may ask anything of any operator
            reason = " ".join(str(error).split())
            raise RuntimeError(f"{self.op} node {self.label!r}: {reason}") from error
        return tuple(result) if isinstance(result, (tuple, list)) else (result,)


@dataclass(frozen=True)
class Body:
    """A graph inside a node: a branch of If, what Loop and Scan repeat.

    Attributes:
        inputs, outputs: names inside the body.
        captures: names that it reads from around it.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    steps: tuple[Step, ...]
    captures: frozenset[str]

    def run(self, around: Mapping[str, Any], *arguments: Tensor) -> tuple[Tensor, ...]:
        """The body's outputs for these inputs, within the values around it."""
        own: dict[str, Any] = dict(zip(self.inputs, arguments, strict=True))
        values = ChainMap(own, cast(MutableMapping[str, Any], around))
        for step in self.steps:
            own.update(zip(step.outputs, step.run(values), strict=False))
        return tuple(values[name] for name in self.outputs)


def bind(model: Model, *, promote: bool = False) -> tuple[list[Step], dict[str, Tensor]]:
    """A step for every node but the constants, and the constants inside the bodies of nodes.

    Args:
        promote: compute in float32 where the model says another float type.
    """
    constants: dict[str, Tensor] = {}
    known = {spec.name for spec in model.inputs} | model.tensors.keys()
    steps = _steps(model, model.graph, model.outputs, known, constants)
    if promote:
        constants = {name: promoted(value) for name, value in constants.items()}
        steps = [step.promoted() for step in steps]
    return steps, constants


def check_supported(model: Model, steps: Sequence[Step]) -> None:
    """See that all steps can be run.

    Raises:
        UnsupportedError: some cannot; the message lists them all, with the names of their nodes.
    """
    found = defaultdict(list)
    for problem, label in (entry for step in steps for entry in step.problems()):
        found[problem].append(label)
    if found:
        lines = [
            one_line(f"  {title}: {_listing(nodes)}") for title, nodes in sorted(found.items())
        ]
        raise UnsupportedError(
            f"{model.path}: the twin lacks {len(found)} operator(s) of this model:\n"
            + "\n".join(lines)
            + "\nExport the model without them, or add them (CONTRIBUTING.md says how)."
        )


def _steps(
    model: Model,
    graph: gs.Graph,
    graph_outputs: Collection[str],
    known: set[str],
    constants: dict[str, Tensor],
) -> list[Step]:
    steps = []
    for node in graph.nodes:
        if node.op == "Constant" and node.outputs[0].name in known:
            continue
        found = find_op(node.domain, node.op, model.opsets.get(node.domain, 1))
        outputs = _read_outputs(node, graph_outputs)
        bodies = {
            key: _body(model, value, f"{node_label(node)}/{key}", known, constants)
            for key, value in node.attrs.items()
            if isinstance(value, gs.Graph)
        }
        step = _step(node, found, outputs, bodies)
        problem = _input_problem(node, model, known) or _problem(node, found, len(outputs))
        if found is None or problem:
            prefix = f"{node.domain}::" if node.domain else ""
            opset = model.opsets.get(node.domain, 1)
            step = replace(step, problem=f"{prefix}{node.op} (opset {opset}){problem}")
        steps.append(step)
        known.update(tensor.name for tensor in node.outputs)
    return steps


def _body(
    model: Model,
    graph: gs.Graph,
    place: str,
    known: set[str],
    constants: dict[str, Tensor],
) -> Body:
    """The graph inside a node; its constants join those of the model, under names of their own."""
    for tensor, values in _inner_constants(graph, known):
        tensor.name = f"{place}/{tensor.name}"
        constants[tensor.name] = to_torch(values)
    inputs = tuple(tensor.name for tensor in graph.inputs)
    outputs = tuple(tensor.name for tensor in graph.outputs)
    inside = known | constants.keys() | set(inputs)
    steps = tuple(_steps(model, graph, outputs, inside, constants))
    made = {name for step in steps for name in step.outputs} | set(inputs)
    reads = set(outputs).union(*(step.reads for step in steps)) - made
    return Body(inputs, outputs, steps, frozenset(reads))


def _inner_constants(
    graph: gs.Graph, known: Collection[str]
) -> Iterator[tuple[gs.Tensor, np.ndarray[Any, Any]]]:
    """The constants that a graph inside a node has itself."""
    seen: set[int] = set()
    for node in graph.nodes:
        for tensor in node.inputs:
            if not isinstance(tensor, gs.Constant) or tensor.name in known:
                continue
            if id(tensor) not in seen:
                seen.add(id(tensor))
                yield tensor, tensor.values
        if node.op == "Constant" and "value" in node.attrs:
            yield node.outputs[0], node.attrs["value"].values


def _input_problem(node: gs.Node, model: Model, known: Collection[str]) -> str:
    """What is wrong with what a node reads, empty when nothing is."""
    for tensor in node.inputs:
        if tensor.name and tensor.name not in known:
            kind = "a sparse initializer" if isinstance(tensor, gs.Constant) else "unknown"
            return f" reading {tensor.name!r}, which is {kind}"
        stored = model.tensors.get(tensor.name)
        if stored is not None and stored.data_type not in TORCH_TYPES:
            name = TensorProto.DataType.Name(stored.data_type).lower()
            return f" reading {tensor.name!r} of type {name}"
    return ""


def _problem(node: gs.Node, found: Op | None, outputs: int) -> str:
    """What a registered operator cannot do for this node, empty when it can."""
    if found is None:
        return ""
    unknown = sorted(set(node.attrs) - found.attributes)
    missing = sorted(found.required - set(node.attrs))
    if unknown:
        return f" with attribute {', '.join(unknown)}"
    checked = sorted(found.only.keys() & node.attrs.keys())
    if other := [key for key in checked if node.attrs[key] not in found.only[key]]:
        return " with " + ", ".join(f"{key}={node.attrs[key]}" for key in other)
    if missing:
        return f" without attribute {', '.join(missing)}"
    if outputs > found.max_outputs:
        return f" with {outputs} outputs"
    if found.max_inputs is not None and len(node.inputs) > found.max_inputs:
        return f" with {len(node.inputs)} inputs"
    return ""


def _read_outputs(node: gs.Node, graph_outputs: Collection[str]) -> list[str]:
    """A node's outputs up to the last one that is read; exporters name others that nobody reads.

    All of Split: how large its parts are depends on how many there are.
    """
    if node.op == "Split":
        return [tensor.name for tensor in node.outputs]
    read = [bool(tensor.outputs) or tensor.name in graph_outputs for tensor in node.outputs]
    last = max((place for place, is_read in enumerate(read) if is_read), default=0)
    return [tensor.name for tensor in node.outputs[: last + 1]]


def _listing(names: list[str], limit: int = 20) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _step(
    node: gs.Node, found: Op | None, outputs: Sequence[str], bodies: Mapping[str, Body]
) -> Step:
    attributes = {
        key: to_torch(value.values) if isinstance(value, gs.Constant) else value
        for key, value in node.attrs.items()
        if key not in bodies
    }
    if found is not None and found.wants_outputs:
        attributes["outputs"] = len(outputs)
    function = _missing if found is None else found.function
    return Step(
        label=node_label(node),
        op=node.op,
        function=function,
        inputs=tuple(tensor.name or None for tensor in node.inputs),
        outputs=tuple(outputs),
        numbers=frozenset() if found is None else found.numbers,
        attributes=attributes,
        bodies=bodies,
        gradient=_gradient(node, found),
    )


def _promoted(key: str, value: Any) -> Any:
    """An attribute's value as it is in float32."""
    if isinstance(value, Tensor):
        return promoted(value)
    names_a_type = key in _TYPES and value in PROMOTED_TYPES
    return TensorProto.FLOAT if names_a_type else value


def _gradient(node: gs.Node, found: Op | None) -> Gradient:
    if found is None:
        # ZipMap and its kin make texts and maps of the scores before them.
        return "ends" if node.domain == "ai.onnx.ml" else "through"
    if node.op != "Cast":
        return found.gradient
    to = TORCH_TYPES.get(node.attrs["to"], torch.float32)
    if to.is_floating_point:
        return "through"
    return "masks" if to is torch.bool else "ends"


def _missing(*_: object, **__: object) -> Tensor:
    raise RuntimeError("the twin has no such operator")
