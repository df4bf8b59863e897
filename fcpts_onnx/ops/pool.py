"""TWIN: pooling in one, two and three dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fcpts_onnx.ops.registry import op
from fcpts_onnx.ops.windows import ceil_surplus, pad, resolve_pads, spread

__all__: list[str] = []

_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVG_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


@op("MaxPool")
def max_pool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    storage_order: int = 0,
    strides: Sequence[int] | None = None,
) -> Tensor:
    rank = len(kernel_shape)
    size, strides, dilations = x.shape[2:], spread(strides, rank), spread(dilations, rank)
    sides = resolve_pads(auto_pad, pads, size, kernel_shape, strides, dilations)
    if ceil_mode:
        surplus = ceil_surplus(size, sides, kernel_shape, strides, dilations)
        sides = [(a, b + more) for (a, b), more in zip(sides, surplus, strict=True)]
    # torch pads by itself on equal sides, up to half a window.
    if all(a == b and 2 * a <= k for (a, b), k in zip(sides, kernel_shape, strict=True)):
        padding = [before for before, _ in sides]
    else:
        x, padding = pad(x, sides, -math.inf), [0] * rank
    return _MAX_POOL[rank](x, tuple(kernel_shape), strides, padding, dilations)


@op("AveragePool")
def average_pool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    rank = len(kernel_shape)
    size, strides, dilations = x.shape[2:], spread(strides, rank), spread(dilations, rank)
    sides = resolve_pads(auto_pad, pads, size, kernel_shape, strides, dilations)
    surplus = [0] * rank
    if ceil_mode:
        surplus = ceil_surplus(size, sides, kernel_shape, strides, dilations)
    kernel = tuple(kernel_shape)
    if not any(surplus) and not any(a or b for a, b in sides) and max(dilations) == 1:
        return _AVG_POOL[rank](x, kernel, strides)
    # What counts is the input, with its padding or without; what rounding up adds never counts.
    counted = torch.ones((1, 1, *size), dtype=x.dtype, device=x.device)
    counted = pad(counted, sides, 1.0 if count_include_pad else 0.0)
    beyond = [(0, more) for more in surplus]
    total = _window_sum(pad(pad(x, sides), beyond), kernel, strides, dilations)
    return total / _window_sum(pad(counted, beyond), kernel, strides, dilations)


@op("GlobalAveragePool")
def global_average_pool(x: Tensor) -> Tensor:
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


@op("GlobalMaxPool")
def global_max_pool(x: Tensor) -> Tensor:
    return x.amax(tuple(range(2, x.ndim)), keepdim=True)


def _window_sum(
    x: Tensor, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> Tensor:
    """The sum over each window; axes are independent, so one after another."""
    for axis, (k, stride, dilation) in enumerate(zip(kernel, strides, dilations, strict=True), 2):
        windows = x.unfold(axis, (k - 1) * dilation + 1, stride)
        x = windows[..., ::dilation].sum(-1)
    return x
