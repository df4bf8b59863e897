"""Small files that ask for more values than any memory holds, and sizes that are right."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result
from onnx import helper

from fcpts_onnx.cli import main
from fcpts_onnx.twin.bounds import Bounded
from tests import networks

ONE, LARGE = np.ones(1, np.float32), np.array([2**20, 2**20])
PATCH = np.ones((1, 1, 2, 2), np.float32)
NOTHING = np.zeros(0, np.float32)

# Operator -> its inputs, all of them constants.
BOMBS = {
    "ConstantOfShape": [LARGE],
    "Expand": [ONE, LARGE],
    "Tile": [np.ones((2, 2), np.float32), LARGE],
    "Pad": [np.ones((2, 2), np.float32), np.array([2**20, 2**20, 0, 0])],
    "Resize": [PATCH, NOTHING, NOTHING, np.array([1, 1, 2**18, 2**18])],
    "Range": [np.array(0.0, np.float32), np.array(1e13, np.float32), np.array(1.0, np.float32)],
    "OneHot": [np.zeros(1000, np.int64), np.array(10**10), np.array([0.0, 1.0], np.float32)],
    "MatMul": [np.ones((2**18, 1), np.float32), np.ones((1, 2**18), np.float32)],
    "Mul": [np.ones((2**18, 1), np.float32), np.ones((1, 2**18), np.float32)],
    "HannWindow": [np.array(10**12)],
    "ReduceSum": [np.zeros((2**40, 0), np.float32), np.array([1])],
}


def run(proto: onnx.ModelProto, folder: Path, *, prunes: bool = True) -> Result:
    path = networks.save(proto, folder / "in.onnx")
    np.save(folder / "x.npy", networks.values(8, 6))
    options = [str(folder / "out.onnx"), "--target", "0.5", "--calib", str(folder / "x.npy")]
    command = ["prune", str(path), *options] if prunes else ["inspect", str(path)]
    result = CliRunner().invoke(main, command)
    assert isinstance(result.exception, SystemExit | None), result.exception
    assert not (folder / "out.onnx").exists()
    return result


def with_constant(node: onnx.NodeProto, constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    """A layer to whose result the largest value of a node's output `big` is added."""
    nodes = [
        node,
        helper.make_node("ReduceMax", ["big"], ["most"], keepdims=0),
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Add", ["p", "most"], ["y"]),
    ]
    constants = constants | {"w": networks.values(6, 5)}
    return networks.make(nodes, constants, {"x": ["N", 6]}, {"y": ["N", 5]})


@pytest.mark.parametrize("op", BOMBS)
def test_constants_that_no_memory_holds(op: str, tmp_path: Path) -> None:
    constants = {f"c{place}": value for place, value in enumerate(BOMBS[op])}
    node = helper.make_node(op, list(constants), ["big"], "bomb")
    proto = with_constant(node, constants)
    result = run(proto, tmp_path)
    assert result.exit_code == 1
    assert f"{op} node 'bomb': asks for " in result.output
    inspected = run(proto, tmp_path, prunes=False)
    assert "It cannot be pruned: " in inspected.output


def turning(turns: int) -> onnx.ModelProto:
    """The same with a Loop that adds one to a constant so many times."""
    value, size, truth = (
        (name, kind, [])
        for name, kind in (("in", networks.FLOAT), ("i", 7), ("on", 9))
    )  # fmt: skip
    nodes = [
        helper.make_node("Identity", ["on"], ["goes_on"]),
        helper.make_node("Add", ["in", "in"], ["twice"]),
    ]
    inputs = [helper.make_tensor_value_info(*entry) for entry in (size, truth, value)]
    outputs = [
        helper.make_tensor_value_info("goes_on", onnx.TensorProto.BOOL, []),
        helper.make_tensor_value_info("twice", networks.FLOAT, []),
    ]
    body = helper.make_graph(nodes, "body", inputs, outputs)
    node = helper.make_node("Loop", ["turns", "true", "zero"], ["big"], "bomb", body=body)
    constants = {
        "turns": np.array(turns), "true": np.array(True), "zero": np.array(0, np.float32),
    }  # fmt: skip
    return with_constant(node, constants)


def test_a_loop_that_never_ends(tmp_path: Path) -> None:
    result = run(turning(2**60), tmp_path)
    assert result.exit_code == 1
    assert "asks for more values in all than are computed" in result.output


def test_a_loop_that_ends(tmp_path: Path) -> None:
    assert "Learned against y" in run(turning(100), tmp_path, prunes=False).output


@pytest.mark.parametrize("shape", [["N", 2**40], [2**40, 6], ["N", *[2**20] * 3]])
def test_inputs_that_no_memory_holds(shape: list[int | str], tmp_path: Path) -> None:
    proto = networks.perceptron()
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", networks.FLOAT, shape))
    assert run(proto, tmp_path, prunes=False).exit_code == 0
    assert run(proto, tmp_path).exit_code == 1


def test_a_constant_that_cannot_be_computed(tmp_path: Path) -> None:
    node = helper.make_node("Reshape", ["c", "s"], ["big"], "wrong")
    constants = {"c": ONE, "s": np.array([7])}
    result = run(with_constant(node, constants), tmp_path)
    assert result.exit_code == 1
    assert "cannot be computed, Reshape node 'wrong'" in result.output


def test_what_is_picked_by_values_may_be_as_large_as_that() -> None:
    x = torch.arange(10.0)
    with Bounded(largest=20, total=2**20):
        assert torch.nonzero(x > 3).shape == (6, 1)
        assert x[x > 3].shape == (6,)
        assert torch.cat([x, x]).shape == (20,)
        with pytest.raises(RuntimeError, match="asks for 30 values, more than 20"):
            torch.cat([x, x, x])
        with pytest.raises(RuntimeError, match="asks for 100 values"):
            x[:, None] + x
    assert torch.cat([x, x, x]).shape == (30,)


def test_the_total_is_of_all_calls() -> None:
    x = torch.ones(10_000)
    with Bounded(largest=2**20, total=100_000):
        for _ in range(10):
            x = x + 1
        with pytest.raises(RuntimeError, match="more values in all"):
            x + 1


SPANS = [(7,), (2, 7), (0, 7, 2), (7, 0, -3), (0.0, 1.0, 0.3), (3, 3), (0,)]


@pytest.mark.parametrize("span", SPANS, ids=str)
def test_arange_is_counted_as_torch_does(span: tuple[float, ...]) -> None:
    count = torch.arange(*span).numel()
    with Bounded(largest=count, total=2**20):
        assert torch.arange(*span).numel() == count
    if count:
        with (
            Bounded(largest=count - 1, total=2**20),
            pytest.raises(RuntimeError, match=f"asks for {count} values"),
        ):
            torch.arange(*span)


@pytest.mark.parametrize("span", [(0, 5, 0), (0.0, float("inf")), (5, 0), (0.0, float("nan"))])
def test_what_arange_refuses_is_left_to_torch(span: tuple[float, ...]) -> None:
    with Bounded(largest=2**20, total=2**20), pytest.raises(RuntimeError) as refused:
        torch.arange(*span)
    with pytest.raises(RuntimeError) as expected:
        torch.arange(*span)
    assert str(refused.value) == str(expected.value)


# Calls that constants and noise go through in common networks, of tensors x, [1, 2, 4, 4].
COMMON = [
    "torch.arange(3) // 2",
    "F.interpolate(x, (3, 3), mode='bicubic')",
    "F.interpolate(x, (3, 3), mode='bilinear')",
    "F.interpolate(x, (8, 8))",
    "F.batch_norm(x, x[0, :, 0, 0], x[0, :, 1, 1])",
    "torch.group_norm(x, 2) + x.norm(2, 1, True)",
    "torch.var_mean(x, 1)[0] + x.sum(1)",
    "torch._safe_softmax(x, 1)",
    "find_op('', 'Expand', 13).function(x, (2, 1, 1, 4))",
]


def test_common_calls_do_without_the_compiler_of_torch() -> None:
    """It takes seconds to load, once for each process."""
    lines = [
        "import sys, torch, torch.nn.functional as F",
        "from fcpts_onnx.ops import find_op",
        "from fcpts_onnx.twin.bounds import Bounded",
        "x, before = torch.ones(1, 2, 4, 4), set(sys.modules)",
        "with Bounded(2**20, 2**30):",
        *(f"    {call}" for call in COMMON),
        "print(*(n for n in set(sys.modules) - before if n.startswith(('torch._', 'torch.fx'))))",
    ]
    found = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], check=True, capture_output=True, text=True
    )
    assert found.stdout.split() == []
