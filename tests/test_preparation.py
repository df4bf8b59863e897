"""What is settled before learning: here, the values that are to be met beside the outputs."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import helper

import fcpts_onnx
from fcpts_onnx.calibration import load_calibration
from fcpts_onnx.cli import main
from fcpts_onnx.errors import ModelError, TargetError
from fcpts_onnx.model import load
from fcpts_onnx.pipeline import prune
from fcpts_onnx.preparation import (
    features_of,
    heads_of,
    learning_twin,
    network_to_prune,
    weights_to_prune,
)
from fcpts_onnx.preprocess import PRESETS
from fcpts_onnx.recipe import Recipe
from fcpts_onnx.runtime import Runtime, as_arrays
from fcpts_onnx.sparsity.losses import Loss
from tests import networks
from tests.networks import loaded, random_images


@pytest.mark.parametrize(("loss", "expected"), [("kl", ["f"]), ("bce", ["f"]), ("mse", [])])
def test_features_of_class_scores(loss: Loss, expected: list[str], tmp_path: Path) -> None:
    model = loaded(networks.cnn(), tmp_path / "m.onnx")
    weights = weights_to_prune(model, (), (), ())
    (twin, _), calibration = learning_twin(model, weights, ()), random_images(model)
    heads = heads_of(twin, calibration, {"scores": loss})
    features = features_of(twin, calibration, weights, heads, 2.0)
    assert [feature.name for feature in features] == list(twin.watched) == expected
    batch = next(calibration.batches(24))
    found = twin(batch)
    assert list(found) == ["scores", *expected]
    for feature in features:
        seen = Runtime(model, [feature.name]).run(as_arrays(batch))[feature.name]
        assert (feature.loss, feature.weight) == ("mse", 2.0)
        assert feature.spread == pytest.approx((seen.var(),), rel=1e-4)
        np.testing.assert_allclose(found[feature.name].detach(), seen, atol=1e-5)


def test_outputs_are_judged_by_samples_of_all_kinds(tmp_path: Path) -> None:
    """The first ones alone have length 1, as embeddings do; all of them do not."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "layer")]
    proto = networks.make(nodes, {"w": -np.eye(4, 5, dtype="f4")}, {"x": ["N", 4]}, {"y": ["N", 5]})
    model = loaded(proto, tmp_path / "m.onnx")
    samples = networks.values(64, 4, scale=3.0)
    samples[:16] /= np.linalg.norm(samples[:16], axis=1, keepdims=True)
    calibration = load_calibration([samples], model, PRESETS["raw"])
    twin, _ = learning_twin(model, weights_to_prune(model, (), (), ()), ())
    assert [head.loss for head in heads_of(twin, calibration, {})] == ["kl"]


@pytest.mark.parametrize("shape", [[], [1], [1, 1]], ids=str)
def test_a_divergence_of_one_value_is_refused(shape: list[int], tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Reshape", ["m", "shape"], ["y"]),
    ]
    constants = {"w": networks.values(4, 1), "shape": np.array([-1, *shape])}
    proto = networks.make(nodes, constants, {"x": ["N", 4]}, {"y": ["N", *shape]})
    found = re.escape(f"[{', '.join(['N', *map(str, shape)])}]")
    with pytest.raises(TargetError, match=rf"y=kl is for .*, and y is {found}\. Use bce"):
        prune(
            networks.save(proto, tmp_path / "m.onnx"), tmp_path / "out.onnx", target=0.5,
            calib=[networks.values(30, 4)], losses={"y": "kl"},
        )  # fmt: skip


def test_features_are_met(tmp_path: Path) -> None:
    """Scores alone leave the last features free; they are nearer once they count."""
    source = networks.save(networks.cnn(), tmp_path / "in.onnx")
    images = torch.from_numpy(networks.values(96, 3, 8, 8, scale=1.0))
    recipe = Recipe(epochs=0, min_steps=150, batch_size=32, interval=2, precision="float32")
    errors = {}
    for part in (0.0, 30.0):
        output = tmp_path / f"{part}.onnx"
        prune(
            source, output, target=0.5, calib=[images.numpy()], preprocess="raw",
            recipe=replace(recipe, feature_weight=part), seed=0,
        )  # fmt: skip
        dense, sparse = (
            Runtime(load(path), ["f"]).run({"image": images.numpy()})["f"]
            for path in (source, output)
        )
        errors[part] = np.square(dense - sparse).mean()
    assert errors[30.0] < errors[0.0] / 2


def test_an_output_without_values_cannot_be_learned_against(tmp_path: Path) -> None:
    proto = networks.perceptron()
    proto.graph.node[3].output[0] = "all"
    proto.graph.node.append(helper.make_node("Slice", ["all", "zero", "zero", "one"], ["y"]))
    for name, value in (("zero", 0), ("one", 1)):
        proto.graph.initializer.append(helper.make_tensor(name, 7, [1], [value]))
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 0
    path = networks.save(proto, tmp_path / "m.onnx")
    assert fcpts_onnx.inspect(path).heads == ()
    with pytest.raises(ModelError, match=r"learned against \(y\) has no values"):
        prune(path, tmp_path / "out.onnx", target=0.5, calib=[networks.values(30, 6)])


def test_a_scale_in_whole_numbers_is_refused(tmp_path: Path) -> None:
    """Found by changing real models at random: a zero point in the place of the scale."""
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "zero", "zero"], ["w"]),
        helper.make_node("Gemm", ["x", "w"], ["y"], "fc"),
    ]
    constants = {"q": np.ones((6, 3), np.int8), "zero": np.array(1, np.int8)}
    networks.save(networks.make(nodes, constants, {"x": ["N", 6]}, {"y": ["N", 3]}), tmp_path / "m")
    result = CliRunner().invoke(main, ["inspect", str(tmp_path / "m")])
    assert result.exit_code == 0, result.output
    assert "w would have to be learned, and is in integers" in result.output


def test_an_input_of_8_bit_floats(tmp_path: Path) -> None:
    proto = networks.perceptron()
    proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT8E5M2
    networks.save(proto, tmp_path / "m.onnx")
    result = CliRunner().invoke(main, ["inspect", str(tmp_path / "m.onnx")])
    assert result.exit_code == 0, result.output
    assert "Learned against y" in result.output


@pytest.mark.parametrize("stated", [1, "N"])
def test_what_a_baked_batch_size_is_learned_against(stated: int | str, tmp_path: Path) -> None:
    path = networks.save(networks.cnn(batch=stated, baked=True), tmp_path / "m.onnx")
    expected = ("scores: divergence of scores along axis 1 (kl)",)
    assert fcpts_onnx.inspect(path).heads == expected


def test_what_cannot_be_pruned_is_told_of_and_what_is_not_to_be_is_not(tmp_path: Path) -> None:
    proto = networks.cnn()
    proto.graph.node.append(helper.make_node("Neg", ["fc.w"], ["other"]))
    proto.graph.output.append(helper.make_tensor_value_info("other", 1, [4, 8]))
    model, lines = loaded(proto, tmp_path / "m.onnx"), []
    _, weights = network_to_prune(model, (), ["depthwise*"], (), lines.append)
    assert [weight.name for weight in weights] == ["conv.w"]
    share = 32 / (216 + 72 + 32)
    assert lines == [
        f"1 of 3 weights cannot be pruned, {share:.1%} of all values: 'fcpts-onnx inspect' says why"
    ]
