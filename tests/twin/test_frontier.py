"""Where gradients stop: what is learned against when a graph ends in choices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import fcpts_onnx
from fcpts_onnx import Recipe
from fcpts_onnx.errors import UnsupportedError
from fcpts_onnx.model import Model, load
from fcpts_onnx.twin import Twin
from tests import networks
from tests.shared import MODELS, needs_shared

W = {"w": networks.values(4, 4)}
MATMUL = helper.make_node("MatMul", ["x", "w"], ["a"], "layer")


def node(op: str, inputs: list[str], outputs: list[str], **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs, outputs, **attributes)


def targets(nodes: list[onnx.NodeProto], outputs: list[str], **constants: np.ndarray) -> list[str]:
    shapes = {name: ["N", "M"] for name in outputs}
    proto = networks.make([MATMUL, *nodes], W | constants, {"x": ["N", 4]}, shapes)
    return list(Twin(Model(Path("m.onnx"), proto), ["w"]).output_names)


INTEGER = {"to": TensorProto.INT64}
CASES = {
    "an output that gradients reach": ([node("Relu", ["a"], ["y"])], ["y"], ["y"]),
    "the best class": ([node("ArgMax", ["a"], ["y"], axis=1)], ["y"], ["a"]),
    "best classes, their scores": ([node("TopK", ["a", "k"], ["v", "i"])], ["v", "i"], ["v", "a"]),
    "a cast to integers": (
        [node("Sigmoid", ["a"], ["s"]), node("Cast", ["s"], ["y"], **INTEGER)], ["y"], ["s"],
    ),
    "a mask that switches places on": (
        [node("Greater", ["a", "half"], ["m"]), node("Where", ["m", "a", "half"], ["y"])],
        ["y"], ["y"],
    ),
    "a mask in the end": (
        [node("Sigmoid", ["a"], ["s"]), node("Greater", ["s", "half"], ["y"])], ["y"], ["s"],
    ),
    "what a choice picks": (
        [node("ArgMax", ["a"], ["i"], axis=1, keepdims=0), node("Gather", ["a", "i"], ["y"])],
        ["y"], ["a"],
    ),
    "where a pooling took values from is no choice of them": (
        [
            node("Reshape", ["a", "image"], ["i"]),
            node("MaxPool", ["i"], ["p", "at"], kernel_shape=[2, 2], strides=[2, 2]),
            node("MaxUnpool", ["p", "at"], ["u"], kernel_shape=[2, 2], strides=[2, 2]),
            node("Flatten", ["u"], ["y"]),
        ],
        ["y"], ["y"],
    ),
    "a shape is no choice": (
        [node("Shape", ["a"], ["s"]), node("Reshape", ["a", "s"], ["y"])], ["y"], ["y"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_frontier(name: str) -> None:
    nodes, outputs, expected = CASES[name]
    constants = {"half": np.float32(0.5), "k": np.array([2]), "image": np.array([-1, 1, 2, 2])}
    assert targets(nodes, outputs, **constants) == expected


def test_what_lies_beyond_need_not_be_supported() -> None:
    nodes = [node("ArgMax", ["a"], ["i"]), node("TfIdfVectorizer", ["i"], ["y"])]
    assert targets(nodes, ["y"]) == ["a"]
    with pytest.raises(UnsupportedError, match="TfIdfVectorizer"):
        targets([node("TfIdfVectorizer", ["a"], ["y"])], ["y"])


@pytest.fixture
def router(tmp_path: Path) -> Path:
    """Two layers behind the choice of a class."""
    nodes = [
        MATMUL,
        node("ArgMax", ["a"], ["i"], axis=1),
        node("Cast", ["i"], ["c"], to=TensorProto.FLOAT),
        node("MatMul", ["c", "second"], ["h"]),
        node("Relu", ["h"], ["r"]),
        node("MatMul", ["r", "third"], ["y"]),
    ]
    constants = W | {"second": networks.values(1, 8), "third": networks.values(8, 5)}
    proto = networks.make(nodes, constants, {"x": ["N", 4]}, {"y": ["N", 5]})
    return networks.save(proto, tmp_path / "in.onnx")


def test_weights_behind_a_choice_are_nothing_to_compare(router: Path) -> None:
    assert Twin(load(router), ["w", "second", "third"]).output_names == ("a",)


def test_weights_behind_a_choice_stay_as_they_are(router: Path) -> None:
    def prune(include: tuple[str, ...]) -> tuple[fcpts_onnx.PruneResult, list[str]]:
        said: list[str] = []
        result = fcpts_onnx.prune(
            router, router.with_name("out.onnx"), target=0.5, include=include, say=said.append,
            calib=[networks.values(70, 4, scale=1.0)], recipe=Recipe(epochs=0, min_steps=4),
        )  # fmt: skip
        return result, said

    result, said = prune(())
    assert (result.zeros, result.validation.changed) == (8, ("w",))
    reason = "behind a choice (ArgMax, TopK, a cast to integers)"
    assert f"2 of 3 weights stay as they are, {reason}: second, third" in said
    assert not any("choice" in line for line in prune(("w",))[1])
    found = fcpts_onnx.inspect(router)
    assert [weight.excluded for weight in found.weights] == [None, reason, reason]
    assert found.prunable == 16


@needs_shared
def test_a_detector_is_learned_before_its_choices() -> None:
    model = load(MODELS / "ssd_mobilenet_v1_coco_full_nms.onnx")
    weight = next(iter(t for t in model.proto.graph.initializer if len(t.dims) == 4)).name
    assert not set(Twin(model, [weight]).output_names) & set(model.outputs)
