"""Means of what layers read: the mean of what a layer gives follows, for any weight."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from fcpts_onnx.along import learned_along
from fcpts_onnx.calibration import Calibration, load_calibration
from fcpts_onnx.model import Model
from fcpts_onnx.preparation import informed
from fcpts_onnx.preprocess import PRESETS
from fcpts_onnx.recipe import Recipe
from fcpts_onnx.runtime import Runtime
from fcpts_onnx.sparsity.centres import Centre, centres_of
from fcpts_onnx.sparsity.student import Student
from fcpts_onnx.sparsity.task import Task
from fcpts_onnx.twin import Twin
from fcpts_onnx.twin.layers import layers
from fcpts_onnx.weights import Weight, find_weights
from tests import networks
from tests.networks import values
from tests.twin.test_layers import CASES, network

IMAGES = np.abs(values(40, 3, 8, 8, scale=1.0))


def prepared(proto: onnx.ModelProto) -> tuple[Model, Twin, list[Weight], Calibration]:
    model = Model(Path("m.onnx"), proto)
    weights = find_weights(model)
    twin = Twin(model, [weight.name for weight in weights] + learned_along(model, weights))
    return model, twin, weights, load_calibration([IMAGES], model, PRESETS["raw"])


@pytest.mark.parametrize("name", CASES)
def test_means_are_those_of_the_layer(name: str) -> None:
    op, data, shape, attributes = CASES[name]
    model = network(op, data, shape, **attributes)
    twin, weights = Twin(model, ["w", "b"]), find_weights(model)
    samples = np.abs(values(20, *data[1:], scale=1.0))
    calibration = load_calibration([samples], model, PRESETS["raw"])
    (centre,) = centres_of(twin, calibration, weights).values()
    (layer,) = layers(twin.steps, weights, twin.learned).values()
    assert centre.bias == "b"
    other = torch.from_numpy(values(*shape, seed=5))
    with torch.no_grad():
        given = layer.times(torch.from_numpy(samples), other)
    torch.testing.assert_close(centre.outputs(other), given.mean(1).flatten())


def cnn(
    *,
    bias: bool = True,
    behind: bool = False,
    norm: bool = False,
    shared: bool = False,
    again: bool = False,
) -> onnx.ModelProto:
    """A padded convolution, Relu, and class scores.

    Args:
        behind: the bias is added behind the convolution.
        shared: two layers add the same bias.
        again: another batch norm, of no layer, adds the same shift.
    """
    shape = (1, 6, 1, 1) if behind else (6,)
    constants = {"w": values(6, 3, 3, 3), "b": values(*shape), "v": values(5, 6, 1, 1)}
    first = ["x", "w", *(["b"] if bias and not behind else [])]
    given = "p" if behind else "c"
    nodes = [helper.make_node("Conv", first, [given], "first", pads=[1, 1, 1, 1])]
    if behind:
        nodes.append(helper.make_node("Add", ["p", "b"], ["c"], "total"))
    if norm:
        parameters = ["scale", "shift", "mean", "variance"]
        constants |= {key: values(6, seed=place) for place, key in enumerate(parameters)}
        constants["variance"] = constants["variance"] ** 2 + 0.1
        nodes += [helper.make_node("BatchNormalization", ["c", *parameters], ["n"], "norm")]
    if shared:
        constants["u"] = values(6, 6, 1, 1, seed=3)
        nodes += [helper.make_node("Conv", ["c", "u", "b"], ["n"], "another")]
    nodes += [helper.make_node("Relu", ["n" if norm or shared else "c"], ["r"], "relu")]
    if again:
        nodes += [helper.make_node("BatchNormalization", ["r", *parameters], ["s"], "again")]
    nodes += [
        helper.make_node("Conv", ["s" if again else "r", "v"], ["m"], "last"),
        helper.make_node("GlobalAveragePool", ["m"], ["g"], "pool"),
        helper.make_node("Flatten", ["g"], ["scores"], "flat"),
    ]
    return networks.make(nodes, constants, {"x": ["N", 3, 8, 8]}, {"scores": ["N", 5]})


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"w": "b"}),
        ({"behind": True}, {"w": "b"}),
        ({"bias": False}, {}),
        ({"norm": True}, {"w": "shift"}),
        ({"norm": True, "bias": False}, {"w": "shift"}),
        ({"shared": True}, {}),
        ({"norm": True, "again": True}, {}),
    ],
    ids=str,
)
def test_which_bias_makes_up(settings: dict[str, bool], expected: dict[str, str]) -> None:
    _, twin, weights, calibration = prepared(cnn(**settings))
    found = centres_of(twin, calibration, weights)
    assert {name: centre.bias for name, centre in found.items()} == expected


def first_layer(model: Model, changed: dict[str, torch.Tensor]) -> np.ndarray:
    """The means of what the first layer gives each channel, by onnxruntime."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for tensor in proto.graph.initializer:
        if tensor.name in changed:
            value = changed[tensor.name].detach().numpy()
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    name = proto.graph.node[-4].input[0]
    path = networks.save(proto, Path(model.path))
    found = Runtime(networks.loaded(proto, path), [name]).run({"x": IMAGES})[name]
    return found.mean(axis=(0, 2, 3))


@pytest.mark.parametrize("settings", [{}, {"norm": True}, {"behind": True}], ids=str)
def test_zeros_move_no_mean(settings: dict[str, bool], tmp_path: Path) -> None:
    model, twin, weights, calibration = prepared(cnn(**settings))
    model = networks.loaded(model.proto, tmp_path / "m.onnx")
    recipe = Recipe(channel_scales=True)
    spread = np.abs(first_layer(model, {})).mean()
    moved = {}
    for centred in (False, True):
        centres: dict[str, Centre] = {}
        if centred:
            centres = centres_of(twin, calibration, weights)
        student = Student(twin, weights, recipe, centres)
        sparse = {name: value * (value.abs() > 0.2) for name, value in student.values().items()}
        changed = student.tensors(sparse)
        moved[centred] = np.abs(first_layer(model, changed) - first_layer(model, {})).max()
    assert moved[False] > 0.1 * spread
    assert moved[True] < 1e-4 * spread


def without_samples(*shape: int) -> onnx.ModelProto:
    """A layer that multiplies a constant table of a shape, and adds what it gives to the input."""
    nodes = [
        helper.make_node("MatMul", ["table", "w"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["t"]),
        helper.make_node("Add", ["x", "t"], ["y"]),
    ]
    constants = {"table": values(*shape), "w": values(4, 6), "b": values(6)}
    return networks.make(nodes, constants, {"x": ["N", 6]}, {"y": ["N", 6]})


@pytest.mark.parametrize("shape", [(1, 4), (4,)])
def test_a_layer_that_reads_no_sample(shape: tuple[int, ...]) -> None:
    model = Model(Path("m.onnx"), without_samples(*shape))
    calibration = load_calibration([values(10, 6)], model, PRESETS["raw"])
    weights = [weight for weight in find_weights(model) if weight.name == "w"]
    (centre,) = centres_of(Twin(model, ["w", "b"]), calibration, weights).values()
    weight = values(4, 6)
    expected = torch.from_numpy(values(*shape) @ weight).flatten()
    torch.testing.assert_close(centre.outputs(torch.from_numpy(weight)), expected)


def test_an_unchanged_network_stays_the_dense_one() -> None:
    _, twin, weights, calibration = prepared(cnn())
    student = Student(twin, weights, Recipe(), centres_of(twin, calibration, weights))
    tensors = student.tensors(student.values())
    for name, value in twin.learned.items():
        torch.testing.assert_close(tensors[name], value)


def test_a_batch_norm_whose_gain_is_not_learned_is_left_alone() -> None:
    """It counts in other units than the weights before it."""
    _, twin, weights, calibration = prepared(cnn(norm=True))
    for scales, expected in ((True, {"w"}), (False, set())):
        recipe = Recipe(channel_scales=scales, centred=True)
        task = Task(twin, calibration, weights, None, recipe, ())
        assert informed(task, twin, {}, lambda _: None).centres.keys() == expected


def test_a_branch_that_is_switched_off_stays_so() -> None:
    """Its batch norm multiplies with nothing, whatever the weights do."""
    proto = cnn(norm=True)
    scale = next(t for t in proto.graph.initializer if t.name == "scale")
    scale.CopyFrom(numpy_helper.from_array(np.zeros(scale.dims, np.float32), "scale"))
    _, twin, weights, calibration = prepared(proto)
    student = Student(twin, weights, Recipe(), centres_of(twin, calibration, weights))
    halves = {name: value / 2 for name, value in student.values().items()}
    torch.testing.assert_close(student.tensors(halves)["shift"], twin.learned["shift"])
