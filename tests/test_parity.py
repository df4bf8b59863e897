"""Parity: the twin held against onnxruntime before it learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper

from fcpts_onnx.calibration import Calibration, load_calibration
from fcpts_onnx.errors import ModelError, ParityError
from fcpts_onnx.model import Model
from fcpts_onnx.ops import registry
from fcpts_onnx.parity import TOLERANCE, check_parity, oracle_of, tolerance
from fcpts_onnx.preprocess import PRESETS
from fcpts_onnx.results import Parity
from fcpts_onnx.twin import Twin
from tests import networks
from tests.networks import loaded, random_images, values


def held(twin: Twin, model: Model, samples: Calibration) -> Parity:
    return check_parity(twin, model, samples, oracle_of(twin, model))


@pytest.mark.parametrize(("batch", "baked"), [("N", False), (1, True), ("N", True)])
def test_parity(batch: int | str, baked: bool, tmp_path: Path) -> None:
    model = loaded(networks.cnn(batch=batch, baked=baked), tmp_path / "m.onnx")
    twin = Twin(model)
    found = held(twin, model, random_images(model))
    assert found.samples == 13
    assert found.error < 1e-5
    assert found.per_sample is twin.per_sample is baked


def test_a_graph_that_drops_the_axis_of_its_one_sample(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Squeeze", ["c", "first"], ["y"]),
    ]
    constants = {"w": values(4, 3, 3, 3), "first": np.array([0])}
    proto = networks.make(nodes, constants, {"x": [1, 3, 8, 8]}, {"y": [4, 6, 6]})
    model = loaded(proto, tmp_path / "m.onnx")
    found = held(Twin(model, ["w"]), model, random_images(model))
    assert found.error < 1e-5
    assert found.per_sample


@pytest.fixture
def wrong_relu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registered operator that is slightly off."""
    off = registry._describe(lambda x: torch.relu(x) * 1.01, "", "Relu", 1)
    monkeypatch.setitem(registry._table, ("", "Relu"), [off])


@pytest.mark.usefixtures("wrong_relu")
def test_the_first_departing_node_is_named(tmp_path: Path) -> None:
    model = loaded(networks.cnn(), tmp_path / "m.onnx")
    with pytest.raises(ParityError) as caught:
        held(Twin(model), model, random_images(model))
    text = str(caught.value)
    assert "the twin differs from onnxruntime by 0.0" in text
    assert "The first node to depart is Relu 'relu': onnxruntime gives 0 to " in text
    assert "for 'r', the twin 0 to " in text


def test_nodes_that_are_computed_in_one_step_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linear = torch.nn.functional.linear
    monkeypatch.setattr(torch.nn.functional, "linear", lambda *args: linear(*args) * 1.01)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"], "product"),
        helper.make_node("Add", ["p", "b"], ["y"], "total"),
    ]
    constants = {"w": values(8, 4), "b": values(4)}
    proto = networks.make(nodes, constants, {"x": ["N", 8]}, {"y": ["N", 4]})
    model = loaded(proto, tmp_path / "m.onnx")
    samples = load_calibration([values(16, 8)], model, PRESETS["raw"])
    with pytest.raises(ParityError) as caught:
        held(Twin(model), model, samples)
    expected = "first node to depart is Add 'total', computed in one step with 'product': onnx"
    assert expected in str(caught.value)


def test_outputs_that_are_not_finite(tmp_path: Path) -> None:
    proto = networks.cnn()
    proto.graph.node[-1].output[0] = "before"
    proto.graph.node.append(helper.make_node("Log", ["before"], ["scores"]))
    model = loaded(proto, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="output 'scores' has NaN or Inf on this data"):
        held(Twin(model), model, random_images(model))


def test_an_output_without_an_axis_of_samples(tmp_path: Path) -> None:
    proto = networks.cnn()
    proto.graph.node[-1].output[0] = "before"
    proto.graph.node.append(helper.make_node("ReduceMean", ["before"], ["scores"], keepdims=0))
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    model = loaded(proto, tmp_path / "m.onnx")
    with pytest.raises(ParityError, match=r"output 'scores' has shape \[\] for 13 samples"):
        held(Twin(model), model, random_images(model))


def test_a_node_that_fails_is_named(tmp_path: Path) -> None:
    proto = networks.cnn(batch=4)
    proto.graph.initializer[3].CopyFrom(numpy_helper.from_array(np.array([4, 8]), "shape"))
    model = loaded(proto, tmp_path / "m.onnx")
    with pytest.raises(ParityError, match="It fails at the Reshape node 'flatten': "):
        held(Twin(model), model, random_images(model))


def test_an_output_of_another_shape_than_declared(tmp_path: Path) -> None:
    proto = networks.cnn()
    declared = proto.graph.output[0].type.tensor_type.shape.dim
    declared[0].dim_value = 1  # left from an export: not a matter
    model = loaded(proto, tmp_path / "m.onnx")
    held(Twin(model), model, random_images(model))
    declared[1].dim_value = -1  # what some exporters write for an open one
    model = loaded(proto, tmp_path / "m.onnx")
    held(Twin(model), model, random_images(model))
    declared[0].dim_value, declared[1].dim_value = 1, 7
    model = loaded(proto, tmp_path / "m.onnx")
    with pytest.raises(ModelError) as caught:
        held(Twin(model), model, random_images(model))
    assert "output 'scores' of the Gemm node 'fc' is declared as [1, 7] and has shape [13, 4]" in (
        str(caught.value)
    )


@pytest.mark.parametrize("op", ["MatMul", "Gemm"])
def test_products_of_dequantised_weights(op: str, tmp_path: Path) -> None:
    """onnxruntime rounds the other factor too, and only there is more accepted."""
    whole = np.random.default_rng(0).integers(-127, 128, (8, 4), dtype=np.int8)
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scale"], ["w"]),
        helper.make_node(op, ["x", "w"], ["y"], "product"),
    ]
    constants = {"q": whole, "scale": np.array(0.01, np.float32)}
    proto = networks.make(nodes, constants, {"x": ["N", 8]}, {"y": ["N", 4]})
    model = loaded(proto, tmp_path / "m.onnx")
    assert tolerance(model) == 0.02
    assert tolerance(loaded(networks.cnn(), tmp_path / "plain.onnx")) == TOLERANCE
    samples = load_calibration([values(16, 8, scale=1.0)], model, PRESETS["raw"])
    assert held(Twin(model), model, samples).error <= tolerance(model)
