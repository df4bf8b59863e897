"""Control flow against onnxruntime: graphs inside nodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from fcpts_onnx.model import Model
from fcpts_onnx.twin import Twin
from tests import networks
from tests.ops.harness import Case, normal

CASES: list[Case] = []
FLOAT, BOOL, INT64 = TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64


def info(name: str, kind: int = FLOAT, shape: list[int] | None = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def agree(proto: onnx.ModelProto, *inputs: np.ndarray) -> None:
    feeds = {value.name: x for value, x in zip(proto.graph.input, inputs, strict=True)}
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, feeds)
    with torch.no_grad():
        found = Twin(Model(Path("m.onnx"), proto))(
            {name: torch.from_numpy(x) for name, x in feeds.items()}
        )
    for value, wanted in zip(found.values(), expected, strict=True):
        assert value.numpy().dtype == wanted.dtype
        np.testing.assert_allclose(value.numpy(), wanted, rtol=1e-5, atol=1e-6)


OPSETS = [11, 13, 16, 19, 21, 23, 24, 25]


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_if_reads_what_lies_around_it(opset: int, sign: float) -> None:
    """Branches read the graph's values; each has a constant of the same name."""
    branches = {}
    for name, op in (("then_branch", "Add"), ("else_branch", "Mul")):
        branches[name] = helper.make_graph(
            [helper.make_node(op, ["x", "c"], [f"{name}.y"])], name, [], [info(f"{name}.y")],
            [numpy_helper.from_array(np.float32([3.0 if op == "Add" else 5.0]), "c")],
        )  # fmt: skip
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        helper.make_node("Greater", ["top", "zero"], ["is"]),
        helper.make_node("If", ["is"], ["y"], "choose", **branches),
    ]
    proto = networks.make(nodes, {"zero": np.float32(0)}, {"x": ["N", 3]}, {"y": ["N", 3]},
                          opset=opset)  # fmt: skip
    agree(proto, sign * np.abs(normal(2, 3)))


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("turns", [0, 1, 4])
def test_loop_carries_and_collects(opset: int, turns: int) -> None:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Mul", ["state", "half"], ["next"]),
            helper.make_node("Add", ["next", "x"], ["seen"]),
        ],
        "body",
        [info("turn", INT64, []), info("go", BOOL, []), info("state", FLOAT, [2, 3])],
        [info("go_on", BOOL, []), info("next", FLOAT, [2, 3]), info("seen", FLOAT, [2, 3])],
        [numpy_helper.from_array(np.float32([0.5]), "half")],
    )
    nodes = [helper.make_node("Loop", ["turns", "", "x"], ["y", "all"], "repeat", body=body)]
    outputs = {"y": [2, 3]} if not turns else {"y": [2, 3], "all": ["T", 2, 3]}
    proto = networks.make(nodes, {"turns": np.int64(turns)}, {"x": [2, 3]}, outputs, opset=opset)
    agree(proto, normal(2, 3))


def test_loop_ends_by_its_condition() -> None:
    body = helper.make_graph(
        [
            helper.make_node("Add", ["state", "x"], ["next"]),
            helper.make_node("ReduceMax", ["next"], ["top"], keepdims=0),
            helper.make_node("Less", ["top", "limit"], ["go_on"]),
        ],
        "body",
        [info("turn", INT64, []), info("go", BOOL, []), info("state", FLOAT, [2, 3])],
        [info("go_on", BOOL, []), info("next", FLOAT, [2, 3])],
    )
    constants = {"go": np.array(True), "limit": np.float32(5)}
    nodes = [helper.make_node("Loop", ["", "go", "x"], ["y"], "repeat", body=body)]
    proto = networks.make(nodes, constants, {"x": [2, 3]}, {"y": [2, 3]}, opset=17)
    agree(proto, np.abs(normal(2, 3)) + 0.1)


@pytest.mark.parametrize("opset", [9, *OPSETS])
@pytest.mark.parametrize("directions", [[0], [1]])
def test_scan(opset: int, directions: list[int]) -> None:
    body = helper.make_graph(
        [
            helper.make_node("Add", ["state", "part"], ["next"]),
            helper.make_node("Mul", ["next", "part"], ["seen"]),
        ],
        "body",
        [info("state", FLOAT, [3]), info("part", FLOAT, [3])],
        [info("next", FLOAT, [3]), info("seen", FLOAT, [3])],
    )
    node = helper.make_node(
        "Scan", ["start", "x"], ["end", "all"], "scan", body=body, num_scan_inputs=1,
        scan_input_axes=[1], scan_input_directions=directions, scan_output_axes=[1],
        scan_output_directions=directions,
    )  # fmt: skip
    constants = {"start": np.zeros(3, np.float32)}
    proto = networks.make([node], constants, {"x": [3, 4]}, {"end": [3], "all": [3, 4]},
                          opset=opset)  # fmt: skip
    agree(proto, normal(3, 4))


def test_gradients_pass_a_branch() -> None:
    body = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["b"])], "then_branch", [], [info("b")]
    )
    other = helper.make_graph([helper.make_node("Neg", ["x"], ["c"])], "other", [], [info("c")])
    node = helper.make_node("If", ["is"], ["y"], "choose", then_branch=body, else_branch=other)
    constants = {"is": np.array(True), "w": normal(3, 3)}
    proto = networks.make([node], constants, {"x": ["N", 3]}, {"y": ["N", 3]})
    twin = Twin(Model(Path("m.onnx"), proto), ["w"])
    twin({"x": torch.ones(2, 3)})["y"].sum().backward()
    assert torch.equal(twin.learned["w"].grad, torch.full((3, 3), 2.0))
