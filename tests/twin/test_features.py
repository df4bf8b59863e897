"""What the last layers before some outputs read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from fcpts_onnx.model import Model
from fcpts_onnx.twin import Twin
from fcpts_onnx.twin.features import features
from tests import networks

WEIGHTS = {f"w{place}": networks.values(4, 4, seed=place) for place in range(3)}


def node(op: str, inputs: list[str], outputs: list[str], **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs, outputs, **attributes)


FIRST = [node("MatMul", ["x", "w0"], ["a"]), node("Relu", ["a"], ["r"])]
SECOND = node("MatMul", ["r", "w1"], ["y"])
CASES = {
    "the last layer's input": ([*FIRST, SECOND], ["y"], ["r"]),
    "through what has no weights": (
        [*FIRST, node("MatMul", ["r", "w1"], ["b"]), node("Softmax", ["b"], ["y"])], ["y"], ["r"],
    ),
    "a bias is no layer": (
        [*FIRST, node("MatMul", ["r", "w1"], ["b"]), node("Add", ["b", "v"], ["y"])], ["y"], ["r"],
    ),
    "a weight that is turned first": (
        [*FIRST, node("Transpose", ["w1"], ["t"]), node("MatMul", ["r", "t"], ["y"])], ["y"], ["r"],
    ),
    "two branches": (
        [*FIRST, node("MatMul", ["a", "w1"], ["b"]), node("MatMul", ["r", "w2"], ["c"]),
         node("Add", ["b", "c"], ["y"])],
        ["y"], ["a", "r"],
    ),
    "two outputs of one feature": (
        [*FIRST, SECOND, node("MatMul", ["r", "w2"], ["z"])], ["y", "z"], ["r"],
    ),
    "one layer reads the input alone": ([node("MatMul", ["x", "w0"], ["y"])], ["y"], []),
    "past an output on the way to another": ([*FIRST, SECOND], ["r", "y"], ["r"]),
    "shapes are no features": (
        [*FIRST, node("MatMul", ["r", "w1"], ["b"]), node("Shape", ["r"], ["s"]),
         node("Reshape", ["b", "s"], ["y"])],
        ["y"], ["r"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_features(name: str) -> None:
    nodes, outputs, expected = CASES[name]
    constants = WEIGHTS | {"v": np.ones(4, np.float32)}
    proto = networks.make(nodes, constants, {"x": ["N", 4]}, {name: ["N", 4] for name in outputs})
    twin = Twin(Model(Path("m.onnx"), proto), [*WEIGHTS, "v"])
    found = features(twin.steps, twin.input_names, twin.learned, WEIGHTS, outputs)
    assert list(found) == expected
