"""TWIN: Model -> Twin, a torch module that runs the same graph, one Parameter per initializer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import onnx_graphsurgeon as gs
import torch
from torch import Tensor, nn

from fcpts_onnx.errors import UnsupportedError
from fcpts_onnx.model import Model
from fcpts_onnx.ops import Op, find_op
from fcpts_onnx.ops.dtypes import to_torch
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
        """The node's outputs, from values by name."""
        arguments: list[Any] = [None if name is None else values[name] for name in self.inputs]
        for position in self.ints:
            if position < len(arguments) and arguments[position] is not None:
                arguments[position] = tuple(arguments[position].tolist())
        result = self.function(*arguments)
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
        return {name: value.flatten(0, 1) for name, value in results.items()}

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
    for node in model.graph.nodes:
        domain = "" if node.domain in (None, "ai.onnx") else node.domain
        if node.op == "Constant" and not domain:
            continue
        opset = model.opsets.get(domain, 1)
        found = find_op(domain, node.op, opset)
        problem = _problem(node, found)
        if found is None or problem:
            title = f"{domain + '::' if domain else ''}{node.op} (opset {opset}){problem}"
            problems[title].append(node_label(node))
        else:
            steps.append(_step(node, found))
    if problems:
        lines = [f"  {title}: {_listing(nodes)}" for title, nodes in sorted(problems.items())]
        raise UnsupportedError(
            f"{model.path}: the twin lacks {len(problems)} operator(s) of this model:\n"
            + "\n".join(lines)
            + "\nExport the model without them, or add them (CONTRIBUTING.md says how)."
        )
    return steps


def _problem(node: gs.Node, found: Op | None) -> str:
    """What a registered operator cannot do for this node, empty when it can."""
    if found is None:
        return ""
    inner = [key for key, value in node.attrs.items() if isinstance(value, gs.Graph)]
    unknown = sorted(set(node.attrs) - found.attributes | set(inner))
    missing = sorted(found.required - set(node.attrs))
    outputs = sum(1 for tensor in node.outputs if tensor.name)
    if unknown:
        return f" with attribute {', '.join(unknown)}"
    other = {key: node.attrs[key] for key, v in found.only.items() if node.attrs.get(key, v) != v}
    if other:
        return " with " + ", ".join(f"{key}={value}" for key, value in sorted(other.items()))
    if missing:
        return f" without attribute {', '.join(missing)}"
    if outputs > found.max_outputs:
        return f" with {outputs} outputs"
    if found.max_inputs is not None and len(node.inputs) > found.max_inputs:
        return f" with {len(node.inputs)} inputs"
    return ""


def _listing(names: list[str], limit: int = 20) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _step(node: gs.Node, found: Op) -> Step:
    attributes = {
        key: to_torch(value.values) if isinstance(value, gs.Constant) else value
        for key, value in node.attrs.items()
    }
    if found.wants_outputs:
        attributes["outputs"] = len(node.outputs)
    return Step(
        label=node_label(node),
        op=node.op,
        function=partial(found.function, **attributes) if attributes else found.function,
        inputs=tuple(tensor.name or None for tensor in node.inputs),
        outputs=tuple(tensor.name for tensor in node.outputs),
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
