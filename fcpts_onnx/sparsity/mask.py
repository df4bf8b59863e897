"""LEARN: the hard mask forward and its derivative backward, Eq. 1, 2 and 14; masks by count."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["apply_mask", "apply_threshold", "kth_smallest", "mask_of_smallest"]


def apply_threshold(weights: Tensor, threshold: Tensor) -> Tensor:
    """M * W with M = 0.5 sgn(|W| - t) + 0.5, Eq. 1 and 2.

    Backward the sign passes its gradient where its argument lies within 1, as the published code
    has it, so that each weight moves the threshold (Eq. 14) and a masked one is still pulled by
    0.5 |W| of its gradient.
    """
    mask: Tensor = _Sign.apply(weights.abs() - threshold)
    return (0.5 * mask + 0.5) * weights


def mask_of_smallest(sizes: Tensor, zeros: int) -> Tensor:
    """A mask with exactly `zeros` zeros, where `sizes` are smallest; of ties the first ones.

    It lies in memory as `sizes` do: at every step it multiplies what does too.
    """
    flat = sizes.flatten()
    if zeros == 0:
        return torch.ones_like(sizes)
    threshold = kth_smallest(flat, zeros)
    mask = flat > threshold
    surplus = flat.numel() - int(mask.sum()) - zeros
    if surplus:
        ties = (flat == threshold).nonzero().flatten()
        mask[ties[-surplus:]] = True
    return torch.empty_like(sizes).copy_(mask.view(sizes.shape))


def apply_mask(mask: Tensor, values: Tensor) -> Tensor:
    """M * W with exactly the mask's zeros: one that happens to be zero would be one too many."""
    kept = torch.where(values == 0, torch.finfo(values.dtype).tiny, values)
    return torch.where(mask != 0, kept, 0.0)


def kth_smallest(values: Tensor, k: int) -> Tensor:
    """The k-th smallest value, counted from 1, as a scalar tensor."""
    flat = values.detach().flatten()
    if flat.device.type != "cpu":
        return flat.kthvalue(k).values
    # Numpy's is five to eight times as fast, and needs no array of places.
    return torch.from_numpy(np.partition(flat.numpy(), k - 1)[k - 1 : k]).squeeze()


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
