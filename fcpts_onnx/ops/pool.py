"""TWIN: pooling in one, two and three dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from fcpts_onnx.ops.registry import Ints, op
from fcpts_onnx.ops.windows import Pads, ceil_surplus, pad, resolve_pads, spread

__all__: list[str] = []

_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVG_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


@op("MaxPool", outputs=2, gradient="first")
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
    outputs: int,
) -> Tensor | tuple[Tensor, Tensor]:
    rank = len(kernel_shape)
    size, strides, dilations = x.shape[2:], spread(strides, rank), spread(dilations, rank)
    sides = _all_pads(auto_pad, pads, ceil_mode, size, kernel_shape, strides, dilations)
    # torch has no pools of integers; those of 8 bits are floats just as well.
    padded = x if x.is_floating_point() else x.float()
    # torch pads by itself on equal sides, up to half a window.
    if all(a == b and 2 * a <= k for (a, b), k in zip(sides, kernel_shape, strict=True)):
        padding, moved = [before for before, _ in sides], [0] * rank
    else:
        padding, moved = [0] * rank, [before for before, _ in sides]
        padded = pad(padded, sides, -math.inf)
    pool = partial(_MAX_POOL[rank], padded, tuple(kernel_shape), strides, padding, dilations)
    if outputs == 1:
        return pool().to(x.dtype)
    y, places = pool(return_indices=True)
    return y.to(x.dtype), _indices(places, padded.shape[2:], moved, size, storage_order)


def _indices(
    places: Tensor,
    padded: Sequence[int],
    moved: Sequence[int],
    size: Sequence[int],
    storage_order: int,
) -> Tensor:
    """Places in a padded plane to places in the whole tensor, its planes by rows or by columns (1).

    Args:
        moved: how far padding has moved the input.
    """
    steps = [math.prod(size[axis + 1 :]) for axis in range(len(size))]
    if storage_order:
        steps = [math.prod(size[:axis]) for axis in range(len(size))]
    planes = torch.arange(places.shape[:2].numel(), device=places.device)
    indices = (planes * math.prod(size)).reshape(places.shape[:2] + (1,) * len(size))
    for length, before, step in reversed(list(zip(padded, moved, steps, strict=True))):
        indices = indices + (places % length - before) * step
        places = places // length
    return indices


@op("MaxUnpool", since=9, gradient="values")
def max_unpool(
    x: Tensor,
    indices: Tensor,
    output_shape: Ints | None = None,
    *,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    rank = len(kernel_shape)
    sides = resolve_pads("NOTSET", pads, (), kernel_shape, (), ())
    size = [
        (n - 1) * stride + k - before - after
        for n, k, stride, (before, after) in zip(
            x.shape[2:], kernel_shape, spread(strides, rank), sides, strict=True
        )
    ]
    shape = torch.Size(output_shape or (*x.shape[:2], *size))
    flat = x.new_zeros(shape.numel())
    return flat.scatter(0, indices.flatten().to(x.device), x.flatten()).reshape(shape)


@op("LpPool", since=2)
def lp_pool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    p: int = 2,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    rank = len(kernel_shape)
    size, strides, dilations = x.shape[2:], spread(strides, rank), spread(dilations, rank)
    sides = _all_pads(auto_pad, pads, ceil_mode, size, kernel_shape, strides, dilations)
    windows = pad(x, sides)
    for axis, (k, stride, dilation) in enumerate(
        zip(kernel_shape, strides, dilations, strict=True), 2
    ):
        windows = windows.unfold(axis, (k - 1) * dilation + 1, stride)[..., ::dilation]
    # Unlike a root of a sum, a norm has a gradient where all is zero.
    return torch.linalg.vector_norm(windows, p, tuple(range(-rank, 0)))


@op("GlobalLpPool", since=2)
def global_lp_pool(x: Tensor, *, p: int = 2) -> Tensor:
    return torch.linalg.vector_norm(x, p, tuple(range(2, x.ndim)), keepdim=True)


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
    sides = _stated_pads(auto_pad, pads, size, kernel_shape, strides)
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


def _all_pads(
    auto_pad: str,
    pads: Sequence[int] | None,
    ceil_mode: int,
    size: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> Pads:
    """What is stated as padding, and at the ends what the last windows reach beyond it."""
    sides = _stated_pads(auto_pad, pads, size, kernel, strides)
    if not ceil_mode:
        return sides
    surplus = ceil_surplus(size, sides, kernel, strides, dilations)
    return [(a, b + more) for (a, b), more in zip(sides, surplus, strict=True)]


def _stated_pads(
    auto_pad: str,
    pads: Sequence[int] | None,
    size: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
) -> Pads:
    """The padding of a pool; unlike convolutions, onnxruntime's pools pad as if not dilated."""
    return resolve_pads(auto_pad, pads, size, kernel, strides, (1,) * len(kernel))
