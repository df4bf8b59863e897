"""Validation: zeros, differences and outputs of a saved file against its dense origin."""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from fcpts_onnx.calibration import load_calibration
from fcpts_onnx.errors import OutputError
from fcpts_onnx.model import Model, load
from fcpts_onnx.preprocess import PRESETS
from fcpts_onnx.runtime import Array, Arrays, Runtime
from fcpts_onnx.twin import Twin
from fcpts_onnx.validate import recount, validate_models
from fcpts_onnx.weights import Weight, find_weights
from tests import networks
from tests.networks import loaded, random_images, values


def weights_of(model: Model, name: str) -> list[Weight]:
    return [weight for weight in find_weights(model) if weight.name == name]


def changed_copy(path: Path, name: str, array: np.ndarray) -> Model:
    proto = networks.cnn()
    for tensor in proto.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(array, name))
    return loaded(proto, path)


def test_counting_zeros(tmp_path: Path) -> None:
    array = values(4, 8)
    array[0, :3] = [0.0, -0.0, 1e-30]
    model = changed_copy(tmp_path / "m.onnx", "fc.w", array)
    (found,) = recount(model, weights_of(model, "fc.w"))
    assert (found.count, found.zeros, found.rate) == (32, 2, 2 / 32)
    with pytest.raises(OutputError, match="has no constant tensor 'x'"):
        recount(model, [replace(weights_of(model, "fc.w")[0], name="x")])


def in_8_bits(path: Path, zero_point: int) -> Model:
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scale", "point"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"], "product"),
    ]
    constants = {
        "q": np.arange(96, dtype=np.uint8).reshape(6, 16) // 3, "scale": np.float32(0.1),
        "point": np.uint8(zero_point),
    }  # fmt: skip
    return loaded(networks.make(nodes, constants, {"x": ["N", 6]}, {"y": ["N", 16]}), path)


def test_zeros_are_counted_by_the_files_own_zero_point(tmp_path: Path) -> None:
    dense, other = in_8_bits(tmp_path / "a.onnx", 200), in_8_bits(tmp_path / "b.onnx", 5)
    weights = weights_of(dense, "q")
    assert [found.zeros for found in recount(dense, weights)] == [0]
    assert [found.zeros for found in recount(other, weights)] == [3]


def test_weights_of_another_shape_are_not_counted(tmp_path: Path) -> None:
    dense = loaded(networks.cnn(), tmp_path / "a.onnx")
    other = changed_copy(tmp_path / "b.onnx", "fc.w", values(6, 8))
    with pytest.raises(OutputError, match=r"'fc\.w' has shape \[6, 8\] instead of \[4, 8\]"):
        recount(other, weights_of(dense, "fc.w"))


def test_the_samples_that_are_furthest_apart(tmp_path: Path) -> None:
    dense = loaded(networks.cnn(), tmp_path / "a.onnx")
    other = changed_copy(tmp_path / "b.onnx", "fc.w", -values(4, 8, seed=4, scale=2.0))
    images = random_images(dense)
    found = validate_models(dense, other, images, [])
    kl = [sample.kl for sample in found.furthest]
    assert len(kl) == 8
    assert kl == sorted(kl, reverse=True)
    assert kl[0] >= found.outputs[0].kl
    worst = found.furthest[0]
    row = next(iter(images.take(torch.tensor([worst.place])).values())).numpy()
    (scores,) = Runtime(dense).run({dense.inputs[0].name: row}).values()
    share = torch.softmax(torch.from_numpy(scores[0]), 0)
    assert worst.dense[0] == (int(share.argmax()), pytest.approx(float(share.max()), abs=1e-5))
    assert worst.picture is None  # arrays, no images


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


def test_outputs_are_held_a_batch_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of a segmentation network's on 1,000 images are beyond any memory."""
    model = loaded(networks.cnn(), tmp_path / "a.onnx")
    results, alive, run = [], [], Runtime.run

    def watched(runtime: Runtime, inputs: Arrays) -> dict[str, Array]:
        alive.append(sum(result() is not None for result in results))
        found = run(runtime, inputs)
        results.extend(map(weakref.ref, found.values()))
        return found

    monkeypatch.setattr(Runtime, "run", watched)
    assert validate_models(model, model, random_images(model, 160), []).samples == 160
    assert len(alive) == 20
    assert max(alive) < 4


def test_what_has_its_inputs_shape_is_no_class_scores(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    proto = networks.make([node], {"w": values(6, 6)}, {"x": ["N", 6]}, {"y": ["N", 6]})
    model = loaded(proto, tmp_path / "a.onnx")
    data = load_calibration([values(100, 6)], model, PRESETS["raw"])
    assert validate_models(model, model, data, []).outputs[0].kl is None


def test_whole_numbers_of_an_output_are_in_the_models_units(tmp_path: Path) -> None:
    """What QuantizeLinear made of probabilities is compared as probabilities."""
    graphs = {}
    for name, last, scale in (("float", "p", 256), ("whole", "q", 256), ("none", "q", 1)):
        nodes = [
            helper.make_node("MatMul", ["x", "w"], ["y"]),
            helper.make_node("Softmax", ["y"], ["p"], axis=1),
            helper.make_node("QuantizeLinear", ["p", "scale", "point"], ["q"]),
        ]
        constants = {"w": values(6, 5), "scale": np.float32(1 / scale), "point": np.int8(-128)}
        proto = networks.make(nodes, constants, {"x": ["N", 6]}, {last: ["N", 5]})
        if last == "q":
            proto.graph.output[0].type.tensor_type.elem_type = TensorProto.INT8
        dense = loaded(proto, tmp_path / f"{name}.onnx")
        proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(0.5 * values(6, 5), "w"))
        sparse = loaded(proto, tmp_path / f"{name}2.onnx")
        data = load_calibration([values(50, 6)], dense, PRESETS["raw"])
        graphs[name] = validate_models(dense, sparse, data, []).outputs[0]
    assert graphs["whole"].cosine == pytest.approx(graphs["float"].cosine, abs=1e-3)
    assert graphs["whole"].kl == pytest.approx(graphs["float"].kl, rel=0.1)
    assert graphs["none"].kl is not None  # many are rounded to nothing in all classes


def test_outputs_whose_squares_are_beyond_their_type(tmp_path: Path) -> None:
    model = loaded(networks.cnn(), tmp_path / "a.onnx")
    large = changed_copy(tmp_path / "b.onnx", "fc.b", np.full(4, 1e30, np.float32))
    found = validate_models(large, large, random_images(model), [])
    assert found.outputs[0].cosine == pytest.approx(1.0)


def test_the_twin_is_held_against_the_saved_file(tmp_path: Path) -> None:
    dense = loaded(networks.cnn(), tmp_path / "a.onnx")
    sparse = changed_copy(tmp_path / "b.onnx", "fc.b", np.zeros(4, np.float32))
    twin, images = Twin(dense, ["fc.b"]), random_images(dense)
    right = {"fc.b": torch.zeros(4)}
    found = validate_models(dense, sparse, images, [], twin=twin, replaced=right)
    assert found.twin_error < 1e-5
    found = validate_models(dense, sparse, images, [], twin=twin)
    assert found.twin_error > 1e-3
