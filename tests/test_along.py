"""Finding: what is learned along with the weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import onnx
import pytest
import torch
from onnx import helper

from fcpts_onnx.along import learned_along
from fcpts_onnx.model import Model
from fcpts_onnx.selection import select
from fcpts_onnx.twin import Twin
from fcpts_onnx.weights import find_weights
from tests import networks
from tests.networks import values


def along(proto: onnx.ModelProto, *exclude: str) -> set[str]:
    model = Model(Path("m.onnx"), proto)
    return set(learned_along(model, find_weights(model), exclude))


def test_learned_along() -> None:
    assert along(networks.cnn()) == {"conv.b", "fc.b"}
    assert along(networks.cnn(), "conv*") == {"fc.b"}
    assert along(networks.perceptron()) == {"bias"}
    assert along(networks.batch_norm()) == {"conv.b", "bn.scale", "bn.shift"}


@dataclass(frozen=True)
class Along:
    """A node behind a layer of 8 channels, whose result is `c`."""

    op: str
    inputs: tuple[str, ...]
    opset: int = 17
    size: int = 8
    domain: str = ""
    attributes: dict[str, int] = field(default_factory=dict)


BEHIND = {
    "group norm, one a group": Along(
        "GroupNormalization", ("c", "p", "r"), 18, 2, attributes={"num_groups": 2}
    ),
    "group norm, one a channel": Along(
        "GroupNormalization", ("c", "p", "r"), 21, attributes={"num_groups": 2}
    ),
    "RMS norm": Along("RMSNormalization", ("c", "p"), 23),
    "sum and norm": Along("SkipLayerNormalization", ("c", "x", "p", "r"), domain="com.microsoft"),
    "GELU": Along("BiasGelu", ("c", "p"), domain="com.microsoft"),
    "fast GELU": Along("FastGelu", ("c", "p"), domain="com.microsoft"),
}


@pytest.mark.parametrize("case", BEHIND.values(), ids=BEHIND)
def test_norms_and_biases_behind_a_layer(case: Along) -> None:
    """Each is learned along: gradients reach it."""
    names = set(case.inputs) - {"c", "x"}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["c"], "layer"),
        helper.make_node(
            case.op, [*case.inputs], ["g"], "n", domain=case.domain, **case.attributes
        ),
        helper.make_node("MatMul", ["g", "v"], ["y"]),
    ]
    constants = {"w": values(8, 8), "v": values(8, 5, seed=2)}
    constants |= {name: values(case.size, seed=3) for name in names}
    proto = networks.make(nodes, constants, {"x": ["N", 8, 8]}, {"y": []}, opset=case.opset)
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert along(proto) == names
    assert along(proto, "n") == set()
    twin = Twin(Model(Path("m.onnx"), proto), sorted(names))
    twin({"x": torch.from_numpy(values(3, 8, 8, seed=4))})["y"].square().sum().backward()
    for name in names:
        gradient = twin.learned[name].grad
        assert gradient is not None
        assert gradient.abs().min() > 0


@pytest.mark.parametrize("op", ["BiasGelu", "FastGelu"])
def test_what_is_added_to_no_layer_is_no_bias(op: str) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node(op, ["r", "b"], ["y"], domain="com.microsoft"),
        helper.make_node("FastGelu", ["alone"], ["z"], domain="com.microsoft"),
    ]
    constants = {"w": values(8, 8), "b": values(8), "alone": values(8)}
    assert along(networks.make(nodes, constants, {"x": ["N", 8]}, {"y": [], "z": []})) == set()


def test_what_belongs_to_a_layer_left_out_is_left_out() -> None:
    model = Model(Path("m.onnx"), networks.cnn())
    weights = select(model, keep_dense=("last",))
    assert learned_along(model, weights) == ["conv.b"]
    weights = select(model, include=("fc",))
    assert learned_along(model, weights) == ["fc.b"]


def test_a_constant_that_is_more_than_a_bias_is_not_learned() -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["a"]),
        helper.make_node("Mul", ["a", "b"], ["y"]),
    ]
    constants = {"w": values(4, 4), "b": values(4)}
    assert along(networks.make(nodes, constants, {"x": ["N", 4]}, {"y": ["N", 4]})) == set()
