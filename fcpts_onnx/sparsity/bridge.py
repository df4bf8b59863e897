"""LEARN: the bridge between a layer's threshold and its sparsity rate, Eq. 10-13: pure functions.

The paper takes n = 100 points and a bandwidth of h = 0.5. Trained weights spread over some 0.05,
so at h = 0.5 the kernel is far wider than they are and the density is nearly flat; the bandwidth
here follows the points unless a number is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "DEAD",
    "Density",
    "bandwidth",
    "density_at",
    "histogram_density",
    "in_order",
    "kde_density",
    "marginal_cost",
    "rate",
    "sample",
]

Density = Callable[[Tensor, Tensor], Tensor]
"""(weights, threshold) -> p(t) + p(-t)."""

DEAD = torch.finfo(torch.float32).eps
"""How small a weight is, relative to others, that makes no difference beside them."""


def in_order(weights: Tensor) -> Tensor:
    """All weights in order of size, which takes longest of what a density needs."""
    return weights.detach().flatten().sort().values


def sample(ordered: Tensor, points: int) -> Tensor:
    """Every so-many-th weight in order of size: `points` of them, the same each time."""
    # In float32, the last of more than 2^24 places would lie beyond them.
    places = torch.linspace(0, len(ordered) - 1, min(points, len(ordered)), dtype=torch.float64)
    return ordered[places.round().long().to(ordered.device)]


def bandwidth(points: Tensor) -> Tensor:
    """Silverman's rule of thumb: h = 0.9 min(std, IQR / 1.34) n^(-1/5), in units of the weights.

    It is for the n points that a kernel lies on, in order of size, not for all weights that these
    stand for: between so few, kernels as narrow as for a million leave gaps in the tails.
    """
    values = points.float()
    low, high = (values[round(share * (len(values) - 1))] for share in (0.25, 0.75))
    spread = torch.minimum(values.std(correction=0), (high - low) / 1.34)
    spread = torch.where(spread > 0, spread, values.std(correction=0))
    return (0.9 * spread * len(values) ** -0.2).clamp_min(torch.finfo(torch.float32).tiny)


def kde_density(points: Tensor, threshold: Tensor, h: float = 0.0) -> Tensor:
    """dr/dt = p(t) + p(-t) by Eq. 11, with the normal kernel of Eq. 12."""
    return density_at(torch.stack([threshold, -threshold]), points, h).sum()


def density_at(places: Tensor, points: Tensor, h: float = 0.0) -> Tensor:
    """p of Eq. 11 at some places: the mean of a normal kernel around each point.

    Args:
        places: values of a weight, of shape (places,).
        points: of a layer's weights, in order of size, of shape (points,).
        h: the kernel's bandwidth in units of the weights; 0 follows the points.
    """
    width = h or bandwidth(points)
    z = (places[:, None] - points) / width
    return (torch.exp(-0.5 * z**2) / (width * math.sqrt(2 * math.pi))).mean(1)


def histogram_density(weights: Tensor, threshold: Tensor, bins: int = 100) -> Tensor:
    """dr/dt = p(t) + p(-t) from a histogram of the weights, as in the published code."""
    values = weights.detach().flatten().float()
    low, high = values.min(), values.max()
    counts = torch.histc(values, bins, low.item(), high.item())
    width = ((high - low) / bins).clamp_min(torch.finfo(torch.float32).tiny)
    density = counts / (counts.sum() * width)
    places = torch.stack([threshold, -threshold]).sub(low).div(width).floor().long()
    inside = (places >= 0) & (places < bins)
    return (density[places.clamp(0, bins - 1)] * inside).sum()


def rate(weights: Tensor, threshold: Tensor, density: Density) -> Tensor:
    """The share of weights below the threshold, counted; its derivative is the density's."""
    result: Tensor = _CountedRate.apply(threshold, weights.detach(), density)
    return result


class _CountedRate(torch.autograd.Function):
    """A count forward, the bridge's derivative backward."""

    @staticmethod
    def forward(ctx: Any, threshold: Tensor, weights: Tensor, density: Density) -> Tensor:
        ctx.save_for_backward(density(weights, threshold.detach()))
        return (weights.abs() <= threshold).float().mean()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (density,) = ctx.saved_tensors
        return gradients[0] * density, None, None


def marginal_cost(
    weights: Tensor, mask: Tensor, gradient: Tensor, threshold: Tensor, width: float
) -> tuple[Tensor, Tensor]:
    """What one more zero in a layer costs: dL/dr of Eq. 9 per weight, as (sum of costs, mass).

    dL/dr = (dL/dt) / (dr/dt). Both derivatives are taken with the same normal kernel on the
    distance of each weight's size from the threshold: of Eq. 14, dM/dt = -K((|w| - t) / h) / h,
    since only weights near the threshold change side, and of Eq. 11, dr/dt = mean of K / h. What
    is left is the kernel's mean of -dL/d(M w) w over the weights near the threshold.

    Only those already zero are counted: what they would gain by coming back. Weights that are
    kept move with every step; around a minimum of curvature h their gradient and their motion
    d go together, E[g w] = h E[d^2], which has nothing to do with what pruning them would cost
    and hides it at high learning rates. Those that were dead before cost nothing, and say nothing
    of the next one.

    Args:
        weights: before the mask.
        mask: 1 where a weight is kept, 0 where it is zero.
        gradient: of the loss with respect to the masked weights, of the same shape.
        threshold: t, as a scalar tensor.
        width: h relative to t.
    """
    sizes = weights.abs()
    distance = (sizes - threshold) / (width * threshold).clamp_min(1e-12)
    kernel = torch.exp(-0.5 * distance.square()) * (1 - mask) * (sizes > DEAD * threshold)
    return -(kernel * gradient * weights).sum(), kernel.sum()
