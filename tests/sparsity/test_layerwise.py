"""Layer after layer: what the layers before have made of the samples is kept, or made anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper

import fcpts_onnx
from fcpts_onnx.along import learned_along
from fcpts_onnx.calibration import load_calibration
from fcpts_onnx.methods import allocated, allocation, recovered
from fcpts_onnx.model import Model, load
from fcpts_onnx.preprocess import PRESETS
from fcpts_onnx.recipe import Recipe
from fcpts_onnx.sparsity import layerwise
from fcpts_onnx.sparsity.budget import Budget
from fcpts_onnx.sparsity.losses import Head
from fcpts_onnx.sparsity.task import Task
from fcpts_onnx.twin import Twin
from fcpts_onnx.weights import find_weights
from tests import networks
from tests.networks import values


def residual() -> Task:
    """A network whose blocks are added to what they read, and a layer of constants alone."""
    constants = {f"w{place}": values(6, 6, 3, 3, seed=place) for place in range(4)}
    constants |= {f"b{place}": values(6, seed=place) for place in range(4)}
    constants |= {"first": values(6, 3, 3, 3), "table": values(1, 4), "u": values(4, 6)}
    nodes = [helper.make_node("Conv", ["x", "first"], ["r0"], pads=[1] * 4)]
    for place in range(4):
        names = [f"r{place}", f"w{place}", f"b{place}"]
        nodes += [
            helper.make_node("Conv", names, [f"c{place}"], pads=[1] * 4),
            helper.make_node("Relu", [f"c{place}"], [f"a{place}"]),
            helper.make_node("Add", [f"a{place}", f"r{place}"], [f"r{place + 1}"]),
        ]
    nodes += [
        helper.make_node("GlobalAveragePool", ["r4"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("MatMul", ["table", "u"], ["t"]),
        helper.make_node("Add", ["f", "t"], ["scores"]),
    ]
    proto = networks.make(nodes, constants, {"x": ["N", 3, 8, 8]}, {"scores": ["N", 6]})
    model = Model(Path("m.onnx"), proto)
    weights = [weight for weight in find_weights(model) if weight.name != "table"]
    twin = Twin(model, [weight.name for weight in weights] + learned_along(model, weights))
    calibration = load_calibration([values(40, 3, 8, 8, scale=1.0)], model, PRESETS["raw"])
    budget = Budget.of(weights, 0.5)
    recipe = Recipe(batch_size=16)
    return Task(twin, calibration, weights, budget, recipe, (Head("scores", "kl"),))


@pytest.mark.parametrize("room", [0, 60_000])  # for nothing; for what few layers wait for
def test_what_does_not_fit_into_memory_is_made_anew(
    room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = allocated(residual(), allocation("uniform"))
    kept = recovered(task, "layerwise")
    monkeypatch.setattr(layerwise, "_MOST_KEPT", room)
    anew = recovered(task, "layerwise")
    assert kept.tensors.keys() == anew.tensors.keys()
    for name, value in kept.tensors.items():
        torch.testing.assert_close(value, anew.tensors[name], rtol=0, atol=0)
    errors = [entry.loss for entry in kept.history]
    assert errors == [entry.loss for entry in anew.history]
    assert all(0 <= error < 0.7 for error in errors)


@pytest.mark.parametrize("way", ["layerwise", "sparsegpt", "wanda"])
def test_a_batch_of_1_in_the_graph_changes_nothing(way: str, tmp_path: Path) -> None:
    """It is gone through sample by sample."""
    found = []
    for baked in (False, True):
        path = networks.save(networks.cnn(baked=baked), tmp_path / f"{baked}.onnx")
        result = fcpts_onnx.prune(
            path, tmp_path / f"{baked}_sparse.onnx", target=0.5, allocate="uniform",
            reconstruct=way, calib=[values(24, 3, 8, 8, scale=1.0)],
        )  # fmt: skip
        assert result.parity.per_sample is baked
        found.append(load(tmp_path / f"{baked}_sparse.onnx"))
    for name in ("conv.w", "depthwise.w", "fc.w", "fc.b"):
        batched, alone = (model.array(name) for model in found)
        np.testing.assert_allclose(alone, batched, rtol=1e-3, atol=1e-5)
        assert np.array_equal(alone == 0, batched == 0)


def test_a_layer_of_few_places_takes_more_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """One vector a sample for six inputs; others have their places in the first samples."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "u"], ["y"]),
    ]
    constants = {"w": values(6, 3, 3, 3), "u": values(6, 4)}
    proto = networks.make(nodes, constants, {"x": ["N", 3, 10, 10]}, {"y": ["N", 4]})
    model = Model(Path("m.onnx"), proto)
    weights = find_weights(model)
    twin = Twin(model, [weight.name for weight in weights])
    calibration = load_calibration([values(40, 3, 10, 10)], model, PRESETS["raw"])
    budget, recipe = Budget.of(weights, 0.5), Recipe(batch_size=4)
    task = Task(twin, calibration, weights, budget, recipe, ())
    task = allocated(task, allocation("uniform"))
    seen: list[layerwise.Moments] = []

    def noted(rows: torch.Tensor, moments: layerwise.Moments, _: int) -> layerwise.Sparse:
        seen.append(moments)
        return layerwise.Sparse(rows, torch.ones_like(rows))

    for samples in (40, 8, 12):  # 12 are twice the inputs
        monkeypatch.setattr(layerwise, "_SAMPLES", samples)
        layerwise.layer_by_layer(task, noted)
    every, of_all, some, of_some, _, of_enough = (moments.inputs for moments in seen)
    assert not torch.allclose(every, some)
    torch.testing.assert_close(of_all, of_some)
    assert not torch.allclose(of_all, of_enough)


def test_rounding_of_large_means_does_not_count() -> None:
    """With a bias that may move, weights are those for the same samples around zero."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["y"]),
    ]
    constants = {"w": values(8, 6), "b": values(6)}
    proto = networks.make(nodes, constants, {"x": ["N", 8]}, {"y": ["N", 6]})
    model = Model(Path("m.onnx"), proto)
    weights = find_weights(model)
    near = values(400, 8, scale=0.01)
    found = []
    for samples in (near, (near + 50).astype(np.float32)):
        calibration = load_calibration([samples], model, PRESETS["raw"])
        task = Task(
            Twin(model, ["w", "b"]), calibration, weights, Budget.of(weights, 0.5), Recipe(), (),
            zeros={"w": 24},
        )  # fmt: skip
        found.append(recovered(task, "layerwise").tensors["w"])
    torch.testing.assert_close(found[1], found[0], rtol=0.01, atol=0.001)
