"""Thresholds: where they start, where costs drive them, and that the budget always holds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fcpts_onnx.recipe import Recipe
from fcpts_onnx.sparsity.budget import Budget
from fcpts_onnx.sparsity.pattern import PATTERNS
from fcpts_onnx.sparsity.task import Task
from fcpts_onnx.sparsity.thresholds import (
    CostThresholds,
    FixedThresholds,
    ScoreThresholds,
    Thresholds,
)
from fcpts_onnx.weights import Weight

RECIPE = Recipe(interval=1, ramp=0.8, memory=0.5)
STEPS = 200


def layers(**scales: float) -> dict[str, Tensor]:
    generator = np.random.default_rng(0)
    return {
        name: torch.from_numpy(generator.normal(size=(20, 50)) * scale).float().requires_grad_()
        for name, scale in scales.items()
    }


def weights_of(values: dict[str, Tensor]) -> list[Weight]:
    return [
        Weight(name, tuple(value.shape), "float32", "Gemm", ("n",), 0, int((value == 0).sum()))
        for name, value in values.items()
    ]


def task(
    values: dict[str, Tensor],
    target: float,
    recipe: Recipe,
    densities: dict[str, float] | None = None,
    **options: object,
) -> Task:
    """What thresholds ask of a task: no network, no samples."""
    weights = weights_of(values)
    return Task(None, None, weights, Budget.of(weights, target, densities), recipe, (), **options)


def parameters(thresholds: Thresholds) -> list[nn.Parameter]:
    """What the optimizer is to move."""
    return [value for group in thresholds.groups(Recipe()) for value in group["params"]]


def zeros(masked: dict[str, Tensor]) -> dict[str, int]:
    return {name: int((value == 0).sum()) for name, value in masked.items()}


def learn(
    values: dict[str, Tensor],
    importance: dict[str, float],
    target: float,
    densities: dict[str, float] | None = None,
) -> dict[str, int]:
    """Run the loop on L = sum of importance (w - m w)^2, whose best thresholds are known."""
    thresholds = CostThresholds(values, task(values, target, RECIPE, densities))
    for step in range(STEPS):
        thresholds.begin_step(values, step / STEPS)
        masked = thresholds.masked(values)
        loss = sum(
            importance[name] * (values[name].detach() - masked[name]).square().sum()
            for name in values
        )
        loss.backward()
    return zeros(thresholds.settle(values))


def test_layers_of_equal_worth_end_at_equal_thresholds() -> None:
    found = learn(layers(wide=1.0, narrow=0.5), {"wide": 1.0, "narrow": 1.0}, 0.5)
    assert sum(found.values()) == 1000
    # |N(0, 1)| < t and |N(0, 0.5)| < t for 1000 of 2000 together at t = 0.481.
    assert found["wide"] == pytest.approx(370, abs=40)


def test_a_layer_that_matters_more_keeps_more() -> None:
    found = learn(layers(a=1.0, b=1.0), {"a": 1.0, "b": 9.0}, 0.5)
    # Equal costs: t_a = 3 t_b, which for normal weights is 0.793 and 0.207 of them.
    assert found["a"] == pytest.approx(775, abs=60)


def test_neither_scale_of_loss_nor_of_layers_matters() -> None:
    one = learn(layers(a=1.0, b=1.0), {"a": 1.0, "b": 4.0}, 0.6)
    assert learn(layers(a=1.0, b=1.0), {"a": 1e-6, "b": 4e-6}, 0.6) == one
    other = learn(layers(a=100.0, b=1.0), {"a": 1e-4, "b": 4.0}, 0.6)
    assert other["a"] == pytest.approx(one["a"], abs=2)


def test_sparsity_rises_along_the_ramp_and_stays() -> None:
    values = layers(a=1.0, b=0.2)
    thresholds = CostThresholds(values, task(values, 0.7, RECIPE))
    seen = []
    for step in range(STEPS):
        thresholds.begin_step(values, step / STEPS)
        seen.append(sum(zeros(thresholds.masked(values)).values()))
    assert seen[0] <= 2
    assert seen == sorted(seen)
    ramp = int(RECIPE.ramp * STEPS)
    assert seen[ramp // 2] == pytest.approx(1400 * 7 / 8, abs=2)
    assert set(seen[ramp:]) == {1400}


def test_a_layer_without_worth_is_not_emptied() -> None:
    found = learn(layers(a=1.0, b=1.0), {"a": 1.0, "b": 0.0}, 0.6)
    assert found["b"] == 1000 - 20
    assert sum(found.values()) == 1200


def test_what_a_bound_leaves_over_goes_by_thresholds() -> None:
    """The others share it as they do without the layer that has all it may have."""
    importance = {"a": 0.01, "b": 9.0, "c": 1.0}
    found = learn(layers(a=1.0, b=1.0, c=1.0), importance, 0.5, {"a": 0.7})
    others = layers(a=1.0, b=1.0, c=1.0)
    del others["a"]
    assert found == {"a": 300, **learn(others, importance, 1200 / 2000)}


@pytest.mark.parametrize("size", [0.0, 1e-13])
def test_a_layer_with_more_dead_weights_than_the_target_gets_zeros(size: float) -> None:
    """What is left of it is worth little, and goes before all others."""
    values = layers(a=1.0, b=1.0)
    with torch.no_grad():
        sizes = values["a"].abs()
        values["a"][sizes < sizes.flatten().kthvalue(801).values] = size
    found = learn(values, {"a": 1e-3, "b": 1.0}, 0.7)
    assert found == {"a": 1000 - 20, "b": 420}


def test_a_zero_where_a_pattern_has_no_room_leaves_costs_their_say() -> None:
    """Halfway, layers that matter less have more zeros, whatever lies in a third one."""
    values, pattern = layers(a=1.0, b=1.0), PATTERNS["2:4"]
    values["first"] = layers(first=1.0)["first"].detach()[:, :3].clone()
    values["first"][0, 0] = 0.0
    values["first"].requires_grad_()
    weights = [replace(weight, input_axis=1) for weight in weights_of(values)]
    budget = Budget.of(weights, None, pattern=pattern)
    given = Task(None, None, weights, budget, RECIPE, (), pattern=pattern)
    thresholds = CostThresholds(values, given)
    for step in range(STEPS // 5):
        thresholds.begin_step(values, step / STEPS)
        masked = thresholds.masked(values)
        lost = [(values[name].detach() - masked[name]).square().sum() for name in values]
        (lost[0] + 9 * lost[1] + lost[2]).backward()
    found = zeros(masked)
    assert found["first"] == 1
    assert found["a"] > 1.2 * found["b"]


def test_without_a_ramp_the_budget_is_met_at_once() -> None:
    values = layers(a=1.0, b=3.0)
    thresholds = CostThresholds(values, task(values, 0.5, replace(RECIPE, ramp=0.0)))
    thresholds.begin_step(values, 0.0)
    assert sum(zeros(thresholds.masked(values)).values()) == 1000


@pytest.mark.parametrize("density", ["kde", "histogram"])
def test_scores_move_by_the_gradient_of_the_control_loss(density: str) -> None:
    values = layers(a=0.05, b=0.05)
    recipe = Recipe(thresholds="score", density=density, threshold_start=-4.0)
    thresholds = ScoreThresholds(values, task(values, 0.7, recipe))
    optimizer = torch.optim.SGD(parameters(thresholds), lr=0.2)
    for _ in range(2000):
        loss = thresholds.control_loss(values)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.02
    assert sum(zeros(thresholds.settle(values)).values()) == 1400


def test_each_layer_is_sorted_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    values, sorts = layers(a=0.05, b=0.05), []
    thresholds = ScoreThresholds(values, task(values, 0.7, Recipe(thresholds="score")))
    monkeypatch.setattr(Tensor, "sort", lambda x: sorts.append(x) or torch.sort(x))
    thresholds.control_loss(values)
    assert len(sorts) == 2


def test_scores_start_without_zeros_and_settle_on_the_budget_all_the_same() -> None:
    values = layers(a=0.05, b=0.5)
    recipe = Recipe(thresholds="score")
    thresholds = ScoreThresholds(values, task(values, 0.9, recipe))
    assert sum(zeros(thresholds.masked(values)).values()) < 20
    settled = zeros(thresholds.settle(values))
    assert sum(settled.values()) == 1800
    assert max(settled.values()) <= 1000 - 20


def test_scores_start_where_they_are_told_to() -> None:
    """The threshold of just so many zeros; where there are none, the least one."""
    values = layers(a=0.05, b=0.5)
    values["b"].data[0, 0] = 3.0  # beyond what a sigmoid can reach
    start = {"a": 700, "b": 0}
    thresholds = ScoreThresholds(values, task(values, 0.5, Recipe(thresholds="score"), start=start))
    found = zeros(thresholds.masked(values))
    assert found["a"] == pytest.approx(700, abs=1)
    assert found["b"] <= 1


def test_a_high_score_leaves_a_layer_its_least_weights_and_a_gradient() -> None:
    values = layers(a=0.05)
    recipe = Recipe(thresholds="score", threshold_start=4.0)
    thresholds = ScoreThresholds(values, task(values, 0.5, recipe))
    thresholds.begin_step({name: value.detach() for name, value in values.items()}, 0.0)
    masked = thresholds.masked(values)
    assert int((masked["a"] != 0).sum()) == 20
    (masked["a"].sum() + thresholds.control_loss(values)).backward()
    assert float(parameters(thresholds)[0].grad) != 0.0


def test_given_counts_are_reached_along_the_ramp() -> None:
    values = layers(a=1.0, b=1.0)
    thresholds = FixedThresholds(values, task(values, 0.5, RECIPE, zeros={"a": 800, "b": 200}))
    seen = []
    for step in range(10):
        thresholds.begin_step(values, step / 10)
        seen.append(zeros(thresholds.masked(values)))
    assert seen[0] == {"a": 0, "b": 0}
    assert seen[4] == {"a": 700, "b": 175}  # half the ramp: 1 - 0.5^3
    assert seen[8] == seen[9] == {"a": 800, "b": 200}
    assert zeros(thresholds.settle(values)) == {"a": 800, "b": 200}


def test_given_counts_are_settled_where_the_ramp_was_cut_short() -> None:
    values = layers(a=1.0)
    thresholds = FixedThresholds(values, task(values, 0.8, RECIPE, zeros={"a": 800}))
    thresholds.begin_step(values, 0.1)
    assert 0 < zeros(thresholds.masked(values))["a"] < 800
    assert zeros(thresholds.settle(values)) == {"a": 800}


def test_scores_leave_alone_what_may_have_no_zeros() -> None:
    """A layer of one weight would give nothing while the others learn."""
    values = {**layers(a=0.05), "gain": torch.full((1, 1), 0.5, requires_grad=True)}
    recipe = Recipe(thresholds="score", threshold_start=4.0)
    thresholds = ScoreThresholds(values, task(values, 0.5, recipe))
    thresholds.begin_step({name: value.detach() for name, value in values.items()}, 0.0)
    assert zeros(thresholds.masked(values)) == {"a": 1000 - 20, "gain": 0}
