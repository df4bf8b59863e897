"""Loading: what is accepted, and what is refused in which words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import fcpts_onnx
from fcpts_onnx import Recipe
from fcpts_onnx.errors import ModelError
from fcpts_onnx.model import load
from tests import networks
from tests.shared import model_files, needs_shared


def external(folder: Path, size_threshold: int = 0) -> Path:
    """A model with its tensors in a file beside it."""
    path, stored = folder / "model.onnx", {"location": "weights.bin", "save_as_external_data": True}
    onnx.save(networks.cnn(), str(path), size_threshold=size_threshold, **stored)
    return path


def test_inputs_outputs_and_opset(tmp_path: Path) -> None:
    model = load(networks.save(networks.cnn(opset=13), tmp_path / "m.onnx"))
    assert model.opsets == {"": 13}
    assert model.outputs == ("scores",)
    (spec,) = model.inputs
    assert (spec.name, spec.dtype, spec.shape) == ("image", np.float32, (None, 3, 8, 8))


def test_initializers_that_are_inputs_too_are_no_inputs(tmp_path: Path) -> None:
    proto = networks.cnn(ir_version=3, opset=8)
    for tensor in proto.graph.initializer:
        proto.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    model = load(networks.save(proto, tmp_path / "m.onnx"))
    assert [spec.name for spec in model.inputs] == ["image"]


def test_no_shape_information(tmp_path: Path) -> None:
    proto = networks.perceptron()
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    assert load(networks.save(proto, tmp_path / "m.onnx")).inputs[0].shape is None


def test_weights_as_constant_nodes(tmp_path: Path) -> None:
    proto = networks.perceptron()
    first = proto.graph.initializer[0]
    node = helper.make_node("Constant", [], [first.name], value=first)
    del proto.graph.initializer[0]
    proto.graph.node.insert(0, node)
    model = load(networks.save(proto, tmp_path / "m.onnx"))
    np.testing.assert_array_equal(model.array("first"), networks.values(6, 16, seed=1))


def test_external_data_is_read_on_demand(tmp_path: Path) -> None:
    model = load(external(tmp_path))
    assert not model.tensors["conv.w"].HasField("raw_data")
    np.testing.assert_array_equal(model.array("conv.w"), networks.values(8, 3, 3, 3, seed=1))
    assert not model.tensors["conv.w"].HasField("raw_data")


def test_external_data_missing(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"'conv\.w', 'weights\.bin', is missing"):
        load(path)


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname"])
def test_external_data_outside(tmp_path: Path, location: str) -> None:
    path = external(tmp_path)
    proto = onnx.load(str(path), load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="outside the model's folder"):
        load(path)


def linked(folder: Path) -> Path:
    """A model with external data as the cache of the Hugging Face hub has it: links to blobs."""
    snapshot, blobs = folder / "snapshots" / "1", folder / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    path = external(snapshot, size_threshold=64)  # onnxruntime reads no shapes from beside
    for place, file in enumerate((path, snapshot / "weights.bin")):
        file.rename(blobs / f"{place}")
        file.symlink_to(f"../../blobs/{place}")
    return path


def test_links_to_external_data(tmp_path: Path) -> None:
    path, calib = linked(tmp_path), [networks.values(24, 3, 8, 8)]
    model = load(path)
    assert model.files == (path, tmp_path / "blobs" / "1")
    np.testing.assert_array_equal(model.array("conv.w"), networks.values(8, 3, 3, 3, seed=1))
    fcpts_onnx.quantize(path, tmp_path / "int8.onnx", calib=calib)
    recipe = Recipe(epochs=0, min_steps=2, batch_size=4)
    for output in (tmp_path / "out.onnx", path):
        fcpts_onnx.prune(path, output, target=0.5, calib=calib, recipe=recipe, overwrite=True)
        assert load(output).array("conv.w").shape == (8, 3, 3, 3)
    assert sorted(file.name for file in (tmp_path / "blobs").iterdir()) == ["0", "1"]


def test_links_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = external(tmp_path / "in")
    (tmp_path / "in" / "weights.bin").rename(tmp_path / "weights.bin")
    (tmp_path / "in" / "weights.bin").symlink_to("../weights.bin")
    with pytest.raises(ModelError, match="outside the model's folder"):
        load(path)
    (tmp_path / "in" / "weights.bin").unlink()
    (tmp_path / "weights.bin").rename(tmp_path / "in" / "moved.bin")
    (tmp_path / "in" / "weights.bin").symlink_to("moved.bin")
    np.testing.assert_array_equal(load(path).array("fc.b"), networks.values(4, seed=5))


def test_external_data_cut_short(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "weights.bin").write_bytes(b"short")
    model = load(path)
    with pytest.raises(ModelError, match=r"'fc\.w' cannot be read"):
        model.array("fc.w")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an ONNX model"),
        (b"hello, this is text\n" * 50, "not an ONNX model"),
        (networks.cnn().SerializeToString()[:-40], "cut short"),
    ],
)
def test_not_a_model(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        load(path)


@pytest.mark.parametrize("opset", [6, 99])
def test_unknown_opset(tmp_path: Path, opset: int) -> None:
    path = networks.save(networks.cnn(opset=opset), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=f"has opset {opset}; supported are 7 to"):
        load(path)


def test_invalid_graph(tmp_path: Path) -> None:
    proto = networks.cnn()
    proto.graph.node[0].input[0] = "nowhere"
    path = networks.save(proto, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="not a valid ONNX model"):
        load(path)


def test_stored_bytes_that_do_not_fit_the_shape(tmp_path: Path) -> None:
    proto = networks.cnn()
    proto.graph.initializer[0].raw_data += b"\0\0\0\0"
    with pytest.raises(ModelError):
        load(networks.save(proto, tmp_path / "m.onnx")).array("conv.w")


def test_bfloat16(tmp_path: Path) -> None:
    proto = networks.perceptron()
    stored = numpy_helper.from_array(networks.values(6, 16).astype("bfloat16"), "first")
    proto.graph.initializer[0].CopyFrom(stored)
    proto.graph.node.insert(0, helper.make_node("Cast", ["first"], ["cast"], to=1))
    proto.graph.node[1].input[1] = "cast"
    assert load(networks.save(proto, tmp_path / "m.onnx")).array("first").dtype.name == "bfloat16"


@needs_shared
@pytest.mark.parametrize("path", model_files(), ids=lambda path: path.stem)
def test_shared_models_load(path: Path) -> None:
    model = load(path)
    assert model.inputs
    assert model.outputs
    assert len(model.graph.nodes) == len(model.proto.graph.node)
