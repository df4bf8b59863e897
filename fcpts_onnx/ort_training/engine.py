"""LEARN: gradients by onnxruntime-training instead of torch: OrtEngine, in the twin's place."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import onnx
import onnxruntime as ort
import torch
from onnx import NodeProto, TensorProto, helper
from torch import Tensor, nn

from fcpts_onnx.errors import UnsupportedError
from fcpts_onnx.ops.dtypes import promoted, to_numpy
from fcpts_onnx.ort_training.gradient_graph import gradient_builder, gradient_graph, no_gradient
from fcpts_onnx.twin import Twin

__all__ = ["OrtEngine"]

_ERRORS_ONLY = 3

Values = Mapping[str, Tensor]
OrtValues = dict[str, ort.OrtValue]


class OrtEngine:
    """Runs a twin's graph, and its gradients, in onnxruntime-training on the processor.

    It stands where `reconstruct` expects the twin, and shares its parameters. The passes are
    in float32, whatever the recipe's precision. Shapes are written into the gradient graph, as
    onnxruntime's gradients of pooling need them; there is one graph for each shape of batch.

    Args:
        twin: what to run: its steps, with what depends on constants alone computed already.
        example: a batch of the size that learning will use.
        threads: how many threads it may use, 0 for onnxruntime's choice.

    Raises:
        FcptsError: onnxruntime-training is not installed.
        ModelError: the opset cannot be converted.
        UnsupportedError: the graph runs sample by sample only, or onnxruntime has no gradient
            for some of it.
    """

    def __init__(self, twin: Twin, example: Values, threads: int = 0) -> None:
        gradient_builder()
        if twin.per_sample:
            raise UnsupportedError(
                f"{twin.model.path}: the graph has a fixed batch size, which --engine ort "
                "does not take. Export it with a dynamic batch size, or use --engine torch."
            )
        self._twin, self._threads = twin, threads
        self.learned: dict[str, nn.Parameter] = twin.learned
        self.result_names = twin.result_names
        self._passes: dict[Any, _Passes] = {}
        self._passes_for(example)

    def constant(self, name: str) -> Tensor:
        """The value of a constant float tensor that the graph reads."""
        return self._twin.constant(name)

    def __call__(self, inputs: Values, replaced: Values | None = None) -> dict[str, Tensor]:
        """Run the graph on a batch, as `Twin.forward` does.

        Args:
            inputs: a tensor for every graph input, by name.
            replaced: tensors to use instead of parameters of that name.

        Returns:
            The outputs by name; gradients reach the parameters, or what replaces them.
        """
        passes = self._passes_for(inputs)
        values = {**self.learned, **(replaced or {})}
        learned = [values[name] for name in passes.learned]
        results = _Gradients.apply(passes, inputs, *learned)
        return dict(zip(self.result_names, results, strict=True))

    def _passes_for(self, inputs: Values) -> _Passes:
        shapes = tuple((name, value.shape) for name, value in inputs.items())
        if shapes not in self._passes:
            self._passes[shapes] = _Passes(self._twin, inputs, self._threads)
        return self._passes[shapes]


class _Passes:
    """The gradient graph for one shape of batch as two sessions, one behind the other.

    The nodes that depend on the outputs' gradients are the backward session; what they read of
    the others is kept by the forward one, so that nothing is computed twice.

    Attributes:
        learned: what gradients are computed for, by its name in the graph.
    """

    def __init__(self, twin: Twin, inputs: Values, threads: int) -> None:
        read = set().union(*(step.reads for step in twin.steps))
        self.learned = [name for name in twin.learned if name in read]
        self._outputs = list(twin.result_names)
        self._seeds = [f"{name}/seed" for name in self._outputs]
        proto = gradient_graph(twin, inputs, self.learned, self._seeds)
        self._gradients = [f"{name}_grad" for name in self.learned]
        early, late = _split(proto, self._seeds, self._gradients)
        made = {name for node in early for name in node.output}
        read_late = {name for node in late for name in node.input}
        self._kept = sorted(read_late & made)
        self._fed_late = [v.name for v in proto.graph.input if v.name in read_late]
        first = _part(proto, early, _fed(proto, early), [*self._outputs, *self._kept])
        self._forward = _session(first, threads)
        kept = [v for v in _typed(self._forward.get_outputs()) if v.name in self._kept]
        second = _part(proto, late, [*_fed(proto, late), *kept], self._gradients)
        self._backward = _session(second, threads)

    def forward(self, feeds: OrtValues, *, keep: bool) -> tuple[list[Tensor], OrtValues]:
        """The outputs, and what the backward pass needs if it is to come."""
        fed = {value.name: feeds[value.name] for value in self._forward.get_inputs()}
        names = list(dict.fromkeys([*self._outputs, *(self._kept if keep else ())]))
        found = dict(zip(names, self._forward.run_with_ort_values(names, fed), strict=True))
        kept = {name: found[name] for name in self._kept} if keep else {}
        kept |= {name: feeds[name] for name in self._fed_late if name in feeds}
        return [torch.from_numpy(found[name].numpy()) for name in self._outputs], kept

    def backward(self, kept: OrtValues, seeds: Sequence[Tensor]) -> list[Tensor]:
        """The gradients of what is learned, from those of the outputs."""
        feeds = kept | dict(zip(self._seeds, map(_ort_value, seeds), strict=True))
        feeds = {value.name: feeds[value.name] for value in self._backward.get_inputs()}
        found = self._backward.run_with_ort_values(self._gradients, feeds)
        return [torch.from_numpy(value.numpy()) for value in found]


class _Gradients(torch.autograd.Function):
    """Hands torch's gradients of the outputs to onnxruntime, and its own of the weights back."""

    @staticmethod
    def forward(ctx: Any, passes: _Passes, inputs: Values, *learned: Tensor) -> tuple[Tensor, ...]:
        feeds = {name: _ort_value(promoted(value)) for name, value in inputs.items()}
        feeds |= dict(zip(passes.learned, map(_ort_value, learned), strict=True))
        ctx.passes = passes
        outputs, ctx.kept = passes.forward(feeds, keep=any(ctx.needs_input_grad))
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *seeds: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *ctx.passes.backward(ctx.kept, seeds)


def _ort_value(tensor: Tensor) -> ort.OrtValue:
    """The tensor for onnxruntime, in its own memory where that is contiguous."""
    return ort.OrtValue.ortvalue_from_numpy(to_numpy(tensor.contiguous()))


def _split(
    proto: onnx.ModelProto, seeds: Collection[str], wanted: Collection[str]
) -> tuple[list[NodeProto], list[NodeProto]]:
    """The nodes that do not depend on the seeds, and those that do and are needed."""
    early, late, after = [], [], set(seeds)
    for node in proto.graph.node:
        if after.isdisjoint(node.input):
            early.append(node)
        else:
            late.append(node)
            after.update(node.output)
    needed, kept = set(wanted), []
    for node in reversed(late):
        if not needed.isdisjoint(node.output):
            kept.append(node)
            needed.update(node.input)
    return early, kept[::-1]


def _fed(proto: onnx.ModelProto, nodes: Sequence[NodeProto]) -> list[onnx.ValueInfoProto]:
    """The graph's inputs that some nodes read."""
    read = {name for node in nodes for name in node.input}
    return [value for value in proto.graph.input if value.name in read]


def _typed(arguments: Sequence[Any]) -> Iterator[onnx.ValueInfoProto]:
    """What onnxruntime says of a session's outputs, for a session that reads them."""
    for argument in arguments:
        kind = argument.type.removeprefix("tensor(").removesuffix(")")
        element = TensorProto.DataType.Value(kind.upper())
        yield helper.make_tensor_value_info(argument.name, element, argument.shape)


def _part(
    proto: onnx.ModelProto,
    nodes: Sequence[NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[str],
) -> onnx.ModelProto:
    """A model of some nodes."""
    part = onnx.ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import)
    part.graph.name = proto.graph.name
    part.graph.node.extend(nodes)
    part.graph.input.extend(inputs)
    known = {value.name: value for value in (*proto.graph.value_info, *proto.graph.output)}
    for name in dict.fromkeys(outputs):
        part.graph.output.append(known.get(name) or onnx.ValueInfoProto(name=name))
    made = {name for node in nodes for name in node.output} - set(outputs)
    part.graph.value_info.extend(value for name, value in known.items() if name in made)
    read = {name for node in nodes for name in node.input}
    part.graph.initializer.extend(t for t in proto.graph.initializer if t.name in read)
    return part


def _session(proto: onnx.ModelProto, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = threads
    try:
        return ort.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's errors share no base class
        raise no_gradient(error) from error
