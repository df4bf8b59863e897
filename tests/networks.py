"""Small networks, built node by node, for tests that need a whole model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from fcpts_onnx.calibration import Calibration, load_calibration
from fcpts_onnx.model import Model, load
from fcpts_onnx.preprocess import PRESETS

FLOAT = TensorProto.FLOAT

QUICK = "epochs = 0\nmin_steps = 6\nbatch_size = 4\ninterval = 1\n"
"""A recipe of a few steps."""


def values(*shape: int, seed: int = 0, scale: float = 0.3) -> np.ndarray:
    """Random float32 values, always the same."""
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)


def make(
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    inputs: dict[str, Sequence[int | str | None]],
    outputs: dict[str, Sequence[int | str | None]],
    *,
    opset: int = 17,
    ir_version: int = 8,
    input_type: int = FLOAT,
) -> onnx.ModelProto:
    """A model of these nodes."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, input_type, s) for name, s in inputs.items()],
        [helper.make_tensor_value_info(name, FLOAT, s) for name, s in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


def cnn(
    *,
    batch: int | str = "N",
    channels: int = 3,
    size: int | str = 8,
    baked: bool = False,
    **settings: Any,
) -> onnx.ModelProto:
    """Conv, Relu, depthwise Conv, pooling and Gemm: 4 classes.

    Args:
        baked: write the batch size of 1 into a Reshape, as some exporters do.
    """
    shape = np.array([1 if baked else 0, 8], np.int64)
    nodes = [
        helper.make_node("Conv", ["image", "conv.w", "conv.b"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "depthwise.w"], ["d"], "depthwise", group=8, pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["d"], ["p"], "pool"),
        helper.make_node("Reshape", ["p", "shape"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "fc.w", "fc.b"], ["scores"], "fc", transB=1),
    ]
    constants = {
        "conv.w": values(8, channels, 3, 3, seed=1),
        "conv.b": values(8, seed=2),
        "depthwise.w": values(8, 1, 3, 3, seed=3),
        "shape": shape,
        "fc.w": values(4, 8, seed=4, scale=2.0),
        "fc.b": values(4, seed=5),
    }
    inputs = {"image": [batch, channels, size, size]}
    return make(nodes, constants, inputs, {"scores": [batch, 4]}, **settings)


def perceptron(**settings: Any) -> onnx.ModelProto:
    """MatMul, Add, Relu, MatMul on vectors of 6; 5 outputs."""
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"], "one"),
        helper.make_node("Add", ["a", "bias"], ["b"], "add"),
        helper.make_node("Relu", ["b"], ["c"], "relu"),
        helper.make_node("MatMul", ["c", "second"], ["y"], "two"),
    ]
    constants = {
        "first": values(6, 16, seed=1),
        "bias": values(16, seed=2),
        "second": values(16, 5, seed=3),
    }
    return make(nodes, constants, {"x": ["N", 6]}, {"y": ["N", 5]}, **settings)


def batch_norm(**settings: Any) -> onnx.ModelProto:
    """Conv, BatchNormalization, hard swish, attention-like mask, pooling: 4 classes."""
    nodes = [
        helper.make_node("Conv", ["image", "conv.w", "conv.b"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node(
            "BatchNormalization", ["c", "bn.scale", "bn.shift", "bn.mean", "bn.var"], ["n"], "bn"
        ),
        helper.make_node("Conv", ["n", "out.w"], ["o"], "out"),
        helper.make_node("Add", ["o", "three"], ["t"], "swish"),
        helper.make_node("Clip", ["t", "zero", "six"], ["k"], "clip"),
        helper.make_node("Mul", ["o", "k"], ["h"], "gate"),
        helper.make_node("GlobalAveragePool", ["h"], ["scores"], "pool"),
    ]
    constants = {
        "conv.w": values(8, 3, 3, 3, seed=1),
        "conv.b": values(8, seed=2),
        "bn.scale": 1 + values(8, seed=3),
        "bn.shift": values(8, seed=4),
        "bn.mean": values(8, seed=5),
        "bn.var": 1 + values(8, seed=6) ** 2,
        "out.w": values(4, 8, 1, 1, seed=7),
        "three": np.array(3, np.float32),
        "zero": np.array(0, np.float32),
        "six": np.array(6, np.float32),
    }
    shapes = {"image": ["N", 3, 8, 8]}, {"scores": ["N", 4, 1, 1]}
    return make(nodes, constants, *shapes, **settings)


def in_half(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same in float16: tensors, inputs and outputs."""
    return _in_type(proto, TensorProto.FLOAT16)


def in_double(proto: onnx.ModelProto) -> onnx.ModelProto:
    """As `in_half`, in float64."""
    return _in_type(proto, TensorProto.DOUBLE)


def _in_type(proto: onnx.ModelProto, kind: int) -> onnx.ModelProto:
    constants = (node.attribute[0].t for node in proto.graph.node if node.op_type == "Constant")
    for tensor in (*proto.graph.initializer, *constants):
        if tensor.data_type == FLOAT:
            array = numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(kind))
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = kind
    return proto


def detector() -> onnx.ModelProto:
    """One convolution to a map of 5 + 2 shares a place, as FastestDet has it."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["places"], strides=[2, 2]),
        helper.make_node("Sigmoid", ["places"], ["output"]),
    ]
    shapes = {"x": ["N", 3, 8, 8]}, {"output": ["N", 7, 4, 4]}
    return make(nodes, {"w": values(7, 3, 2, 2)}, *shapes)


def save(proto: onnx.ModelProto, path: Path) -> Path:
    """Write a model to a file."""
    onnx.save(proto, str(path))
    return path


def loaded(proto: onnx.ModelProto, path: Path) -> Model:
    """The model as it is read back from a file."""
    return load(save(proto, path))


def random_images(model: Model, count: int = 24) -> Calibration:
    """Noise for `cnn` to be calibrated with."""
    images = values(count, 3, 8, 8, scale=1.0)
    return load_calibration([images], model, PRESETS["raw"])


def save_images(
    folder: Path, count: int = 8, size: tuple[int, int] = (8, 8), mode: str = "RGB", seed: int = 0
) -> Path:
    """Write random images as PNG, 000.png and on."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    for index in range(count):
        pixels = generator.integers(0, 256, shape, np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:03}.png")
    return folder
