"""LEARN: the twin's graph with its gradients added, as an ONNX model, by onnxruntime-training."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor

from fcpts_onnx.errors import FcptsError, UnsupportedError
from fcpts_onnx.ops.dtypes import PROMOTED_TYPES, TORCH_TYPES, promoted, to_numpy
from fcpts_onnx.runtime import converted
from fcpts_onnx.texts import shortened
from fcpts_onnx.twin import Twin

__all__ = ["gradient_builder", "gradient_graph", "no_gradient"]

# In older ones onnxruntime-training builds invalid gradients of Gemm, Slice and MaxPool.
_OLDEST_OPSET = 11
_LOSS = "fcpts/loss"
_ERRORS_ONLY = 3
_NOISE = re.compile(r"^/onnxruntime_src/.*?( was false\.|\[ONNXRuntimeError\] : \d+ :) ")
_ONNX_TYPES = {torch_type: onnx_type for onnx_type, torch_type in TORCH_TYPES.items()}


def gradient_graph(
    twin: Twin, inputs: Mapping[str, Tensor], learned: Sequence[str], seeds: Sequence[str]
) -> onnx.ModelProto:
    """The graph for batches of one shape, and behind it that of its gradients.

    Args:
        inputs: a batch of the shape; it is written into the graph.
        learned: which of the twin's learned tensors to differentiate by. They become inputs, and
            `<name>_grad` an output for each.
        seeds: names for the gradients of the twin's outputs, which become inputs too.

    Raises:
        FcptsError: onnxruntime-training is not installed.
        ModelError: the opset cannot be converted.
        UnsupportedError: onnxruntime-training has no gradient for some of it.
    """
    return _with_gradients(_copy(twin, inputs, learned, seeds), learned)


def gradient_builder() -> Any:
    """onnxruntime-training's own class that adds gradients to a graph.

    Raises:
        FcptsError: the installed onnxruntime is not the one for training.
    """
    try:
        from onnxruntime.capi._pybind_state import GradientGraphBuilder
    except ImportError as error:
        raise FcptsError(
            f"--engine ort needs onnxruntime-training; installed is onnxruntime {ort.__version__}. "
            "The two cannot share an environment: in one of its own, run pip install "
            "'fcpts-onnx[ort-training]', then pip uninstall onnxruntime, then pip install "
            "--force-reinstall --no-deps onnxruntime-training-cpu==1.19.2. Or use --engine torch."
        ) from error
    return GradientGraphBuilder


def no_gradient(error: Exception) -> UnsupportedError:
    """What to tell the user when onnxruntime-training fails on a graph."""
    return UnsupportedError(
        f"onnxruntime-training has no gradient for this model: {_reason(error)}. "
        "Use --engine torch."
    )


def _reason(error: Exception) -> str:
    """A message on one line, without the source line that onnxruntime may put first."""
    return shortened(_NOISE.sub("", " ".join(str(error).split())).rstrip("."))


def _copy(
    twin: Twin, inputs: Mapping[str, Tensor], learned: Sequence[str], seeds: Sequence[str]
) -> onnx.ModelProto:
    """The twin's graph as a model of its own, its learned tensors and the seeds as inputs.

    What is differentiated is the sum of outputs times seeds: its gradient has each output's seed
    as the gradient of that output, also where one output is on the way to another.
    """
    with torch.no_grad():
        made = [name for step in twin.steps for name in step.outputs if name]
        values = {**twin(inputs, fetch=made), **twin.learned, **twin.constants()}
    values |= {name: promoted(value) for name, value in inputs.items()}
    values |= {seed: values[name] for seed, name in zip(seeds, twin.result_names, strict=True)}
    stored = {name: node for node in twin.model.proto.graph.node for name in node.output if name}
    alone = [single for step in twin.steps for single in step.nodes()]
    steps = [(stored[next(filter(None, single.outputs))], single.label) for single in alone]
    nodes = [new for node, label in steps for new in _rewritten(_promoted(node, label), values)]
    graph = helper.make_graph(
        [*nodes, *_loss(twin.result_names, seeds)],
        "gradients",
        [_info(name, values[name]) for name in (*inputs, *learned, *seeds)],
        [_info(name, values[name]) for name in twin.result_names]
        + [helper.make_tensor_value_info(_LOSS, TensorProto.FLOAT, [])],
        [numpy_helper.from_array(to_numpy(v), name) for name, v in twin.constants().items()],
        value_info=[
            _info(name, values[name])
            for name in made
            if isinstance(values[name], Tensor) and name not in twin.result_names
        ],
    )
    opsets = [helper.make_opsetid(*entry) for entry in twin.model.opsets.items()]
    proto = helper.make_model(graph, opset_imports=opsets)
    return converted(twin.model, proto, _OLDEST_OPSET)


def _loss(outputs: Sequence[str], seeds: Sequence[str]) -> Iterator[NodeProto]:
    """Nodes for the sum of all outputs times their seeds."""
    total = ""
    for place, (name, seed) in enumerate(zip(outputs, seeds, strict=True)):
        last = place + 1 == len(outputs)
        summed = _LOSS if last and not total else f"{seed}/sum"
        yield helper.make_node("Mul", [name, seed], [f"{seed}/product"], f"{seed}/product")
        yield helper.make_node("ReduceSum", [f"{seed}/product"], [summed], summed, keepdims=0)
        if total:
            added = _LOSS if last else f"{seed}/total"
            yield helper.make_node("Add", [total, summed], [added], added)
            summed = added
        total = summed


def _with_gradients(proto: onnx.ModelProto, learned: Collection[str]) -> onnx.ModelProto:
    """The model with the gradients of the loss added, `<name>_grad` for each learned tensor.

    Raises:
        UnsupportedError: onnxruntime-training has no gradient for some operator.
    """
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    try:
        builder = gradient_builder()(
            proto.SerializeToString(), {_LOSS}, set(learned), _LOSS, options
        )
        builder.build()
        found = onnx.load_from_string(builder.get_model())
    except RuntimeError as error:
        raise no_gradient(error) from error
    _check_pooling(found)
    return found


def _check_pooling(proto: onnx.ModelProto) -> None:
    """See that gradients of pooling find the sizes in the graph; else they crash the process.

    Raises:
        UnsupportedError: a size is open, as behind a Reshape to a computed shape.
    """
    sizes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in proto.graph.value_info
    }
    for node in proto.graph.node:
        if node.op_type in ("AveragePoolGrad", "MaxPoolGrad") and not all(
            sizes.get(node.output[0]) or [0]
        ):
            raise no_gradient(RuntimeError(f"a size is open at {node.name}"))


def _info(name: str, value: Tensor) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, _ONNX_TYPES[value.dtype], value.shape)


def _promoted(node: NodeProto, label: str) -> NodeProto:
    """The node by a name to show, in float32, whatever float type its attributes say."""
    node = onnx.NodeProto.FromString(node.SerializeToString())
    node.name = label
    for attribute in node.attribute:
        if attribute.name in ("to", "dtype") and attribute.i in PROMOTED_TYPES:
            attribute.i = TensorProto.FLOAT
        if attribute.HasField("t") and attribute.t.data_type in PROMOTED_TYPES:
            array = numpy_helper.to_array(attribute.t).astype(np.float32)
            attribute.t.CopyFrom(numpy_helper.from_array(array, attribute.t.name))
    return node


def _rewritten(node: NodeProto, values: Mapping[str, Any]) -> list[NodeProto]:
    """The node, or others for it that onnxruntime-training has right gradients for."""
    rewrite = _REWRITES.get(node.op_type)
    return [node] if rewrite is None or node.domain else list(rewrite(node, values))


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}


def _batch_normalization(node: NodeProto, values: Mapping[str, Any]) -> Iterator[NodeProto]:
    """With fixed mean and variance as arithmetic: the gradient is that of training only."""
    x, scale, shift, mean, variance = node.input[:5]
    inner = {key: f"{node.output[0]}/{key}" for key in ("e", "s", "v", "d", "g", "m", "r", "a")}
    epsilon = np.float32(_attributes(node).get("epsilon", 1e-5))
    shape = np.array([-1] + [1] * (values[node.output[0]].ndim - 2), np.int64)

    def make(kind: str, inputs: Sequence[str], output: str) -> NodeProto:
        return helper.make_node(kind, inputs, [output], output)

    yield _constant(inner["e"], epsilon)
    yield _constant(inner["s"], shape)
    yield make("Add", [variance, inner["e"]], inner["v"])
    yield make("Sqrt", [inner["v"]], inner["d"])
    yield make("Div", [scale, inner["d"]], inner["g"])
    yield make("Mul", [mean, inner["g"]], inner["m"])
    yield make("Sub", [shift, inner["m"]], inner["r"])
    yield make("Reshape", [inner["g"], inner["s"]], inner["a"])
    yield make("Mul", [x, inner["a"]], f"{inner['a']}/x")
    yield make("Reshape", [inner["r"], inner["s"]], f"{inner['r']}/s")
    yield make("Add", [f"{inner['a']}/x", f"{inner['r']}/s"], node.output[0])


def _layer_normalization(node: NodeProto, values: Mapping[str, Any]) -> Iterator[NodeProto]:
    """With the two further outputs that its gradient reads."""
    del values
    outputs = [*node.output, "", ""][:3]
    outputs[1:] = [
        name or f"{outputs[0]}/{kind}"
        for name, kind in zip(outputs[1:], ("mean", "deviation"), strict=True)
    ]
    del node.output[:]
    node.output.extend(outputs)
    yield node


def _dropout(node: NodeProto, values: Mapping[str, Any]) -> Iterator[NodeProto]:
    """As Identity, which it is outside training."""
    del values
    yield helper.make_node("Identity", node.input[:1], node.output[:1], node.name)


def _constant(name: str, value: Any) -> NodeProto:
    tensor = numpy_helper.from_array(np.asarray(value), name)
    return helper.make_node("Constant", [], [name], name, value=tensor)


_REWRITES: dict[str, Callable[[NodeProto, Mapping[str, Any]], Iterator[NodeProto]]] = {
    "BatchNormalization": _batch_normalization,
    "Dropout": _dropout,
    "LayerNormalization": _layer_normalization,
}
