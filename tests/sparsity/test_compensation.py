"""What zeros take away: the weights that are left make up for it as well as they can."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import fcpts_onnx
from fcpts_onnx import Recipe
from fcpts_onnx.calibration import load_calibration
from fcpts_onnx.model import Model
from fcpts_onnx.preprocess import PRESETS
from fcpts_onnx.sparsity.budget import Budget
from fcpts_onnx.sparsity.centres import centres_of
from fcpts_onnx.sparsity.compensation import compensations_of
from fcpts_onnx.sparsity.student import Student
from fcpts_onnx.sparsity.task import Task
from fcpts_onnx.sparsity.thresholds import FixedThresholds
from fcpts_onnx.twin import Twin
from fcpts_onnx.twin.layers import layers
from fcpts_onnx.weights import find_weights
from tests import networks
from tests.networks import values
from tests.sparsity.test_centres import cnn, prepared, without_samples
from tests.twin.test_layers import CASES, network

DAMPING = 0.03


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_it_is_the_least_squares_solution(name: str, centred: bool) -> None:
    """Row by row, over the places of all samples: of X lost by X d, with d where weights are."""
    op, data, shape, attributes = CASES[name]
    model = network(op, data, shape, **attributes)
    twin, weights = Twin(model, ["w", "b"]), find_weights(model)
    samples = np.abs(values(20, *data[1:], scale=1.0))
    calibration = load_calibration([samples], model, PRESETS["raw"])
    centres = {"w"} if centred else set()
    (found,) = compensations_of(twin, calibration, weights, centres).values()
    (layer,) = layers(twin.steps, weights, {}).values()
    mask = torch.from_numpy((values(*shape, seed=7) > -0.2).astype(np.float32))
    lost = torch.from_numpy(values(*shape, seed=8)) * (1 - mask)
    change = found.change(lost, mask)
    assert not (change * (1 - mask)).any()
    x = layer.matrix(torch.from_numpy(samples)).double()
    if centred:
        x = x - x.mean(1, keepdim=True)
    for group, (by_row, kept) in enumerate(zip(layer.rows(lost), layer.rows(mask), strict=True)):
        gram, pull = x[group].mT @ x[group] / x.shape[1], DAMPING * x[group].square().mean()
        for row, (gone, left) in enumerate(zip(by_row.double(), kept.bool(), strict=True)):
            inner = gram[left][:, left] + pull * torch.eye(int(left.sum()), dtype=torch.float64)
            expected = torch.linalg.solve(inner, gram[left] @ gone)
            given = layer.rows(change)[group, row][left].double()
            torch.testing.assert_close(given, expected, rtol=0.02, atol=0.002)


def test_each_group_counts_by_its_own_size() -> None:
    """Channels that read small values are made up for as others are; a constant one is left."""
    model = network("Conv", (2, 4, 7, 6), (4, 1, 3, 3), group=4)
    twin, weights = Twin(model, ["w", "b"]), find_weights(model)
    samples = np.repeat(np.abs(values(20, 1, 7, 6, scale=1.0)), 4, axis=1)
    samples[:, 2] *= 0.01
    samples[:, 3] = 5.3
    calibration = load_calibration([samples], model, PRESETS["raw"])
    found = compensations_of(twin, calibration, weights, {"w"})["w"]
    mask = torch.ones(4, 1, 3, 3)
    mask[:, :, 1] = 0
    first, same, small, constant = found.change(1 - mask, mask)
    assert first.abs().max() > 0.01
    torch.testing.assert_close(same, first)
    torch.testing.assert_close(small, first, rtol=1e-3, atol=1e-4)
    assert not constant.any()


def test_rounding_of_large_means_does_not_count() -> None:
    """What is centred on is the same far from zero, but for the rounding of the samples."""
    model = network("MatMul", (5, 4), (4, 6))
    twin, weights = Twin(model, ["w", "b"]), find_weights(model)
    near = values(400, 4, scale=0.01)
    far = (near + 50).astype(np.float32)
    mask = torch.from_numpy((values(4, 6, seed=7) > 0).astype(np.float32))
    changes = []
    for samples in (near, far):
        calibration = load_calibration([samples], model, PRESETS["raw"])
        found = compensations_of(twin, calibration, weights, {"w"})["w"]
        changes.append(found.change(1 - mask, mask))
    assert changes[0].abs().max() > 0.01
    torch.testing.assert_close(changes[1], changes[0], rtol=0.01, atol=0.001)


def test_what_comes_back_is_made_up_for_as_well() -> None:
    _, twin, weights, calibration = prepared(cnn())
    found = compensations_of(twin, calibration, weights, {})["w"]
    weight = twin.learned["w"].detach()
    mask = (weight.abs() > 0.2).float()
    gone = found.change(weight * (1 - mask), mask)
    back = found.change(-weight * (1 - mask), mask)
    assert gone.abs().max() > 0.01
    torch.testing.assert_close(back, -gone)


def test_a_layer_with_too_many_inputs_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    _, twin, weights, calibration = prepared(cnn())
    assert {*compensations_of(twin, calibration, weights, {})} == {"w", "v"}
    monkeypatch.setattr("fcpts_onnx.sparsity.compensation._MOST_INPUTS", 10)
    assert {*compensations_of(twin, calibration, weights, {})} == {"v"}


def test_a_depthwise_layer_with_a_large_kernel_is_left_alone() -> None:
    """Its unit vectors grow with the fourth power of the kernel's side."""
    kept = []
    for side in (7, 53):
        pads = [side // 2] * 4
        model = network("Conv", (2, 6, 7, 6), (6, 1, side, side), group=6, pads=pads)
        calibration = load_calibration([values(4, 6, 7, 6)], model, PRESETS["raw"])
        weights = find_weights(model)
        kept.append({*compensations_of(Twin(model, ["w", "b"]), calibration, weights, {})})
    assert kept == [{"w"}, set()]


def test_a_layer_that_reads_zeros_is_left_alone() -> None:
    model, twin, weights, _ = prepared(cnn())
    calibration = load_calibration([np.zeros((4, 3, 8, 8), np.float32)], model, PRESETS["raw"])
    assert "w" not in compensations_of(twin, calibration, weights, {})


@pytest.mark.parametrize("shape", [(1, 4), (4,)])
def test_a_layer_that_reads_no_sample(shape: tuple[int, ...]) -> None:
    model = Model(Path("m.onnx"), without_samples(*shape))
    calibration = load_calibration([values(10, 6)], model, PRESETS["raw"])
    weights = [weight for weight in find_weights(model) if weight.name == "w"]
    found = compensations_of(Twin(model, ["w", "b"]), calibration, weights, {})["w"]
    table = torch.from_numpy(values(*shape)).reshape(1, 4)
    torch.testing.assert_close(found.gram[0], table.T @ table / table.square().mean())


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("norm", [False, True])
def test_the_student_keeps_what_its_layers_give(norm: bool, scaled: bool) -> None:
    """Whatever units its weights are learned in."""
    _, twin, weights, calibration = prepared(cnn(norm=norm))
    centres = centres_of(twin, calibration, weights)
    compensations = compensations_of(twin, calibration, weights, centres)
    student = Student(twin, weights, Recipe(channel_scales=scaled), centres, compensations)
    dense = student.values()
    whole = {name: torch.ones_like(value) for name, value in dense.items()}
    masks = {name: (value.abs() > value.abs().median()).float() for name, value in dense.items()}
    assert not student.make_up(dense, whole, whole)
    assert student.make_up(dense, whole, masks)
    for name, value in student.values().items():
        expected = compensations[name].change(dense[name] * (1 - masks[name]), masks[name])
        torch.testing.assert_close(value - dense[name], expected, rtol=1e-4, atol=1e-5)


def test_the_last_masks_are_made_up_for_as_well() -> None:
    """Where the ramp was cut short, they come when learning is over."""
    _, twin, weights, calibration = prepared(cnn())
    compensations = compensations_of(twin, calibration, weights, {})
    recipe = Recipe(channel_scales=False)
    student = Student(twin, weights, recipe, {}, compensations)
    dense, zeros = student.values(), {weight.name: weight.count // 2 for weight in weights}
    budget = Budget.of(weights, 0.5)
    task = Task(None, calibration, weights, budget, recipe, (), zeros=zeros)
    thresholds = FixedThresholds(dense, task)
    found = student.finish(thresholds)
    for name, value in dense.items():
        mask = thresholds.masks[name]
        assert int((mask == 0).sum()) == int((found[name] == 0).sum()) == zeros[name]
        expected = value * mask + compensations[name].change(value * (1 - mask), mask)
        torch.testing.assert_close(found[name], expected)


def test_without_a_step_of_learning_it_is_nearer(place: Path) -> None:
    """Masks alone, at a learning rate of zero, with and without."""
    errors = {}
    for compensated in (False, True):
        recipe = Recipe(
            epochs=0, min_steps=32, learning_rate=0.0, interval=1, compensated=compensated
        )
        result = fcpts_onnx.prune(
            networks.save(networks.cnn(), place / "in.onnx"), place / f"{compensated}.onnx",
            target=0.5, calib=place / "images", recipe=recipe, allocate="uniform",
        )  # fmt: skip
        errors[compensated] = result.validation.outputs[0].kl
    assert errors[True] is not None
    assert errors[False] is not None
    assert errors[True] < 0.7 * errors[False]
