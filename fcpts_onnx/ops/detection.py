"""TWIN: regions and boxes: what detectors end with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from fcpts_onnx.ops.registry import op
from fcpts_onnx.ops.windows import spread

__all__: list[str] = []


@op("RoiAlign", since=10, only={"mode": ("avg", "max")})
def roi_align_10(
    x: Tensor,
    rois: Tensor,
    batch_indices: Tensor,
    *,
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Tensor:
    return roi_align_16(
        x,
        rois,
        batch_indices,
        coordinate_transformation_mode="output_half_pixel",
        mode=mode,
        output_height=output_height,
        output_width=output_width,
        sampling_ratio=sampling_ratio,
        spatial_scale=spatial_scale,
    )


@op(
    "RoiAlign",
    since=16,
    only={
        "coordinate_transformation_mode": ("half_pixel", "output_half_pixel"),
        "mode": ("avg", "max"),
    },
)
def roi_align_16(
    x: Tensor,
    rois: Tensor,
    batch_indices: Tensor,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Tensor:
    half = coordinate_transformation_mode == "half_pixel"
    starts, ends = (rois * spatial_scale - (0.5 if half else 0.0)).chunk(2, 1)
    sizes = ends - starts if half else (ends - starts).clamp(min=1)
    rows = _samples(starts[:, 1], sizes[:, 1], output_height, sampling_ratio, x.shape[2])
    columns = _samples(starts[:, 0], sizes[:, 0], output_width, sampling_ratio, x.shape[3])
    # The four neighbours of every sample, weighted: [roi, bin row, row, bin column, column, C].
    planes = x.permute(0, 2, 3, 1)
    images = batch_indices.to(x.device, torch.int64).reshape(-1, 1, 1, 1, 1)
    neighbours = (
        planes[images, row[..., None, None], column[:, None, None]]
        * (down[..., None, None] * across[:, None, None])[..., None]
        for row, down in rows.neighbours
        for column, across in columns.neighbours
    )
    used = rows.used[:, None, :, None, None, None] & columns.used[:, None, None, None, :, None]
    counts = used.sum((2, 4)).clamp(min=1)
    if mode == "avg":
        pooled = sum(weighted.sum((2, 4)) for weighted in neighbours) / counts
    else:
        # The greatest of the weighted neighbours, not of what they add up to.
        greatest = reduce(torch.maximum, neighbours).masked_fill(~used, -torch.inf).amax((2, 4))
        pooled = greatest.masked_fill(~used.any(4).any(2), 0)
    return pooled.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class _Samples:
    """Where RoiAlign samples along one axis.

    Attributes:
        neighbours: places and weights, both [roi, bin, sample], of the one below and the one above.
        used: which samples there are, [roi, sample]; regions of other sizes may need more of them.
    """

    neighbours: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]
    used: Tensor


def _samples(start: Tensor, size: Tensor, bins: int, ratio: int, length: int) -> _Samples:
    """The samples for regions that start there and are of that size, in pixels.

    Args:
        ratio: how many samples a bin gets; 0 for one a pixel.
    """
    step = (size / bins)[:, None, None]
    counts = torch.full_like(step, ratio) if ratio > 0 else step.detach().ceil()
    most = max(1, int(counts.max())) if counts.numel() else 1
    sample = torch.arange(most, device=step.device)
    place = torch.arange(bins, device=step.device)[:, None]
    used = sample < counts
    at = start[:, None, None] + place * step + (sample + 0.5) * step / counts.clamp(min=1)
    inside = used & (at >= -1) & (at <= length)
    at = at.clamp(0, length - 1)
    low = at.detach().floor()
    above = at - low
    high = (low + 1).clamp(max=length - 1)
    return _Samples(((low.long(), (1 - above) * inside), (high.long(), above * inside)), used[:, 0])


@op("MaxRoiPool")
def max_roi_pool(
    x: Tensor, rois: Tensor, *, pooled_shape: Sequence[int], spatial_scale: float = 1.0
) -> Tensor:
    # Halves round away from zero.
    scaled = rois[:, 1:] * spatial_scale
    corners = (scaled.sign() * (scaled.abs() + 0.5).floor()).long().tolist()
    regions = []
    for image, (left, top, right, bottom) in zip(rois[:, 0].long().tolist(), corners, strict=True):
        rows = _bin_maxima(x[image], 1, top, bottom, pooled_shape[0])
        regions.append(_bin_maxima(rows, 2, left, right, pooled_shape[1]))
    if not regions:
        return x.new_zeros(0, x.shape[1], *pooled_shape)
    pooled = torch.stack(regions)
    return pooled.masked_fill(pooled == -torch.inf, 0)


def _bin_maxima(x: Tensor, axis: int, first: int, last: int, bins: int) -> Tensor:
    """The maximum of each bin between two places of an axis; -inf where a bin has none of it."""
    step = torch.tensor(max(1.0, last - first + 1)) / bins
    edges = torch.arange(bins + 1) * step
    starts = (edges[:-1].floor().long() + first).clamp(0, x.shape[axis]).tolist()
    ends = (edges[1:].ceil().long() + first).clamp(0, x.shape[axis]).tolist()
    nothing = x.new_full(x.shape[:axis] + x.shape[axis + 1 :], -torch.inf)
    maxima = [
        x.narrow(axis, start, end - start).amax(axis) if end > start else nothing
        for start, end in zip(starts, ends, strict=True)
    ]
    return torch.stack(maxima, axis)


@op("NonMaxSuppression", since=10, only={"center_point_box": (0, 1)}, gradient="ends")
def non_max_suppression(
    boxes: Tensor,
    scores: Tensor,
    max_output_boxes_per_class: Tensor | None = None,
    iou_threshold: Tensor | None = None,
    score_threshold: Tensor | None = None,
    *,
    center_point_box: int = 0,
) -> Tensor:
    limit = 0 if max_output_boxes_per_class is None else int(max_output_boxes_per_class.item())
    overlap = 0.0 if iou_threshold is None else iou_threshold.item()
    classes = scores.shape[1]
    # One row for each class of each image, its boxes from the best to the worst.
    scores = scores.flatten(0, 1)
    order = scores.argsort(dim=1, descending=True, stable=True)
    left = torch.ones_like(order, dtype=torch.bool)
    if score_threshold is not None:
        left = (scores > score_threshold.item()).gather(1, order)
        most = int(left.sum(1).max()) if left.numel() else 0
        order, left = order[:, :most], left[:, :most]
    low, high = _corners(boxes, bool(center_point_box))
    image = torch.arange(len(order), device=order.device)[:, None] // classes
    low, high = low[image, order], high[image, order]
    picked = []
    for _ in range(min(max(0, limit), order.shape[1])):
        found, best = left.max(1, keepdim=True)
        if not found.any():
            break
        picked.append(torch.where(found, order.gather(1, best), -1))
        left = left & ~_suppressed(low, high, best, overlap)
        left = left.scatter(1, best, False)
    if not picked:
        return torch.zeros((0, 3), dtype=torch.int64, device=boxes.device)
    chosen = torch.cat(picked, 1)
    row, turn = (chosen >= 0).nonzero(as_tuple=True)
    return torch.stack((row // classes, row % classes, chosen[row, turn]), 1)


def _corners(boxes: Tensor, centered: bool) -> tuple[Tensor, Tensor]:
    """The lowest and the highest corner of each box."""
    first, second = boxes.split(2, -1)
    if centered:
        return first - second / 2, first + second / 2
    return torch.minimum(first, second), torch.maximum(first, second)


def _suppressed(low: Tensor, high: Tensor, best: Tensor, overlap: float) -> Tensor:
    """Which boxes of a row overlap the row's best by more than a share of what both cover."""
    picked = best[..., None].expand(-1, -1, 2)
    low_of_best, high_of_best = low.gather(1, picked), high.gather(1, picked)
    common = (torch.minimum(high, high_of_best) - torch.maximum(low, low_of_best)).clamp(min=0)
    shared = common.prod(-1)
    area, area_of_best = (high - low).prod(-1), (high_of_best - low_of_best).prod(-1)
    union = area + area_of_best - shared
    real = (shared > 0) & (area > 0) & (area_of_best > 0) & (union > 0)
    return real & (shared / union > overlap)


@op("DeformConv", since=19)
def deform_conv(
    x: Tensor,
    w: Tensor,
    offset: Tensor,
    b: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    offset_group: int = 1,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    n, channels, height, width = x.shape
    kernel, size = w.shape[2:], offset.shape[2:]
    strides, dilations = spread(strides, 2), spread(dilations, 2)
    # As places in an image, which have more digits than bfloat16.
    offset = offset.to(torch.promote_types(offset.dtype, torch.float32))
    # Where the windows read: [n * offset groups, kernel rows, kernel columns, 2, rows, columns].
    offset = offset.reshape(n * offset_group, *kernel, 2, *size)
    regular = [
        torch.arange(k, device=x.device)[:, None] * dilation
        + torch.arange(outputs, device=x.device) * stride
        - before
        for k, outputs, stride, dilation, before in zip(
            kernel, size, strides, dilations, pads[:2] if pads else (0, 0), strict=True
        )
    ]
    rows = offset[:, :, :, 0] + regular[0][:, None, :, None]
    columns = offset[:, :, :, 1] + regular[1][None, :, None, :]
    planes = x.reshape(n * offset_group, channels // offset_group, height, width)
    read = _bilinear(planes, rows, columns)
    read = read.reshape(n, offset_group, channels // offset_group, kernel.numel(), *size)
    if mask is not None:
        read = read * mask.reshape(n, offset_group, 1, kernel.numel(), *size)
    products = w.reshape(group, w.shape[0] // group, -1) @ read.reshape(n, group, -1, size.numel())
    y = products.reshape(n, w.shape[0], *size)
    return y if b is None else y + b.reshape(-1, 1, 1)


def _bilinear(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Values between the pixels of an image [n, C, height, width], at places [n, ...]: [n, C, ...].

    Zero surrounds the image. Unlike torch's grid_sample, this does not scale the places first,
    which would make whole ones inexact.
    """
    top, left = rows.detach().floor(), columns.detach().floor()
    height, width = x.shape[2:]
    y = x.new_zeros(())
    for row, down in ((top, top + 1 - rows), (top + 1, rows - top)):
        for column, across in ((left, left + 1 - columns), (left + 1, columns - left)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            place = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
            picked = place.long().flatten(1)[:, None].expand(-1, x.shape[1], -1)
            values = x.flatten(2).gather(2, picked)
            y = y + values * (down * across * inside).flatten(1)[:, None]
    return y.reshape(*x.shape[:2], *rows.shape[1:])
