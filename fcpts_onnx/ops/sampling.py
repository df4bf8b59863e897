"""TWIN: sampling on a grid, and moving values between channels, blocks and places."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fcpts_onnx.ops.devices import without_autocast
from fcpts_onnx.ops.registry import Ints, op
from fcpts_onnx.ops.windows import Pads, pad, spread

__all__: list[str] = []

_GRID_MODES = {
    "nearest": "nearest",
    "linear": "bilinear",
    "bilinear": "bilinear",
    "cubic": "bicubic",
    "bicubic": "bicubic",
}


@op(
    "GridSample",
    since=16,
    only={"mode": _GRID_MODES, "padding_mode": ("zeros", "border", "reflection")},
)
def grid_sample(
    x: Tensor,
    grid: Tensor,
    *,
    align_corners: int = 0,
    mode: str = "linear",
    padding_mode: str = "zeros",
) -> Tensor:
    if mode == "nearest" and padding_mode == "reflection":
        return _nearest_reflected(x, grid, bool(align_corners))
    return F.grid_sample(x, grid, _GRID_MODES[mode], padding_mode, bool(align_corners))


def _nearest_reflected(x: Tensor, grid: Tensor, align_corners: bool) -> Tensor:
    """Round, then reflect, as onnxruntime does; torch goes the other way at places in between."""
    flat = torch.zeros(grid.shape[:-1], dtype=torch.int64, device=x.device)
    # A grid lists its axes from the last to the first.
    for length, at in zip(x.shape[2:], grid.flip(-1).unbind(-1), strict=True):
        place = (at + 1) / 2 * (length - 1) if align_corners else ((at + 1) * length - 1) / 2
        period = max(1, 2 * (length - 1) if align_corners else 2 * length)
        place = place.round().long() % period
        flat = flat * length + torch.minimum(place, period - place - int(not align_corners))
    picked = flat.flatten(1)[:, None].expand(-1, x.shape[1], -1)
    return x.flatten(2).gather(2, picked).reshape(x.shape[:2] + flat.shape[1:])


@op("AffineGrid", since=20)
def affine_grid(theta: Tensor, size: Ints, *, align_corners: int = 0) -> Tensor:
    # Where corners align, an axis of one place has it at its end, as in onnxruntime.
    spatial = [
        1 - 2 * torch.arange(n).flip(0) / max(1, n - 1)
        if align_corners
        else (2 * torch.arange(n) + 1) / n - 1
        for n in size[2:]
    ]
    # Coordinates come from the last axis to the first.
    places = [*torch.meshgrid(*spatial, indexing="ij")[::-1], torch.ones(size[2:])]
    flat = torch.stack(places, -1).reshape(-1, len(places))
    with without_autocast(theta) as is_off:
        theta = theta.float() if is_off else theta
        return (flat.to(theta) @ theta.mT).reshape(theta.shape[0], *size[2:], -1)


@op("DepthToSpace", only={"mode": ("DCR", "CRD")})
def depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    n, channels, height, width = x.shape
    depth = channels // blocksize**2
    if mode == "DCR":
        blocks = x.reshape(n, blocksize, blocksize, depth, height, width)
        blocks = blocks.permute(0, 3, 4, 1, 5, 2)
    else:
        blocks = x.reshape(n, depth, blocksize, blocksize, height, width)
        blocks = blocks.permute(0, 1, 4, 2, 5, 3)
    return blocks.reshape(n, depth, height * blocksize, width * blocksize)


@op("SpaceToDepth", only={"mode": ("DCR", "CRD")})
def space_to_depth(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    n, depth, height, width = x.shape
    rows, columns = height // blocksize, width // blocksize
    blocks = x.reshape(n, depth, rows, blocksize, columns, blocksize)
    blocks = blocks.permute(0, 3, 5, 1, 2, 4) if mode == "DCR" else blocks.permute(0, 1, 3, 5, 2, 4)
    return blocks.reshape(n, depth * blocksize**2, rows, columns)


@op("Col2Im", since=18)
def col2im(
    x: Tensor,
    image_shape: Ints,
    block_shape: Ints,
    *,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    rank = len(image_shape)
    strides, dilations = spread(strides, rank), spread(dilations, rank)
    if rank != 2 and max(dilations) > 1:
        raise ValueError("onnxruntime dilates Col2Im of two axes only")
    sides: Pads = list(zip(pads[:rank], pads[rank:], strict=True)) if pads else [(0, 0)] * rank
    size = [before + n + after for n, (before, after) in zip(image_shape, sides, strict=True)]
    # Where on the padded image each column puts each of its places, [block, columns].
    places = torch.zeros(1, 1, dtype=torch.int64)
    for n, k, stride, dilation in zip(size, block_shape, strides, dilations, strict=True):
        starts = torch.arange(0, n - (k - 1) * dilation, stride)
        along = torch.arange(k)[:, None] * dilation + starts
        places = places[:, None, :, None] * n + along[None, :, None]
        places = places.flatten(0, 1).flatten(1)
    columns = x.reshape(x.shape[0], -1, places.numel())
    image = columns.new_zeros(*columns.shape[:2], math.prod(size))
    image = image.index_add(2, places.flatten().to(x.device), columns)
    return pad(image.reshape(*columns.shape[:2], *size), [(-a, -b) for a, b in sides])
