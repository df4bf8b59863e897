"""Rules that share zeros among layers, against cases worked out by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper

from fcpts_onnx.calibration import load_calibration
from fcpts_onnx.errors import TargetError
from fcpts_onnx.methods import ALLOCATIONS, allocated, allocation
from fcpts_onnx.methods.lamp import lamp_score
from fcpts_onnx.methods.stored import check_rates
from fcpts_onnx.preprocess import PRESETS
from fcpts_onnx.recipe import Recipe
from fcpts_onnx.sparsity.budget import Budget
from fcpts_onnx.sparsity.losses import Head
from fcpts_onnx.sparsity.task import Task
from fcpts_onnx.twin import Twin
from fcpts_onnx.weights import find_weights
from tests import networks
from tests.networks import loaded, values

SMALL = np.array([[1, -2], [3, -4]], np.float32)
LARGE = np.array([[10, 20, 30], [-40, 50, 60]], np.float32)


def task_of(tmp_path: Path, target: float, *arrays: np.ndarray, loss: str = "mse") -> Task:
    """Layers one behind the other: x -> a @ w0 -> @ w1 ..."""
    names = [f"w{place}" for place in range(len(arrays))]
    ends = ["x", *(f"h{place}" for place in range(1, len(arrays))), "y"]
    nodes = [
        helper.make_node("MatMul", [ends[place], name], [ends[place + 1]])
        for place, name in enumerate(names)
    ]
    shapes = {"x": ["N", arrays[0].shape[0]]}, {"y": ["N", arrays[-1].shape[1]]}
    proto = networks.make(nodes, dict(zip(names, arrays, strict=True)), *shapes)
    model = loaded(proto, tmp_path / "m.onnx")
    weights = find_weights(model)
    calibration = load_calibration(
        [values(64, arrays[0].shape[0], scale=1.0)], model, PRESETS["raw"]
    )
    head = Head("y", loss, probabilities=False)
    budget = Budget.of(weights, target)
    return Task(Twin(model, names), calibration, weights, budget, Recipe(), [head])


def found(name: str, task: Task) -> list[float]:
    return list(ALLOCATIONS[name](task).values())


def test_uniform(tmp_path: Path) -> None:
    assert found("uniform", task_of(tmp_path, 0.5, SMALL, LARGE)) == [2, 3]


def test_magnitude(tmp_path: Path) -> None:
    task = task_of(tmp_path, 0.5, SMALL, LARGE)
    assert found("global", task) == [4, 1]
    # |w| / L1: .1 .2 .3 .4 and .048 .095 .143 .190 .238 .286; / L2: .18 .37 .55 .73 and .10 .21 ...
    assert found("l1norm", task) == [1, 4]
    assert found("l2norm", task) == [2, 3]


def test_ties_are_shared(tmp_path: Path) -> None:
    equal = np.ones((2, 2), np.float32)
    assert found("global", task_of(tmp_path, 0.5, equal, equal)) == [2, 2]


def test_a_layer_of_zeros(tmp_path: Path) -> None:
    task = task_of(tmp_path, 0.6, np.zeros((4, 2), np.float32), values(2, 16))
    assert found("l2norm", task)[0] == 8


def test_lamp(tmp_path: Path) -> None:
    """Scores are 1/30, 4/29, 9/25, 1 and 1/91, 4/90, 9/86, 16/77, 25/61, 1."""
    np.testing.assert_allclose(lamp_score(torch.from_numpy(SMALL)), [[1 / 30, 4 / 29], [9 / 25, 1]])
    assert found("lamp", task_of(tmp_path, 0.5, SMALL, LARGE)) == [2, 3]


def test_erk(tmp_path: Path) -> None:
    """Kept weights in proportion to rows plus columns, as far as there are any."""
    wide = values(32, 32)
    task = task_of(tmp_path, 0.5, wide, wide)
    assert found("erk", task) == [512, 512]
    task = task_of(tmp_path, 0.9, values(8, 32), wide)  # 128 kept: 40 parts of 104 and 64
    np.testing.assert_allclose(found("erk", task), [256 - 128 * 40 / 104, 1024 - 128 * 64 / 104])
    task = task_of(tmp_path, 0.5, values(2, 32), wide)  # 544 kept: 34 parts of 98 are 189 of 64
    np.testing.assert_allclose(found("erk", task), [0, 1024 - 480])


def test_erk_where_all_stays_dense(tmp_path: Path) -> None:
    """However the shares are rounded."""
    for rows in range(3, 40):
        task = task_of(tmp_path, 0.5, values(rows, 7))
        task = replace(task, budget=replace(task.budget, zeros=0))
        assert found("erk", task) == [0]


def test_fisher_of_two_linear_layers(tmp_path: Path) -> None:
    """y = (x A) B with Gaussian noise: for A it is E[x^2] mean |B_k|^2, for B E[(x A)^2]."""
    first, second = values(8, 32), values(32, 16, seed=1, scale=0.2)
    task = task_of(tmp_path, 0.5, first, second)
    x = values(64, 8, scale=1.0)
    costs = [
        first**2 * np.square(x).mean() * np.square(second).sum(1).mean(),
        second**2 * np.square(x @ first).mean(),
    ]
    least = np.sort(np.concatenate([cost.ravel() for cost in costs]))[task.budget.zeros]
    expected = [int((cost < least).sum()) for cost in costs]
    assert abs(expected[0] - 128) > 20  # else any factor would do
    assert found("fisher", task) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("loss", ["mse", "kl", "bce"])
def test_fisher_sees_through_scales(loss: str, tmp_path: Path) -> None:
    """One layer ten times as large and the next a tenth: the same network, so the same zeros."""
    first, second = values(8, 8), values(8, 8, seed=1)
    plain = task_of(tmp_path, 0.5, first, second, loss=loss)
    scaled = task_of(tmp_path, 0.5, 10 * first, second / 10, loss=loss)
    assert found("fisher", plain) == pytest.approx(found("fisher", scaled))
    assert sum(found("fisher", plain)) == pytest.approx(64)
    assert found("global", plain) != found("global", scaled)


def test_fisher_of_a_number_a_sample(tmp_path: Path) -> None:
    """The variance is that over samples; within one there is none."""
    zeros = found("fisher", task_of(tmp_path, 0.5, values(8, 8), values(8, 1)))
    assert sum(zeros) == pytest.approx(36)


def test_fisher_asks_the_outputs_alone(tmp_path: Path) -> None:
    task = task_of(tmp_path, 0.5, values(8, 8), values(8, 8, seed=1))
    watching = replace(task, features=(Head("h1", "mse", weight=10.0, spread=1.0),))
    assert found("fisher", watching) == found("fisher", task)


@pytest.mark.parametrize("name", ALLOCATIONS)
def test_every_rule_meets_the_budget(name: str, tmp_path: Path) -> None:
    task = task_of(tmp_path, 0.7, values(8, 32), values(32, 16), values(16, 4))
    zeros = allocated(task, allocation(name)).zeros
    assert zeros is not None
    assert sum(zeros.values()) == task.budget.zeros == round(0.7 * (256 + 512 + 64))


def test_rates_from_a_file(tmp_path: Path) -> None:
    task = task_of(tmp_path, 0.5, values(4, 4), values(4, 4))
    path = tmp_path / "rates.json"
    path.write_text(json.dumps({"w0": 0.25, "w1": 0.75}))
    assert allocated(task, allocation(str(path))).zeros == {"w0": 4, "w1": 12}
    path.write_text(json.dumps({"validation": {"weights": [
        {"name": "w0", "rate": 0.5}, {"name": "w1", "rate": 0.5},
    ]}}))  # fmt: skip
    assert allocated(task, allocation(str(path))).zeros == {"w0": 8, "w1": 8}
    more = replace(task, budget=Budget.of(task.weights, 0.75))
    assert allocated(more, allocation(str(path))).zeros == {"w0": 12, "w1": 12}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"w0": 0.5, "x": 1}',
            "has no rate for w1: add one for each; has rates for x, not pruned here: remove them.",
        ),
        ('{"w0": 0.5, "w1": 0, "x": 1}', "rates.json: has rates for x, not pruned here: remove"),
        ('{"w0": 0.5, "w1": 1.5}', "the rate of w1 is not between 0 and 1"),
        ("[1, 2]", "expected rates by weight, such as"),
        ('{"validation": {"weights": [{"name": "w0", "rate": null}]}}', "expected rates by weight"),
        ('{"validation": {}}', "expected rates by weight, such as"),
        ("w0: 0.5", "cannot be read as rates"),
    ],
)
def test_bad_files(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rates.json"
    path.write_text(text)
    with pytest.raises(TargetError, match=message):
        check_rates(path, ["w0", "w1"])


def test_an_unknown_rule() -> None:
    with pytest.raises(TargetError, match="--allocate best is unknown; expected learned, uniform"):
        allocation("best")
