"""Layers as products: the matrix times the rows is what the layer gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper

import fcpts_onnx
from fcpts_onnx import Recipe
from fcpts_onnx.errors import UnsupportedError
from fcpts_onnx.model import Model
from fcpts_onnx.twin import Twin
from fcpts_onnx.twin.layers import layers
from fcpts_onnx.weights import find_weights
from tests import networks
from tests.networks import values

IMAGE = (2, 4, 7, 6)
CASES: dict[str, tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "conv": ("Conv", IMAGE, (6, 4, 3, 3), {"pads": [1, 1, 1, 1]}),
    "conv with strides": ("Conv", IMAGE, (6, 4, 3, 2), {"strides": [2, 1], "pads": [0, 1, 1, 0]}),
    "conv padded by name": ("Conv", IMAGE, (6, 4, 3, 3), {"auto_pad": "SAME_UPPER"}),
    "conv with dilations": ("Conv", IMAGE, (6, 4, 2, 2), {"dilations": [2, 3]}),
    "conv in groups": ("Conv", IMAGE, (6, 2, 3, 3), {"group": 2}),
    "depthwise conv": ("Conv", IMAGE, (4, 1, 3, 3), {"group": 4}),
    "conv of a sequence": ("Conv", (2, 4, 9), (6, 4, 3), {}),
    "transposed conv": ("ConvTranspose", IMAGE, (4, 6, 3, 3), {"strides": [2, 2]}),
    "gemm": ("Gemm", (5, 4), (4, 6), {}),
    "gemm, transposed and scaled": ("Gemm", (5, 4), (6, 4), {"transB": 1, "alpha": 0.5}),
    "matmul": ("MatMul", (5, 4), (4, 6), {}),
    "matmul of tokens": ("MatMul", (2, 3, 4), (4, 6), {}),
    "matmul by a stack of one": ("MatMul", (5, 4), (1, 4, 6), {}),
}


def network(op: str, data: tuple[int, ...], weight: tuple[int, ...], **attributes: Any) -> Model:
    """The layer with a bias: its own, or added behind MatMul."""
    constants = {"w": values(*weight), "b": values(6, seed=1)}
    if weight == (4, 1, 3, 3):
        constants["b"] = values(4, seed=1)
    if op == "MatMul":
        nodes = [
            helper.make_node(op, ["x", "w"], ["p"]),
            helper.make_node("Add", ["p", "b"], ["y"]),
        ]
    else:
        nodes = [helper.make_node(op, ["x", "w", "b"], ["y"], **attributes)]
    shapes = {"x": ["N", *data[1:]]}, {"y": [None] * len(data)}
    return Model(Path("m.onnx"), networks.make(nodes, constants, *shapes))


@pytest.mark.parametrize("name", CASES)
def test_the_matrix_times_the_rows(name: str) -> None:
    op, data, shape, attributes = CASES[name]
    model = network(op, data, shape, **attributes)
    twin = Twin(model, ["w", "b"])
    (layer,) = layers(twin.steps, find_weights(model), twin.learned).values()
    assert (layer.data, layer.bias) == ("x", "b")
    x, weight = torch.from_numpy(values(*data, scale=1.0)), torch.from_numpy(values(*shape))
    rows = layer.rows(weight)
    assert rows.shape[0] == layer.groups == attributes.get("group", 1)
    with torch.no_grad():
        found = layer.matrix(x) @ rows.mT + twin.learned["b"].reshape(layer.groups, 1, -1)
        whole = layer.times(x, weight) + twin.learned["b"].reshape(layer.groups, 1, -1)
        torch.testing.assert_close(found, whole)
        assert whole.sum() == pytest.approx(float(twin({"x": x})["y"].sum()), rel=1e-3)
    torch.testing.assert_close(layer.stored(rows), weight, rtol=0, atol=0)


def test_what_is_no_plain_layer_is_left_out() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "shared"], ["a"]),
        helper.make_node("MatMul", ["a", "shared"], ["b"]),
        helper.make_node("MatMul", ["first", "b"], ["c"]),
        helper.make_node("Transpose", ["turned"], ["t"]),
        helper.make_node("MatMul", ["c", "t"], ["y"]),
    ]
    constants = {name: values(4, 4) for name in ("shared", "first", "turned")}
    proto = networks.make(nodes, constants, {"x": [4, 4]}, {"y": [4, 4]})
    model = Model(Path("m.onnx"), proto)
    weights = find_weights(model)
    assert {weight.name for weight in weights} == set(constants)
    assert layers(Twin(model, list(constants)).steps, weights, {}) == {}


def test_a_stack_of_matrices_learns_as_it_is(tmp_path: Path) -> None:
    """Nothing makes up for its zeros, and layer by layer it cannot be taken."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["q"]),
        helper.make_node("Transpose", ["q"], ["y"], perm=[1, 0, 2]),
    ]
    constants = {"w": values(3, 4, 6), "b": values(6)}
    proto = networks.make(nodes, constants, {"x": ["N", 4]}, {"y": ["N", 3, 6]})
    source, samples = networks.save(proto, tmp_path / "in.onnx"), [values(70, 4, scale=1.0)]
    recipe = Recipe(epochs=0, min_steps=8, interval=1)
    result = fcpts_onnx.prune(
        source, tmp_path / "out.onnx", target=0.5, calib=samples, recipe=recipe
    )
    assert result.zeros == 36
    with pytest.raises(UnsupportedError, match="cannot take w: used by several"):
        fcpts_onnx.prune(
            source, tmp_path / "other.onnx", target=0.5, calib=samples, allocate="uniform",
            reconstruct="sparsegpt",
        )  # fmt: skip


BIASES = {
    "its own": ([helper.make_node("Gemm", ["x", "w", "b"], ["y"])], "b"),
    "scaled": ([helper.make_node("Gemm", ["x", "w", "b"], ["y"], beta=0.5)], None),
    "shared": (
        [
            helper.make_node("Gemm", ["x", "w", "b"], ["a"]),
            helper.make_node("Add", ["a", "b"], ["y"]),
        ],
        None,
    ),
    "passed on": (
        [
            helper.make_node("Identity", ["b"], ["i"]),
            helper.make_node("Gemm", ["x", "w", "i"], ["y"]),
        ],
        None,
    ),
    "one for all channels": ([helper.make_node("Gemm", ["x", "w", "one"], ["y"])], None),
    "a row": ([helper.make_node("Gemm", ["x", "w", "row"], ["y"])], "row"),
    "one value a row": ([helper.make_node("Gemm", ["x", "w", "column"], ["y"])], None),
}


def test_a_bias_without_axes(tmp_path: Path) -> None:
    """A Gemm of one output channel may add a plain number."""
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"])]
    constants = {"w": values(4, 1), "b": np.array(0.5, np.float32)}
    proto = networks.make(nodes, constants, {"x": ["N", 4]}, {"y": ["N", 1]})
    path, samples = networks.save(proto, tmp_path / "in.onnx"), [values(70, 4, scale=1.0)]
    recipe = Recipe(epochs=0, min_steps=4, batch_size=4, interval=1, centred=True)
    result = fcpts_onnx.prune(
        path, tmp_path / "out.onnx", target=0.5, calib=samples, recipe=recipe
    )  # fmt: skip
    assert result.zeros == 2


@pytest.mark.parametrize("name", BIASES)
def test_which_bias_may_move(name: str) -> None:
    nodes, expected = BIASES[name]
    constants = {"w": values(4, 6), "b": values(6), "one": values(1)}
    constants |= {"row": values(1, 6), "column": values(6, 1)}
    model = Model(Path("m.onnx"), networks.make(nodes, constants, {"x": ["N", 4]}, {"y": ["N", 6]}))
    twin = Twin(model, list(constants))
    assert layers(twin.steps, find_weights(model), twin.learned)["w"].bias == expected
