"""Graphs that are broken: each is refused by name, before any work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from fcpts_onnx.errors import FcptsError
from fcpts_onnx.model import load
from fcpts_onnx.twin import Twin
from fcpts_onnx.weights import find_weights
from tests import networks


def cycle(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].input[0] = "y"


def dangling(proto: onnx.ModelProto) -> None:
    proto.graph.node[2].input[0] = "nothing"


def duplicate(proto: onnx.ModelProto) -> None:
    proto.graph.node[2].output[0] = "a"
    proto.graph.node[3].input[0] = "a"


def text(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.append(helper.make_tensor("text", TensorProto.STRING, [1], ["a"]))
    proto.graph.node[1].input[1] = "text"


BROKEN: dict[str, tuple[Callable[[onnx.ModelProto], None], str]] = {
    "cycle": (cycle, "topologically sorted|reading 'y', which is unknown"),
    "dangling": (dangling, "nothing"),
    "duplicate": (duplicate, "SSA|'a'"),
    "text": (text, "reading 'text' of type string: add"),
}


def build(path: Path) -> Twin:
    model = load(path)
    return Twin(model, [weight.value for weight in find_weights(model)])


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("shapes", [True, False])
def test_broken_graphs_are_refused(name: str, shapes: bool, tmp_path: Path) -> None:
    change, message = BROKEN[name]
    proto = networks.perceptron()
    change(proto)
    if not shapes:
        for value in (*proto.graph.input, *proto.graph.output):
            value.type.tensor_type.ClearField("shape")
    path = networks.save(proto, tmp_path / "m.onnx")
    with pytest.raises(FcptsError, match=message):
        build(path)
