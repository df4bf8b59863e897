"""Validation: parity before learning, zeros and differences after it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from fcpts_onnx.calibration import load_calibration
from fcpts_onnx.errors import ModelError, OutputError, ParityError
from fcpts_onnx.model import Model, load
from fcpts_onnx.ops import registry
from fcpts_onnx.preprocess import PRESETS
from fcpts_onnx.twin import Twin
from fcpts_onnx.validate import check_parity, differences, recount, validate_models
from fcpts_onnx.weights import Weight, find_weights
from tests import networks
from tests.networks import values


def loaded(proto: onnx.ModelProto, path: Path) -> Model:
    return load(networks.save(proto, path))


def weights_of(model: Model, name: str) -> list[Weight]:
    return [weight for weight in find_weights(model) if weight.name == name]


def random_images(model: Model, count: int = 24):
    images = values(count, 3, 8, 8, scale=1.0)
    return load_calibration([images], model, PRESETS["raw"])


@pytest.mark.parametrize("baked", [False, True])
def test_parity(baked: bool, tmp_path: Path) -> None:
    model = loaded(networks.cnn(batch=1 if baked else "N", baked=baked), tmp_path / "m.onnx")
    twin = Twin(model)
    found = check_parity(twin, model, random_images(model))
    assert found.samples == 13
    assert found.error < 1e-5
    assert found.per_sample is twin.per_sample is baked


@pytest.fixture
def wrong_relu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registered operator that is slightly off."""
    off = registry._describe(lambda x: torch.relu(x) * 1.01, "", "Relu", 1)
    monkeypatch.setitem(registry._table, ("", "Relu"), [off])


@pytest.mark.usefixtures("wrong_relu")
def test_the_first_departing_node_is_named(tmp_path: Path) -> None:
    model = loaded(networks.cnn(), tmp_path / "m.onnx")
    with pytest.raises(ParityError) as caught:
        check_parity(Twin(model), model, random_images(model))
    text = str(caught.value)
    assert "the twin differs from onnxruntime by 0.0" in text
    assert "The first node to depart is Relu 'relu': onnxruntime gives 0 to " in text
    assert "for 'r', the twin 0 to " in text


def test_outputs_that_are_not_finite(tmp_path: Path) -> None:
    proto = networks.cnn()
    proto.graph.node[-1].output[0] = "before"
    proto.graph.node.append(helper.make_node("Log", ["before"], ["scores"]))
    model = loaded(proto, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="output 'scores' has NaN or Inf on this data"):
        check_parity(Twin(model), model, random_images(model))


def test_an_output_without_an_axis_of_samples(tmp_path: Path) -> None:
    proto = networks.cnn()
    proto.graph.node[-1].output[0] = "before"
    proto.graph.node.append(helper.make_node("ReduceMean", ["before"], ["scores"], keepdims=0))
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    model = loaded(proto, tmp_path / "m.onnx")
    with pytest.raises(ParityError, match=r"output 'scores' has shape \[\] for 13 samples"):
        check_parity(Twin(model), model, random_images(model))


def test_a_node_that_fails_is_named(tmp_path: Path) -> None:
    proto = networks.cnn(batch=4)
    proto.graph.initializer[3].CopyFrom(numpy_helper.from_array(np.array([4, 8]), "shape"))
    model = loaded(proto, tmp_path / "m.onnx")
    with pytest.raises(ParityError, match="It fails at the Reshape node 'flatten': "):
        check_parity(Twin(model), model, random_images(model))


def changed_copy(path: Path, name: str, array: np.ndarray) -> Model:
    proto = networks.cnn()
    for tensor in proto.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(array, name))
    return loaded(proto, path)


def test_differences(tmp_path: Path) -> None:
    first = loaded(networks.cnn(), tmp_path / "a.onnx")
    assert differences(first, loaded(networks.cnn(), tmp_path / "b.onnx")) == ([], True)
    moved = changed_copy(tmp_path / "c.onnx", "fc.b", np.zeros(4, np.float32))
    assert differences(first, moved) == (["fc.b"], True)
    onnx.save(networks.cnn(), str(tmp_path / "d.onnx"), save_as_external_data=True)
    assert differences(first, load(tmp_path / "d.onnx")) == ([], True)
    proto = networks.cnn()
    proto.graph.node[0].name = "renamed"
    assert differences(first, loaded(proto, tmp_path / "e.onnx")) == ([], False)
    proto = networks.cnn()
    proto.doc_string = "more"
    assert differences(first, loaded(proto, tmp_path / "f.onnx")) == ([], False)


def test_counting_zeros(tmp_path: Path) -> None:
    array = values(4, 8)
    array[0, :3] = [0.0, -0.0, 1e-30]
    model = changed_copy(tmp_path / "m.onnx", "fc.w", array)
    (found,) = recount(model, weights_of(model, "fc.w"))
    assert (found.count, found.zeros, found.rate) == (32, 2, 2 / 32)
    with pytest.raises(OutputError, match="has no constant tensor 'x'"):
        recount(model, [replace(weights_of(model, "fc.w")[0], name="x")])


def test_an_output_of_another_shape_than_declared(tmp_path: Path) -> None:
    proto = networks.cnn()
    declared = proto.graph.output[0].type.tensor_type.shape.dim
    declared[0].dim_value = 1  # left from an export: not a matter
    model = loaded(proto, tmp_path / "m.onnx")
    check_parity(Twin(model), model, random_images(model))
    declared[1].dim_value = -1  # what some exporters write for an open one
    model = loaded(proto, tmp_path / "m.onnx")
    check_parity(Twin(model), model, random_images(model))
    declared[0].dim_value, declared[1].dim_value = 1, 7
    model = loaded(proto, tmp_path / "m.onnx")
    with pytest.raises(ModelError) as caught:
        check_parity(Twin(model), model, random_images(model))
    assert "output 'scores' of the Gemm node 'fc' is declared as [1, 7] and has shape [13, 4]" in (
        str(caught.value)
    )


def test_a_model_against_itself_and_against_another(tmp_path: Path) -> None:
    dense = loaded(networks.cnn(), tmp_path / "a.onnx")
    images = random_images(dense)
    same = validate_models(dense, load(tmp_path / "a.onnx"), images, weights_of(dense, "conv.w"))
    (output,) = same.outputs
    assert (same.samples, same.changed, same.same_graph) == (24, (), True)
    assert output.kl == pytest.approx(0.0, abs=1e-6)
    assert output.cosine == pytest.approx(1.0)
    assert output.agreement == 1.0
    negative = changed_copy(tmp_path / "b.onnx", "fc.w", -values(4, 8, seed=4, scale=2.0))
    other = validate_models(dense, negative, images, weights_of(dense, "fc.w"), samples=10)
    (output,) = other.outputs
    assert other.samples == 10
    assert other.changed == ("fc.w",)
    assert output.kl > 0.1
    assert output.cosine < 0.9
    assert output.agreement < 0.9


def test_the_twin_is_held_against_the_saved_file(tmp_path: Path) -> None:
    dense = loaded(networks.cnn(), tmp_path / "a.onnx")
    sparse = changed_copy(tmp_path / "b.onnx", "fc.b", np.zeros(4, np.float32))
    twin, images = Twin(dense, ["fc.b"]), random_images(dense)
    right = {"fc.b": torch.zeros(4)}
    found = validate_models(dense, sparse, images, [], twin=twin, replaced=right)
    assert found.twin_error < 1e-5
    found = validate_models(dense, sparse, images, [], twin=twin)
    assert found.twin_error > 1e-3
