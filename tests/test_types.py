"""Weights of every type, end to end: learned in float32, written as what they were."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

import fcpts_onnx
from fcpts_onnx import Recipe
from tests import networks
from tests.networks import values
from tests.test_write import assert_only_values_differ

QUICK = Recipe(epochs=0, min_steps=60, batch_size=8, interval=1)
TYPES = {
    TensorProto.FLOAT16: np.float16,
    TensorProto.DOUBLE: np.float64,
    TensorProto.BFLOAT16: ml_dtypes.bfloat16,
}


def retyped(proto: onnx.ModelProto, kind: int, name: str) -> None:
    """Store one weight in another type, with a Cast behind it."""
    for tensor in proto.graph.initializer:
        if tensor.name == name:
            array = numpy_helper.to_array(tensor).astype(TYPES[kind])
            tensor.CopyFrom(numpy_helper.from_array(array, f"{name}.stored"))
    cast = helper.make_node("Cast", [f"{name}.stored"], [name], to=TensorProto.FLOAT)
    proto.graph.node.insert(0, cast)


def prune(proto: onnx.ModelProto, folder: Path, calib: np.ndarray, target: float = 0.6):
    path = networks.save(proto, folder / "in.onnx")
    result = fcpts_onnx.prune(
        path, folder / "out.onnx", target=target, calib=[calib], recipe=QUICK, overwrite=True
    )
    assert_only_values_differ(path, folder / "out.onnx", set(result.validation.changed))
    stored = {
        t.name: numpy_helper.to_array(t) for t in onnx.load(folder / "out.onnx").graph.initializer
    }
    return result, stored


@pytest.mark.parametrize("kind", TYPES)
def test_weights_behind_a_cast(kind: int, tmp_path: Path) -> None:
    proto = networks.perceptron()
    retyped(proto, kind, "first")
    result, stored = prune(proto, tmp_path, values(64, 6, scale=1.0))
    assert stored["first.stored"].dtype == TYPES[kind]
    zeros = sum(int((stored[name] == 0).sum()) for name in ("first.stored", "second"))
    assert zeros == result.zeros == round(0.6 * 176)


def test_a_graph_in_float16(tmp_path: Path) -> None:
    proto = networks.in_half(networks.perceptron())
    result, stored = prune(proto, tmp_path, values(64, 6, scale=1.0).astype(np.float16))
    assert {array.dtype for array in stored.values()} == {np.dtype(np.float16)}
    assert result.zeros == sum(int((stored[n] == 0).sum()) for n in ("first", "second"))
    assert result.validation.outputs[0].cosine > 0.9


GRIDS = {
    "int8, one scale": (np.int8, np.float32(0.01), None),
    "uint8, a zero point": (np.uint8, np.float32(0.01), np.uint8(131)),
    "uint8, nothing below zero": (np.uint8, np.float32(0.005), np.uint8(0)),
    "int8, a scale a channel": (np.int8, np.linspace(0.005, 0.02, 16, dtype=np.float32), None),
}


@pytest.mark.parametrize("name", GRIDS)
def test_whole_numbers_behind_dequantize_linear(name: str, tmp_path: Path) -> None:
    kind, scale, point = GRIDS[name]
    proto = networks.perceptron()
    (weight,) = (t for t in proto.graph.initializer if t.name == "first")
    info, zero = np.iinfo(kind), 0 if point is None else int(point)
    steps = np.round(numpy_helper.to_array(weight) / scale) + zero
    weight.CopyFrom(numpy_helper.from_array(steps.clip(info.min, info.max).astype(kind), "q"))
    inputs = ["q", "scale"]
    proto.graph.initializer.append(numpy_helper.from_array(np.asarray(scale), "scale"))
    if point is not None:
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(point), "point"))
        inputs.append("point")
    node = helper.make_node("DequantizeLinear", inputs, ["first"], axis=1)
    proto.graph.node.insert(0, node)
    result, stored = prune(proto, tmp_path, values(64, 6, scale=1.0))
    assert stored["q"].dtype == kind
    zeros = int((stored["q"] == zero).sum()) + int((stored["second"] == 0).sum())
    assert zeros == result.zeros == round(0.6 * 176)
    np.testing.assert_array_equal(stored["scale"], scale)
    assert result.validation.twin_error < 1e-5
    assert result.validation.outputs[0].cosine > 0.8


def test_functions_of_the_model_are_inlined_to_learn_and_kept_in_the_file(tmp_path: Path) -> None:
    body = [helper.make_node("MatMul", ["v", "m"], ["p"]), helper.make_node("Relu", ["p"], ["r"])]
    opsets = [helper.make_opsetid("", 17)]
    layer = helper.make_function("mine", "Layer", ["v", "m"], ["r"], body, opsets)
    nodes = [
        helper.make_node("Layer", ["x", "w"], ["a"], "one", domain="mine"),
        helper.make_node("MatMul", ["a", "u"], ["y"], "two"),
    ]
    constants = {"w": values(6, 8, seed=1), "u": values(8, 5, seed=2)}
    proto = networks.make(nodes, constants, {"x": ["N", 6]}, {"y": ["N", 5]})
    proto.functions.append(layer)
    proto.opset_import.append(helper.make_opsetid("mine", 1))
    result, stored = prune(proto, tmp_path, values(64, 6, scale=1.0))
    assert result.zeros == round(0.6 * 88)
    assert int((stored["w"] == 0).sum()) > 0
    assert len(onnx.load(tmp_path / "out.onnx").functions) == 1


def test_attributes_that_a_call_leaves_to_the_function(tmp_path: Path) -> None:
    slope = helper.make_attribute("alpha", 0.3)
    body = [helper.make_node("LeakyRelu", ["v"], ["r"])]
    body[0].attribute.add(name="alpha", ref_attr_name="alpha", type=AttributeProto.FLOAT)
    opsets = [helper.make_opsetid("", 18)]
    layer = helper.make_function(
        "mine", "Leaky", ["v"], ["r"], body, opsets, attribute_protos=[slope]
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "one"),
        helper.make_node("Leaky", ["a"], ["b"], "two", domain="mine"),
        helper.make_node("Shrink", ["b"], ["y"], "three"),
    ]
    proto = networks.make(
        nodes, {"w": values(6, 8, seed=1)}, {"x": ["N", 6]}, {"y": ["N", 8]}, opset=18
    )
    proto.functions.append(layer)
    proto.opset_import.append(helper.make_opsetid("mine", 1))
    result, _ = prune(proto, tmp_path, values(64, 6, scale=3.0))
    assert result.parity.error < 1e-5


def test_operators_that_onnx_defines_by_a_function_of_constants(tmp_path: Path) -> None:
    """The inliner has to know the types of what they read."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["q"], "one"),
        helper.make_node(
            "Attention", ["q", "q", "q", "mask"], ["y"], "two", q_num_heads=2, kv_num_heads=2
        ),
    ]
    constants = {"w": values(6, 8, seed=1), "mask": values(5, 5, seed=3)}
    proto = networks.make(nodes, constants, {"x": ["N", 5, 6]}, {"y": ["N", 5, 8]}, opset=23)
    result, _ = prune(proto, tmp_path, values(64, 5, 6, scale=1.0))
    assert result.parity.error < 1e-5
