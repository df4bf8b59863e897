"""Rivals that learn thresholds or masks: their formulas, and where they end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from fcpts_onnx.methods.ltp import LearnedThresholds
from fcpts_onnx.methods.probmask import ProbabilisticMasks
from fcpts_onnx.methods.soft_threshold import SoftThresholds
from fcpts_onnx.recipe import Recipe
from fcpts_onnx.sparsity.budget import Budget
from fcpts_onnx.sparsity.task import Task
from fcpts_onnx.sparsity.thresholds import Thresholds
from fcpts_onnx.weights import Weight

VALUES = {"a": torch.tensor([[0.1, -0.3, 0.5, -0.7, 0.9]])}


def task(values: dict[str, Tensor], target: float, recipe: Recipe) -> Task:
    weights = [
        Weight(name, tuple(value.shape), "float32", "Gemm", ("n",), 0, 0)
        for name, value in values.items()
    ]
    return Task(None, None, weights, Budget.of(weights, target), recipe, ())


def parameters(thresholds: Thresholds) -> list[torch.nn.Parameter]:
    (group,) = thresholds.groups(Recipe())
    return list(group["params"])


def test_str_takes_the_threshold_off() -> None:
    recipe = replace(Recipe.load("str"), threshold_start=float(np.log(0.4 / 0.6)))
    thresholds = SoftThresholds(VALUES, task(VALUES, 0.5, recipe))
    found = thresholds.masked(VALUES)["a"]
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.0, 0.1, -0.3, 0.5]]))
    found.sum().backward()
    # d/ds is -sign(w) g'(s) where |w| > g(s): here -1 + 1 - 1, times 0.24.
    (score,) = parameters(thresholds)
    assert float(score.grad) == pytest.approx(-0.4 * 0.6)
    assert torch.equal(thresholds.settle(VALUES)["a"], found)
    assert not thresholds.holds_target


def test_str_has_its_scores_decay() -> None:
    recipe = replace(Recipe.load("str"), weight_decay=0.1, learning_rate=1.0)
    thresholds = SoftThresholds(VALUES, task(VALUES, 0.5, recipe))
    optimizer = torch.optim.SGD(thresholds.groups(recipe), lr=1.0)
    (score,) = parameters(thresholds)
    score.grad = torch.zeros_like(score)
    optimizer.step()
    assert float(score.detach()) == pytest.approx(-8.0 * 0.9)


def test_ltp_softens_the_step_and_cuts_in_the_end() -> None:
    value = VALUES["a"].clone().requires_grad_()
    variance = float(value.detach().var(correction=0))
    recipe = replace(
        Recipe.load("ltp"), threshold_start=0.25 / variance, kernel=0.5, control_weight=2.0
    )
    thresholds = LearnedThresholds(VALUES, task(VALUES, 0.5, recipe))
    squares = value.detach().numpy() ** 2
    step = 1 / (1 + np.exp(-(squares - 0.25) / (0.5 * variance)))
    found = thresholds.masked({"a": value})["a"]
    np.testing.assert_allclose(found.detach().numpy(), value.detach().numpy() * step, rtol=1e-5)
    found.sum().backward()
    np.testing.assert_allclose(value.grad.numpy(), step, rtol=1e-5)  # not the step's own slope
    lost = thresholds.control_loss({"a": value})
    assert float(lost.detach()) == pytest.approx(2.0 * step.mean(), rel=1e-5)
    (tau,) = parameters(thresholds)
    tau.grad = None
    lost.backward()
    slope = -(step * (1 - step) / 0.5).mean() * 2.0
    assert float(tau.grad) == pytest.approx(slope, rel=1e-4)
    with torch.no_grad():
        tau.fill_(0.4 / variance)
    kept = thresholds.settle(VALUES)["a"]
    assert torch.equal(kept, torch.tensor([[0.0, 0.0, 0.0, -0.7, 0.9]]))
    assert not thresholds.holds_target


def test_probmask_projects_onto_what_may_be_left() -> None:
    values = {"a": torch.ones(4, 5), "b": torch.ones(2, 10)}
    recipe = replace(Recipe.load("probmask"), ramp=0.5)
    thresholds = ProbabilisticMasks(values, task(values, 0.6, recipe))
    one, other = parameters(thresholds)
    with torch.no_grad():
        one.fill_(0.9)
        other.fill_(0.3)
    thresholds.begin_step(values, 0.13)  # nothing is asked for before 4/15 of the ramp
    torch.testing.assert_close(one.detach(), torch.full((4, 5), 0.9))
    thresholds.begin_step(values, 0.5)
    # 16 of 40 are left: 20 (0.9 - v) + 20 relu(0.3 - v) = 16 at v = 0.2.
    torch.testing.assert_close(one.detach(), torch.full((4, 5), 0.7), atol=1e-4, rtol=0)
    torch.testing.assert_close(other.detach(), torch.full((2, 10), 0.1), atol=1e-4, rtol=0)
    settled = thresholds.settle(values)
    zeros = {name: int((value == 0).sum()) for name, value in settled.items()}
    assert zeros == {"a": 6, "b": 18}  # two channels of b keep one weight each


def test_probmask_draws_masks_with_their_probabilities() -> None:
    values = {"a": torch.ones(100, 100)}
    thresholds = ProbabilisticMasks(values, task(values, 0.3, Recipe.load("probmask")))
    (kept,) = parameters(thresholds)
    assert float(thresholds.masked(values)["a"].detach().min()) > 0.5  # all are certain at first
    with torch.no_grad():
        kept.fill_(0.7)
    thresholds.begin_step(values, 0.9)
    masks = thresholds.masked(values)["a"]
    assert float((masks.detach() > 0.5).float().mean()) == pytest.approx(0.7, abs=0.02)
    masks.sum().backward()
    assert float(kept.grad.min()) >= 0.0
    assert float(kept.grad.mean()) > 0.1


def test_probmask_ends_with_masks_that_stay() -> None:
    values = {"a": torch.ones(4, 5)}
    thresholds = ProbabilisticMasks(values, task(values, 0.6, Recipe.load("probmask")))
    (kept,) = parameters(thresholds)
    with torch.no_grad():
        kept.copy_(torch.arange(20).reshape(4, 5) / 20)
    thresholds.begin_step(values, 0.94)
    masked = thresholds.masked(values)["a"]
    assert masked.flatten().tolist() == [0.0] * 12 + [1.0] * 8
    with torch.no_grad():
        kept.copy_(1 - kept)
    thresholds.begin_step(values, 0.99)
    assert torch.equal(thresholds.masked(values)["a"], masked)
    assert torch.equal(thresholds.settle(values)["a"], masked)


def test_probmask_lets_no_zero_come_back() -> None:
    value = torch.tensor([[0.0, 1.0, 1.0, 1.0, 1.0, 1.0]])
    weights = [Weight("a", (1, 6), "float32", "Gemm", ("n",), 0, 1)]
    budget = Budget.of(weights, 0.5)
    chosen = Task(None, None, weights, budget, Recipe.load("probmask"), ())
    found = ProbabilisticMasks({"a": value}, chosen).settle({"a": value})["a"]
    assert float(found[0, 0]) == 0.0
    assert int((found == 0).sum()) == 3


def test_probmask_lets_what_is_gone_come_back() -> None:
    values = {"a": torch.ones(100, 100)}
    thresholds = ProbabilisticMasks(values, task(values, 0.3, Recipe.load("probmask")))
    (kept,) = parameters(thresholds)
    with torch.no_grad():
        kept.zero_()
    thresholds.masked(values)["a"].sum().backward()
    # The slope of the logit at the edge times that of the sigmoid there: m (1 - m) / edge.
    assert float(kept.grad.mean()) > 0.1


def test_ltp_takes_a_layer_of_zeros() -> None:
    values = {"a": torch.zeros(3, 3), "b": torch.ones(1, 1)}
    thresholds = LearnedThresholds(values, task(values, 0.5, Recipe.load("ltp")))
    assert all(bool(value.isfinite().all()) for value in thresholds.masked(values).values())
    assert bool(thresholds.control_loss(values).isfinite())
