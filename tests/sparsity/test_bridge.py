"""The bridge: density, rate and their derivatives, against counting and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fcpts_onnx.sparsity.bridge import (
    bandwidth,
    histogram_density,
    in_order,
    kde_density,
    marginal_cost,
    rate,
    sample,
)

WEIGHTS = torch.from_numpy(np.random.default_rng(0).normal(size=20000) * 0.05).float()
ORDERED = in_order(WEIGHTS)
THRESHOLDS = [0.01, 0.03, 0.05, 0.1]


def normal_density(t: float) -> float:
    """p(t) + p(-t) of what the weights were drawn from."""
    return 2 * np.exp(-0.5 * (t / 0.05) ** 2) / (0.05 * np.sqrt(2 * np.pi))


@pytest.mark.parametrize("t", THRESHOLDS)
def test_density_of_known_weights(t: float) -> None:
    points = sample(ORDERED, 100)
    found = kde_density(points, torch.tensor(t))
    assert float(found) == pytest.approx(normal_density(t), rel=0.15)
    counted = histogram_density(WEIGHTS, torch.tensor(t))
    assert float(counted) == pytest.approx(normal_density(t), rel=0.25)


@pytest.mark.parametrize("share", [0.7, 0.9, 0.95, 0.97])
def test_density_in_the_tails_of_a_large_layer(share: float) -> None:
    """The kernel is as wide as 100 points need, however many weights they stand for."""
    weights = torch.from_numpy(np.random.default_rng(0).normal(size=1_000_000) * 0.05).float()
    t = weights.abs().kthvalue(round(share * len(weights))).values
    found = kde_density(sample(in_order(weights), 100), t)
    assert float(found) == pytest.approx(normal_density(float(t)), rel=0.2)


def smooth_rate(points: torch.Tensor, t: float, h: float) -> float:
    """r(t), Eq. 10: the integral of Eq. 12's density from -t to t."""
    upper = torch.special.ndtr((t - points) / h)
    lower = torch.special.ndtr((-t - points) / h)
    return float((upper - lower).mean())


@pytest.mark.parametrize("t", THRESHOLDS)
def test_density_is_the_derivative_of_the_rate(t: float) -> None:
    points, h, step = sample(ORDERED, 100).double(), 0.01, 1e-6
    slope = (smooth_rate(points, t + step, h) - smooth_rate(points, t - step, h)) / (2 * step)
    density = kde_density(points, torch.tensor(t, dtype=torch.float64), h)
    assert slope == pytest.approx(float(density), rel=1e-6)


def test_rate_counts_and_passes_the_density_back() -> None:
    weights = torch.tensor([-3.0, -1.0, 0.0, 0.5, 2.0])
    threshold = torch.tensor(1.0, requires_grad=True)
    found = rate(weights, threshold, lambda *_: torch.tensor(7.0))
    assert float(found.detach()) == pytest.approx(0.6)
    (3 * found).backward()
    assert float(threshold.grad) == 21.0


def test_the_papers_bandwidth_is_far_too_wide_and_ours_is_not() -> None:
    points, t = sample(ORDERED, 100), 0.03
    exact = float((WEIGHTS.abs() <= t).float().mean())
    assert smooth_rate(points, t, 0.5) < exact / 5
    assert smooth_rate(points, t, float(bandwidth(points))) == pytest.approx(exact, rel=0.15)


def test_sample_keeps_the_distribution() -> None:
    points = sample(ORDERED, 100)
    assert len(points) == 100
    assert points[0] == WEIGHTS.min()
    assert points[-1] == WEIGHTS.max()
    assert float(points.median()) == pytest.approx(float(WEIGHTS.median()), abs=1e-3)
    assert len(sample(ORDERED[:7], 100)) == 7


def test_sample_of_more_weights_than_float32_can_count() -> None:
    assert sample(torch.arange(2**24 + 4, dtype=torch.int32), 100)[-1] == 2**24 + 3


@pytest.mark.parametrize("weights", [torch.zeros(50), torch.tensor([0.0] * 49 + [1.0])])
def test_degenerate_weights_have_finite_densities(weights: torch.Tensor) -> None:
    t = torch.tensor(0.5)
    assert bandwidth(weights) > 0
    assert torch.isfinite(kde_density(weights, t))
    assert torch.isfinite(histogram_density(weights, t))


def test_histogram_beyond_the_weights_is_zero() -> None:
    assert float(histogram_density(WEIGHTS, torch.tensor(9.0))) == 0.0


def test_marginal_cost_is_what_one_more_zero_costs() -> None:
    # L = sum of c_i (w_i - m_i w_i)^2: a weight kept costs nothing, without it c_i w_i^2.
    weights = torch.linspace(-2, 2, 40001)
    mask = (weights.abs() > 1).float()
    masked = (weights * mask).requires_grad_()
    (3 * (weights - masked).square()).sum().backward()
    cost, mass = marginal_cost(weights, mask, masked.grad, torch.tensor(1.0), 0.005)
    # To first order a zero gains twice what it cost: dL/d(m w) = -2 c w there.
    assert float(cost / mass) == pytest.approx(6.0, rel=0.02)


def test_weights_that_are_kept_do_not_count() -> None:
    weights = torch.tensor([0.9, 1.1])
    gradient = torch.tensor([-2.0, 1000.0])
    cost, mass = marginal_cost(weights, torch.tensor([0.0, 1.0]), gradient, torch.tensor(1.0), 0.2)
    assert float(cost / mass) == pytest.approx(1.8)


def test_weights_that_were_dead_do_not_count() -> None:
    weights = torch.cat([torch.tensor([0.9]), torch.zeros(1000)])
    gradient = torch.full_like(weights, -2.0)
    cost, mass = marginal_cost(weights, weights * 0, gradient, torch.tensor(1.0), 0.3)
    assert float(cost / mass) == pytest.approx(1.8)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_bandwidth_of_a_few_weights(count: int) -> None:
    """Silverman's rule needs quartiles, which any number of values has."""
    assert torch.isfinite(bandwidth(in_order(WEIGHTS[:count])))
    assert (bandwidth(in_order(WEIGHTS[:count])) > 1e-4) == (count > 1)
