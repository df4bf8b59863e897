"""LEARN: the hard mask forward and its derivative backward, Eq. 1, 2 and 14."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["apply_threshold"]


def apply_threshold(weights: Tensor, threshold: Tensor) -> Tensor:
    """M * W with M = 0.5 sgn(|W| - t) + 0.5, Eq. 1 and 2.

    Backward the sign passes its gradient where its argument lies within 1, as the published code
    has it, so that each weight moves the threshold (Eq. 14) and a masked one is still pulled by
    0.5 |W| of its gradient.
    """
    mask: Tensor = _Sign.apply(weights.abs() - threshold)
    return (0.5 * mask + 0.5) * weights


class _Sign(torch.autograd.Function):
    """sgn with +1 for positive values and -1 otherwise; the gradient passes within (-1, 1)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return torch.where(values > 0, 1.0, -1.0).to(values.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (values,) = ctx.saved_tensors
        return gradients[0] * (values.abs() < 1)
