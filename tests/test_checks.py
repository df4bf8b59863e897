"""Files by anybody: what is refused before anything is made of it, by the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import ModelProto, TensorProto, helper, numpy_helper

from fcpts_onnx.cli import main
from tests import networks

Change = Callable[[ModelProto], object]


def refusal(proto: ModelProto | bytes, folder: Path) -> str:
    """What `inspect` says of a model that it refuses."""
    path = folder / "m.onnx"
    path.write_bytes(proto if isinstance(proto, bytes) else proto.SerializeToString())
    result = CliRunner().invoke(main, ["inspect", str(path)])
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1, result.output
    assert result.output.startswith("Error: ")
    return result.output


def external(tensor: TensorProto, **entries: object) -> None:
    """Say that a tensor is stored elsewhere."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"location": "/etc/hostname"}, "outside the model's folder"),
        ({"location": "../secret.bin"}, "outside the model's folder"),
        ({"location": "inner/../../secret.bin"}, "outside the model's folder"),
        ({"location": "link.bin"}, "outside the model's folder"),
        ({"location": "linked/secret.bin"}, "outside the model's folder"),
        ({"location": "."}, "is missing"),
        ({"location": ""}, "is missing"),
        ({}, "is missing"),
        ({"location": "w.bin\0"}, "is no name of a file"),
        ({"location": "w" * 5000}, "is no name of a file"),
        ({"location": "w.bin", "offset": "many"}, "is not stated right"),
        ({"location": "w.bin", "offset": -4}, "is not stated right"),
        ({"location": "w.bin", "length": -4}, "is not stated right"),
        ({"location": "w.bin", "offset": 10**12}, "'first' cannot be read"),
        ({"location": "w.bin", "length": 10**12}, "'first' cannot be read"),
        ({"location": "w.bin", "length": 8}, "'first' cannot be read"),
    ],
)
def test_external_data(entries: dict[str, object], message: str, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    values = networks.values(6, 16).tobytes()
    (tmp_path / "secret.bin").write_bytes(values)
    (folder / "w.bin").write_bytes(values)
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "linked").symlink_to(tmp_path)
    proto = networks.perceptron()
    external(proto.graph.initializer[0], **entries)
    assert message in refusal(proto, folder)


def with_function(proto: ModelProto, *functions: onnx.FunctionProto) -> ModelProto:
    """The perceptron with its Relu replaced by the last of these functions."""
    proto.functions.extend(functions)
    proto.opset_import.add(domain="own", version=1)
    proto.graph.node[2].domain, proto.graph.node[2].op_type = "own", functions[-1].name
    return proto


def function(name: str, *nodes: onnx.NodeProto) -> onnx.FunctionProto:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_function("own", name, ["a"], ["b"], nodes, opsets)


def call(name: str, source: str, result: str) -> onnx.NodeProto:
    return helper.make_node(name, [source], [result], domain="own")


def test_external_data_inside_a_function(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(networks.values(16), "t")
    external(tensor, location="/etc/hostname")
    nodes = (helper.make_node("Constant", [], ["c"], value=tensor), call("unknown", "a", "b"))
    proto = with_function(networks.perceptron(), function("f", *nodes))
    assert "external data inside a function" in refusal(proto, tmp_path)


def test_external_data_in_a_sparse_tensor(tmp_path: Path) -> None:
    proto = networks.perceptron()
    values = numpy_helper.from_array(np.ones(2, np.float32), "first")
    external(values, location="/etc/hostname")
    indices = numpy_helper.from_array(np.array([0, 5]), "places")
    del proto.graph.initializer[0]
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [6, 16]))
    assert "external data inside a function or a sparse tensor" in refusal(proto, tmp_path)


def test_functions_that_double_without_end(tmp_path: Path) -> None:
    """Twenty-eight of them would make 2^28 nodes."""
    functions = [function("f0", helper.make_node("Relu", ["a"], ["b"]))]
    for place in range(1, 28):
        name = f"f{place - 1}"
        functions.append(function(f"f{place}", call(name, "a", "t"), call(name, "t", "b")))
    text = refusal(with_function(networks.perceptron(), *functions), tmp_path)
    assert "has more than 1,048,576 nodes" in text


def test_functions_in_a_circle_or_a_long_line(tmp_path: Path) -> None:
    circle = with_function(networks.perceptron(), function("f", call("f", "a", "b")))
    assert "never ends ('f')" in refusal(circle, tmp_path)
    line = [function("f0", helper.make_node("Relu", ["a"], ["b"]))]
    line += [function(f"f{place}", call(f"f{place - 1}", "a", "b")) for place in range(1, 2000)]
    assert "more than 30 deep" in refusal(with_function(networks.perceptron(), *line), tmp_path)


def resized(*dims: int) -> Change:
    def change(proto: ModelProto) -> None:
        proto.graph.initializer[0].dims[:] = dims

    return change


def typed(proto: ModelProto) -> None:
    proto.graph.initializer[0].ClearField("raw_data")
    proto.graph.initializer[0].float_data.extend([1.0] * 5)
    proto.graph.initializer[0].dims[:] = [2**20, 2**20]


def reversed_nodes(proto: ModelProto) -> None:
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(reversed(nodes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (resized(2**20, 2**20), "too small for the declared shape"),
        (resized(2**32, 2**32), "product overflow"),
        (resized(-6, -16), "Negative dimension"),
        (resized(*[1] * 100, 6, 16), "'first' cannot be read"),
        (typed, "too small for the declared shape"),
        (lambda p: p.graph.node[0].input.__setitem__(0, "c"), "topologically sorted"),
        (reversed_nodes, "topologically sorted"),
        (lambda p: p.graph.node[2].output.__setitem__(0, "b"), "multiple times"),
        (lambda p: p.graph.initializer.append(p.graph.initializer[0]), "is not unique"),
        (lambda p: p.graph.input.append(p.graph.input[0]), "multiple times"),
        (lambda p: setattr(p.graph.initializer[1], "data_type", 77), "'bias' has element type 77"),
        (
            lambda p: setattr(p.graph.input[0].type.tensor_type, "elem_type", 77),
            "'x' has element type 77",
        ),
        (
            lambda p: setattr(p.graph.input[0].type.tensor_type, "elem_type", TensorProto.STRING),
            "'x' is of type object; only numbers",
        ),
        (lambda p: p.opset_import.add(domain="ai.onnx", version=9), "has opset 9 and 17"),
        (lambda p: p.opset_import.add(domain="x", version=-(2**62)), "out of supported range"),
        (lambda p: setattr(p, "ir_version", 99), "ir_version 99"),
    ],
)
def test_graphs_that_are_not_right(change: Change, message: str, tmp_path: Path) -> None:
    proto = networks.perceptron()
    change(proto)
    assert message in refusal(proto, tmp_path)


def nested(depth: int) -> bytes:
    """A model of If inside If, put together from the inside: no library goes so deep."""

    def record(number: int, content: bytes) -> bytes:
        size, length = len(content), b""
        while size > 127:
            length, size = length + bytes([size & 127 | 128]), size >> 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + content

    node = helper.make_node("Identity", ["x"], ["y"])
    graph = record(1, node.SerializeToString())
    for _ in range(depth):
        attribute = record(1, b"then_branch") + b"\xa0\x01\x05" + record(6, graph)
        node_bytes = record(1, b"c") + record(2, b"y") + record(4, b"If") + record(5, attribute)
        graph = record(1, node_bytes)
    return b"\x08\x08" + record(7, graph) + record(8, b"\x10\x11")


def test_a_thousand_graphs_inside_each_other(tmp_path: Path) -> None:
    assert "more than 30 deep" in refusal(nested(1000), tmp_path)


@pytest.mark.parametrize("seed", range(3))
def test_garbage(seed: int, tmp_path: Path) -> None:
    content = np.random.default_rng(seed).bytes(4096)
    assert "not an ONNX model" in refusal(content, tmp_path)
