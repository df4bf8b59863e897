"""Writing: only learned values differ, zeros are exact, files are whole or not there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from fcpts_onnx.along import learned_along
from fcpts_onnx.errors import OutputError
from fcpts_onnx.files import check_text, staged
from fcpts_onnx.model import Model, load
from fcpts_onnx.weights import find_weights
from fcpts_onnx.write import check_target, save, stale_data
from tests import networks
from tests.shared import model_files, needs_shared


def written(model: Model, arrays: dict[str, np.ndarray], target: Path) -> Model:
    with staged(target) as stage:
        save(model, arrays, stage, target.parent)
    return load(target)


def halved(model: Model) -> dict[str, np.ndarray]:
    """New values for all that can be learned: the weights with their smaller half zero."""
    arrays, weights = {}, find_weights(model)
    for weight in weights:
        if weight.excluded is None:
            array = model.array(weight.name)
            keep = np.abs(array) > np.median(np.abs(array))
            arrays[weight.name] = np.where(keep, array * 1.25, -0.0).astype(array.dtype)
    return arrays | {name: model.array(name) + 1 for name in learned_along(model, weights)}


def stored(proto: onnx.ModelProto) -> dict[str, TensorProto]:
    """Initializers and Constant nodes' tensors by name, read off the proto itself."""
    constants = {
        node.output[0]: attribute.t
        for node in proto.graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    }
    return {tensor.name: tensor for tensor in proto.graph.initializer} | constants


def assert_only_values_differ(before: Path, after: Path, changed: set[str]) -> None:
    """Byte for byte the same, once the values of the changed tensors are taken out of both."""
    protos = [onnx.load(str(path), load_external_data=False) for path in (before, after)]
    tensors = [stored(proto) for proto in protos]
    assert changed <= set(tensors[0])
    for name in changed:
        for of_one in tensors:
            tensor = of_one[name]
            fields = {field.name for field, _ in tensor.ListFields()}
            for field in fields & {"raw_data", "float_data", "double_data", "int32_data"}:
                # What is left still says in which field and at what length the values were.
                length = len(getattr(tensor, field))
                tensor.ClearField(field)
                tensor.doc_string += f"{field} {length}"
    assert protos[0].SerializeToString(deterministic=True) == protos[1].SerializeToString(
        deterministic=True
    )


def may_change(proto: onnx.ModelProto) -> set[str]:
    """Tensors that hold weights, biases or norms, by their use, read off the proto itself."""
    uses = {
        "Conv": (1, 2), "ConvTranspose": (1, 2), "Gemm": (0, 1, 2), "MatMul": (0, 1), "Add": (0, 1),
        "BatchNormalization": (1, 2), "InstanceNormalization": (1, 2),
        "LayerNormalization": (1, 2), "FastGelu": (1,),
    }  # fmt: skip
    passes = {"Identity", "Cast", "Transpose", "Reshape", "QuantizeLinear", "DequantizeLinear"}
    origin = {n.output[0]: n.input[0] for n in proto.graph.node if n.op_type in passes}
    names = set()
    for node in proto.graph.node:
        for place in uses.get(node.op_type, ()):
            name = node.input[place] if place < len(node.input) else ""
            while name in origin:
                name = origin[name]
            names.add(name)
    return names & stored(proto).keys()


@needs_shared
@pytest.mark.parametrize("path", model_files(), ids=lambda path: path.stem)
def test_shared_models_differ_in_learned_values_only(path: Path, tmp_path: Path) -> None:
    model = load(path)
    arrays = halved(model)
    result = written(model, arrays, tmp_path / "out.onnx")
    assert set(arrays) <= may_change(onnx.load(str(path)))
    assert_only_values_differ(path, tmp_path / "out.onnx", set(arrays))
    for name, array in arrays.items():
        found = result.array(name)
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)
        assert not np.signbit(found[found == 0]).any()
    ort.InferenceSession(str(tmp_path / "out.onnx"))


@pytest.mark.parametrize("field", ["raw_data", "float_data", "double_data", "float16", "bfloat16"])
def test_every_way_to_store_values_is_kept(field: str, tmp_path: Path) -> None:
    proto = networks.perceptron()
    values = networks.values(6, 16)
    kinds = {
        "raw_data": (TensorProto.FLOAT, np.float32),
        "float_data": (TensorProto.FLOAT, np.float32),
        "double_data": (TensorProto.DOUBLE, np.float64),
        "float16": (TensorProto.FLOAT16, np.float16),
        "bfloat16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
    }
    element_type, dtype = kinds[field]
    tensor = proto.graph.initializer[0]
    if field == "raw_data":
        tensor.CopyFrom(numpy_helper.from_array(values, "first"))
    else:
        tensor.CopyFrom(helper.make_tensor("first", element_type, (6, 16), values.ravel()))
    proto.graph.node.insert(0, helper.make_node("Cast", ["first"], ["cast"], to=1))
    proto.graph.node[1].input[1] = "cast"
    path = networks.save(proto, tmp_path / "in.onnx")
    new = (values * 2).astype(np.float32)
    new[0, :5] = 0
    result = written(load(path), {"first": new}, tmp_path / "out.onnx")
    np.testing.assert_array_equal(result.array("first"), new.astype(dtype))
    assert_only_values_differ(path, tmp_path / "out.onnx", {"first"})


def test_a_value_too_small_for_the_type_is_not_made_a_zero(tmp_path: Path) -> None:
    proto = networks.perceptron()
    tensor = numpy_helper.from_array(networks.values(6, 16).astype(np.float16), "first")
    proto.graph.initializer[0].CopyFrom(tensor)
    proto.graph.node.insert(0, helper.make_node("Cast", ["first"], ["cast"], to=1))
    proto.graph.node[1].input[1] = "cast"
    model = load(networks.save(proto, tmp_path / "in.onnx"))
    new = networks.values(6, 16)
    new[0, :4] = [1e-12, -1e-12, 0.0, -0.0]
    found = written(model, {"first": new}, tmp_path / "out.onnx").array("first")
    assert np.count_nonzero(found == 0) == 2
    assert np.signbit(found[0, :4]).tolist() == [False, True, False, False]


def external_model(folder: Path, **options: object) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "in.onnx"
    onnx.save(networks.cnn(), str(path), save_as_external_data=True, size_threshold=64, **options)
    return path


def test_external_data_in_and_out(tmp_path: Path) -> None:
    source = external_model(tmp_path / "in", all_tensors_to_one_file=False)
    (tmp_path / "out").mkdir()
    model = load(source)
    result = written(model, {"conv.w": np.zeros((8, 3, 3, 3))}, tmp_path / "out" / "out.onnx")
    assert sorted(os.listdir(tmp_path / "out")) == ["out.onnx", "out.onnx.data"]
    assert not result.array("conv.w").any()
    for name in set(model.tensors) - {"conv.w"}:
        np.testing.assert_array_equal(result.array(name), model.array(name))
    ort.InferenceSession(str(tmp_path / "out" / "out.onnx"))


def test_external_data_of_the_input_is_never_overwritten(tmp_path: Path) -> None:
    source = external_model(tmp_path, location="out.onnx.data")
    before = (tmp_path / "out.onnx.data").read_bytes()
    written(load(source), {}, tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx.data").read_bytes() == before
    assert (tmp_path / "out.onnx.2.data").exists()


def test_stale_data_is_what_the_former_file_alone_called_its_own(tmp_path: Path) -> None:
    model = load(external_model(tmp_path / "in"))
    target = tmp_path / "out.onnx"
    assert stale_data(target, model) == []
    written(model, {}, target)
    assert stale_data(target, model) == [tmp_path / "out.onnx.data"]
    assert stale_data(target, load(target)) == [tmp_path / "out.onnx.data"]
    # A copy of the small file reads the same data: replacing one must not take it from the other.
    shutil.copy(target, tmp_path / "copy.onnx")
    assert stale_data(target, load(tmp_path / "copy.onnx")) == []
    assert stale_data(tmp_path / "in" / "in.onnx", model) == []
    # What is not there has a name that the new file may take.
    (tmp_path / "copy.onnx").unlink()
    (tmp_path / "out.onnx.data").unlink()
    assert stale_data(target, model) == []


@pytest.mark.parametrize("copy", [shutil.copy, os.link])
def test_data_that_another_model_in_the_folder_names_is_not_stale(
    copy: Callable[[Path, Path], object], tmp_path: Path
) -> None:
    source, target = load(external_model(tmp_path / "in")), tmp_path / "out.onnx"
    written(source, {}, target)
    copy(target, tmp_path / "backup.onnx")
    assert stale_data(target, load(target)) == []
    (tmp_path / "backup.onnx").unlink()
    (tmp_path / "cut.onnx").write_bytes(target.read_bytes()[:-9])  # what it names is not known
    assert stale_data(target, load(target)) == []
    (tmp_path / "cut.onnx").unlink()
    assert stale_data(target, load(target)) == [tmp_path / "out.onnx.data"]


@pytest.mark.parametrize("name", ["out.onnx.bak", "in.onnx.orig", "Out.ONNX", "out.onnx~"])
def test_data_that_a_backup_names_is_not_stale(name: str, tmp_path: Path) -> None:
    source, target = load(external_model(tmp_path / "in")), tmp_path / "out.onnx"
    written(source, {}, target)
    (tmp_path / "out.onnx.json").write_text("{}")  # no model, and no reason to keep anything
    assert stale_data(target, load(target)) == [tmp_path / "out.onnx.data"]
    shutil.copy(target, tmp_path / name)
    assert stale_data(target, load(target)) == []


def test_a_former_file_that_states_no_right_place_has_no_stale_data(tmp_path: Path) -> None:
    model = load(external_model(tmp_path / "in"))
    proto = onnx.load(str(tmp_path / "in" / "in.onnx"), load_external_data=False)
    proto.graph.initializer[0].external_data.add(key="offset", value="many")
    networks.save(proto, tmp_path / "out.onnx")
    assert stale_data(tmp_path / "out.onnx", model) == []


def test_data_that_is_not_learned_is_copied_as_it_is(tmp_path: Path) -> None:
    proto = networks.perceptron()
    small = helper.make_tensor("small", TensorProto.INT4, [4], bytes([0x21, 0x43]), raw=True)
    proto.graph.initializer.append(small)
    path = tmp_path / "in.onnx"
    onnx.save(proto, str(path), save_as_external_data=True, size_threshold=0, location="in.bin")
    result = written(load(path), {}, tmp_path / "out.onnx")
    assert result.array("small").tolist() == [1, 2, 3, 4]


def test_targets_that_cannot_be_written(tmp_path: Path) -> None:
    source = networks.save(networks.cnn(), tmp_path / "in.onnx")
    (tmp_path / "link.onnx").symlink_to(source)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to_pipe").symlink_to("pipe")
    for target, message in {
        tmp_path / "nowhere" / "out.onnx": "does not exist. Make it first",
        tmp_path: "is a folder",
        tmp_path / "pipe": "is a device or a pipe",
        tmp_path / "to_pipe": "is a device or a pipe",
        source: "is the input itself. Pass --overwrite",
        tmp_path / "link.onnx": "is the input itself",
        Path("/proc/out.onnx"): "cannot be written",
    }.items():
        with pytest.raises(OutputError, match=message):
            check_target(target, source, overwrite=False)
    check_target(source, source, overwrite=True)
    with pytest.raises(OutputError, match="is a device or a pipe"):
        check_text(tmp_path / "pipe", "JSON")
    assert sorted(os.listdir(tmp_path)) == ["in.onnx", "link.onnx", "pipe", "to_pipe"]
