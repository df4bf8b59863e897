"""TWIN: sliding windows: the padding that Conv, ConvTranspose and the pools have in common."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

__all__ = ["Pads", "ceil_surplus", "pad", "resolve_pads", "spread"]

Pads = list[tuple[int, int]]
"""Padding before and after, one pair a spatial axis."""


def spread(values: Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """An optional per-axis attribute: one value an axis, 1 where it is left out."""
    return tuple(values) if values else (1,) * rank


def resolve_pads(
    auto_pad: str,
    pads: Sequence[int] | None,
    size: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> Pads:
    """The padding an operator states by `pads`, or by `auto_pad` for an input of this size."""
    rank = len(kernel)
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        found = []
        for length, k, stride, dilation in zip(size, kernel, strides, dilations, strict=True):
            outputs = -(-length // stride)
            total = max(0, (outputs - 1) * stride + (k - 1) * dilation + 1 - length)
            small, large = total // 2, total - total // 2
            found.append((small, large) if auto_pad == "SAME_UPPER" else (large, small))
        return found
    if auto_pad == "VALID" or not pads:
        return [(0, 0)] * rank
    return list(zip(pads[:rank], pads[rank:], strict=True))


def ceil_surplus(
    size: Sequence[int],
    pads: Pads,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> list[int]:
    """How far the last window reaches over the padded end when sizes are rounded up.

    A window that would start behind the input and its leading padding is left out.
    """
    surplus = []
    for length, (before, after), k, stride, dilation in zip(
        size, pads, kernel, strides, dilations, strict=True
    ):
        reach = (k - 1) * dilation + 1
        room = length + before + after - reach
        windows = -(-room // stride) + 1
        if (windows - 1) * stride >= length + before:
            windows -= 1
        surplus.append(max(0, (windows - 1) * stride - room))
    return surplus


def pad(x: Tensor, pads: Pads, value: float = 0.0) -> Tensor:
    """Pad the last axes; torch lists them from the last to the first. Negative pads cut."""
    if not any(before or after for before, after in pads):
        return x
    return F.pad(x, [side for pair in reversed(pads) for side in pair], value=value)
