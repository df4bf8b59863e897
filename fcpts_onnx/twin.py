"""TWIN: Model -> Twin, a torch module that runs the same graph, one Parameter per initializer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import onnx_graphsurgeon as gs
import torch
from onnx import TensorProto
from torch import Tensor, nn

from fcpts_onnx.errors import UnsupportedError
from fcpts_onnx.model import Model
from fcpts_onnx.ops import Op, find_op
from fcpts_onnx.ops.dtypes import TORCH_TYPES, to_torch
from fcpts_onnx.weights import node_label

__all__ = ["Step", "Twin"]


@dataclass(frozen=True)
class Step:
    """One node, ready to run.

    Attributes:
        inputs: value names, None where an optional input is left out.
        ints: positions of inputs that are handed over as Python integers.
        frees: names that no later step reads.
    """

    label: str
    op: str
    function: Callable[..., Any]
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]
    ints: frozenset[int]
    frees: tuple[str, ...] = ()

    def run(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """The node's outputs, from values by name.

        Raises:
            RuntimeError: it cannot be computed; the node is named.
        """
        arguments: list[Any] = [None if name is None else values[name] for name in self.inputs]
        for position in self.ints:
            if position < len(arguments) and arguments[position] is not None:
                arguments[position] = tuple(arguments[position].tolist())
        try:
            result = self.function(*arguments)
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise RuntimeError(f"{self.op} node {self.label!r}: {reason}") from error
        return tuple(result) if isinstance(result, (tuple, list)) else (result,)


class Twin(nn.Module):
    """The graph of a model as a torch module.

    What is learned is a Parameter, by its ONNX name in `learned`; every other constant is fixed.
    What depends on constants alone is computed once, here. The forward pass changes nothing, so
    the dense network and a sparse one can share a twin: hand over other tensors for some of its
    parameters by `replaced`.

    Args:
        model: the model to mirror.
        learned: names of initializers (or Constant nodes' outputs) to make Parameters.

    Attributes:
        per_sample: run the graph for each sample on its own, vectorised. Graphs that were
            exported with a batch size written into them give right results only so.

    Raises:
        UnsupportedError: the graph has operators or attributes that are not registered; the
            message lists them all, with the names of their nodes.
    """

    def __init__(self, model: Model, learned: Collection[str] = ()) -> None:
        super().__init__()
        self.per_sample = False
        self.input_names = tuple(spec.name for spec in model.inputs)
        self.output_names = model.outputs
        steps = _bind(model)
        values = {name: to_torch(model.array(name)) for name in _read_constants(model)}
        self.learned = {
            name: nn.Parameter(values.pop(name)) for name in list(values) if name in learned
        }
        for place, parameter in enumerate(self.learned.values()):
            self.register_parameter(f"learned_{place}", parameter)
        self.steps = _schedule(_fold(steps, values), self.output_names)
        read = set(self.output_names)
        read.update(name for step in self.steps for name in step.inputs if name is not None)
        # Shapes, axes and the like are read by Python: they stay on the CPU and are no buffers.
        self._shapes = {
            name: value
            for name, value in values.items()
            if name in read and not value.is_floating_point()
        }
        self._buffer_of = {
            name: f"constant_{place}"
            for place, name in enumerate(sorted(read & values.keys()))
            if name not in self._shapes
        }
        for name, buffer in self._buffer_of.items():
            self.register_buffer(buffer, values[name])

    def constant(self, name: str) -> Tensor:
        """The value of a constant float tensor that the graph reads."""
        learned = self.learned.get(name)
        return self.get_buffer(self._buffer_of[name]) if learned is None else learned

    def prepare(self, device: torch.device) -> None:
        """Move to a device, images in channels-last memory, where convolutions are fastest."""
        self.to(device=device)
        for parameter in self.learned.values():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        replaced: Mapping[str, Tensor] | None = None,
        fetch: Iterable[str] = (),
    ) -> dict[str, Tensor]:
        """Run the graph on a batch.

        Args:
            inputs: a tensor for every graph input, by name.
            replaced: tensors to use instead of parameters of that name.
            fetch: names of values inside the graph to return as well.

        Returns:
            The graph's outputs, and what was asked for, by name.
        """
        if not self.per_sample:
            return self._run(inputs, replaced, fetch)

        def run_one(sample: Mapping[str, Tensor]) -> dict[str, Tensor]:
            single = {name: value.unsqueeze(0) for name, value in sample.items()}
            return self._run(single, replaced, fetch)

        results: dict[str, Tensor] = torch.vmap(run_one)(dict(inputs))
        # A result of a single sample has an axis of one for it, or none at all.
        return {
            name: value.flatten(0, 1) if value.shape[1:2] == (1,) else value
            for name, value in results.items()
        }

    def _run(
        self,
        inputs: Mapping[str, Tensor],
        replaced: Mapping[str, Tensor] | None,
        fetch: Iterable[str],
    ) -> dict[str, Tensor]:
        values: dict[str, Any] = {
            name: self.get_buffer(buffer) for name, buffer in self._buffer_of.items()
        }
        values |= self._shapes | self.learned | dict(inputs) | dict(replaced or {})
        wanted = dict.fromkeys((*self.output_names, *fetch))
        for step in self.steps:
            values.update(zip(step.outputs, step.run(values), strict=False))
            for name in step.frees:
                if name not in wanted:
                    del values[name]
        return {name: values[name] for name in wanted}


def _bind(model: Model) -> list[Step]:
    """A step for every node but the constants; all that is unsupported is said at once."""
    steps, problems = [], defaultdict(list)
    known = {spec.name for spec in model.inputs} | model.tensors.keys()
    for node in model.graph.nodes:
        if node.outputs and node.outputs[0].name in model.tensors:
            continue
        opset = model.opsets.get(node.domain, 1)
        found = find_op(node.domain, node.op, opset)
        problem = _input_problem(node, model, known) or _problem(node, found, model.outputs)
        if found is None or problem:
            prefix = f"{node.domain}::" if node.domain else ""
            title = f"{prefix}{node.op} (opset {opset}){problem}"
            problems[title].append(node_label(node))
        else:
            steps.append(_step(node, found, model.outputs))
        known.update(tensor.name for tensor in node.outputs)
    if problems:
        lines = [f"  {title}: {_listing(nodes)}" for title, nodes in sorted(problems.items())]
        raise UnsupportedError(
            f"{model.path}: the twin lacks {len(problems)} operator(s) of this model:\n"
            + "\n".join(lines)
            + "\nExport the model without them, or add them (CONTRIBUTING.md says how)."
        )
    return steps


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


def _problem(node: gs.Node, found: Op | None, graph_outputs: Collection[str]) -> str:
    """What a registered operator cannot do for this node, empty when it can."""
    if found is None:
        return ""
    inner = [key for key, value in node.attrs.items() if isinstance(value, gs.Graph)]
    unknown = sorted(set(node.attrs) - found.attributes | set(inner))
    missing = sorted(found.required - set(node.attrs))
    outputs = len(_read_outputs(node, graph_outputs))
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
    """A node's outputs up to the last one that is read; exporters name others that nobody reads."""
    read = [bool(tensor.outputs) or tensor.name in graph_outputs for tensor in node.outputs]
    last = max((place for place, is_read in enumerate(read) if is_read), default=0)
    return [tensor.name for tensor in node.outputs[: last + 1]]


def _listing(names: list[str], limit: int = 20) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _step(node: gs.Node, found: Op, graph_outputs: Collection[str]) -> Step:
    outputs = tuple(_read_outputs(node, graph_outputs))
    attributes = {
        key: to_torch(value.values) if isinstance(value, gs.Constant) else value
        for key, value in node.attrs.items()
    }
    if found.wants_outputs:
        attributes["outputs"] = len(outputs)
    return Step(
        label=node_label(node),
        op=node.op,
        function=partial(found.function, **attributes) if attributes else found.function,
        inputs=tuple(tensor.name or None for tensor in node.inputs),
        outputs=outputs,
        ints=found.ints,
    )


def _read_constants(model: Model) -> list[str]:
    """The constants that some node reads, or that are outputs."""
    read = {tensor.name for node in model.graph.nodes for tensor in node.inputs}
    return [name for name in model.tensors if name in read or name in model.outputs]


def _fold(steps: list[Step], constants: dict[str, Tensor]) -> list[Step]:
    """Run the steps that depend on constants alone, adding to `constants`; the others are left."""
    left = []
    for step in steps:
        if all(name in constants for name in step.inputs if name is not None):
            constants.update(zip(step.outputs, step.run(constants), strict=False))
        else:
            left.append(step)
    return left


def _schedule(steps: list[Step], outputs: Collection[str]) -> list[Step]:
    """The steps that the outputs need, each with the names it is the last to read."""
    needed, kept = set(outputs), []
    for step in reversed(steps):
        if needed.isdisjoint(step.outputs):
            continue
        last_reads = {name for name in step.inputs if name is not None} - needed
        unread = {name for name in step.outputs if name} - needed
        kept.append(replace(step, frees=tuple(sorted(last_reads | unread))))
        needed |= last_reads
    return kept[::-1]
