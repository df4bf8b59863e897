"""TWIN: resizing and sampling on a grid.

Where Resize samples is computed in single precision, as onnxruntime does: what lies in the middle
between two places rounds the same way then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fcpts_onnx.ops.registry import Floats, Ints, op

__all__: list[str] = []

_INTERPOLATE = {
    ("linear", 3): "linear",
    ("linear", 4): "bilinear",
    ("linear", 5): "trilinear",
    ("cubic", 4): "bicubic",
}
"""What torch calls a mode of Resize for an input of that rank, where it has it."""


_CUBIC_OF_TORCH = -0.75

_TIE = 1e-6
"""How near to the middle between two places counts as the middle, as in onnxruntime."""


@dataclass(frozen=True)
class _Span:
    """An axis to resize.

    Attributes:
        length, resized: how long it is and becomes.
        scale: what places are divided by; not always the exact ratio of the two.
        start, end: the part of it to cut out, of 0 to 1.
    """

    axis: int
    length: int
    resized: int
    scale: float
    start: float
    end: float


@op("Upsample", since=7, only={"mode": ("nearest", "linear")})
def upsample_7(x: Tensor, *, scales: Sequence[float], mode: str = "nearest") -> Tensor:
    return resize_10(x, tuple(scales), mode=mode)


@op("Upsample", since=9, only={"mode": ("nearest", "linear")})
def upsample_9(x: Tensor, scales: Floats, *, mode: str = "nearest") -> Tensor:
    return resize_10(x, scales, mode=mode)


@op("Resize", since=10, only={"mode": ("nearest", "linear")})
def resize_10(x: Tensor, scales: Floats, *, mode: str = "nearest") -> Tensor:
    return resize_11(
        x,
        None,
        scales,
        coordinate_transformation_mode="asymmetric",
        mode=mode,
        nearest_mode="away_from_scale",
    )


@op(
    "Resize",
    since=11,
    only={
        "coordinate_transformation_mode": (
            "align_corners",
            "asymmetric",
            "half_pixel",
            "half_pixel_symmetric",
            "pytorch_half_pixel",
            "tf_crop_and_resize",
            "tf_half_pixel_for_nn",
        ),
        "keep_aspect_ratio_policy": ("stretch", "not_larger", "not_smaller"),
        "mode": ("nearest", "linear", "cubic"),
        "nearest_mode": ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
    },
)
def resize_11(
    x: Tensor,
    roi: Floats | None = None,
    scales: Floats | None = None,
    sizes: Ints | None = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = _CUBIC_OF_TORCH,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Tensor:
    crops = coordinate_transformation_mode == "tf_crop_and_resize"
    axes = [axis % x.ndim for axis in axes] if axes else list(range(x.ndim))
    spans = _spans(x.shape, axes, roi if crops else None, scales, sizes, keep_aspect_ratio_policy)
    if all(span.resized == span.length for span in spans):
        return x
    # onnxruntime leaves an axis alone by its scale, and by its length where it antialiases.
    spans = [s for s in spans if (s.resized != s.length if antialias else s.scale != 1.0)]
    places = [_places(span, coordinate_transformation_mode) for span in spans]
    if mode == "nearest":
        if antialias:
            raise ValueError("there is no antialiasing for the mode nearest")
        y = _resize_nearest(x, spans, places, nearest_mode)
    elif not x.is_floating_point():
        raise TypeError(f"the mode {mode} is for floating point, not for {x.dtype}")
    elif _torch_interpolates(
        x, spans, mode, coordinate_transformation_mode, antialias or exclude_outside, cubic_coeff_a
    ):
        return F.interpolate(
            x,
            _spatial_size(x, spans),
            mode=_INTERPOLATE[mode, x.ndim],
            align_corners=coordinate_transformation_mode == "align_corners",
        )
    else:
        y = x
        for span, at in reversed(list(zip(spans, places, strict=True))):
            a = cubic_coeff_a if mode == "cubic" else None
            taps, weights = _filter(span, at, a, bool(antialias), bool(exclude_outside))
            y = _mix(y, span.axis, taps, weights)
    return _extrapolate(y, spans, places, extrapolation_value) if crops else y


def _spans(
    shape: Sequence[int],
    axes: Sequence[int],
    region: Sequence[float] | None,
    scales: Floats | None,
    sizes: Ints | None,
    policy: str,
) -> list[_Span]:
    """What becomes of the axes, by scales or by sizes, the latter maybe in one ratio for all."""
    lengths = [shape[axis] for axis in axes]
    if scales:
        ratios = [*scales]
        resized = [int(_single(n * ratio)) for n, ratio in zip(lengths, ratios, strict=True)]
    else:
        resized = list(sizes or ())
        ratios = [_single(m / n) if n else 1.0 for m, n in zip(resized, lengths, strict=True)]
        if policy != "stretch":
            ratio = min(ratios) if policy == "not_larger" else max(ratios)
            ratios = [ratio] * len(axes)
            resized = [math.floor(_single(n * ratio) + 0.5) for n in lengths]
    region = region or (0.0,) * len(axes) + (1.0,) * len(axes)
    starts, ends = region[: len(axes)], region[len(axes) :]
    rows = zip(axes, lengths, resized, ratios, starts, ends, strict=True)
    return [_Span(*row) for row in rows]


def _single(value: float) -> float:
    """A number in single precision."""
    return torch.tensor(value, dtype=torch.float32).item()


def _places(span: _Span, mode: str) -> Tensor:
    """For every place of the resized axis, where it lies on the original one."""
    at = torch.arange(span.resized, dtype=torch.float32)
    last = span.length - 1
    if mode == "asymmetric":
        return at / span.scale
    if mode == "align_corners":
        return at * last / max(1, span.resized - 1)
    if mode == "tf_half_pixel_for_nn":
        return (at + 0.5) / span.scale
    if mode == "tf_crop_and_resize":
        if span.resized == 1:
            return at + 0.5 * (span.start + span.end) * last
        return at * (span.end - span.start) * last / (span.resized - 1) + span.start * last
    if mode == "pytorch_half_pixel" and span.resized == 1:
        return at
    if mode == "half_pixel_symmetric":
        rounding = torch.tensor(float(span.resized)) / torch.tensor(span.scale * span.length)
        shift = span.length / 2 * (1 - rounding)
        return (shift + (at.double() + 0.5) / span.scale - 0.5).float()
    return (at + 0.5) / span.scale - 0.5


def _resize_nearest(
    x: Tensor, spans: Sequence[_Span], places: Sequence[Tensor], rounding: str
) -> Tensor:
    picks = [
        _round(at, rounding, span.scale < 1).clamp(0, span.length - 1).long()
        for span, at in zip(spans, places, strict=True)
    ]
    # torch is faster where every place is repeated as often.
    if x.is_floating_point() and 3 <= x.ndim <= 5 and all(map(_repeats, spans, picks)):
        return F.interpolate(x, _spatial_size(x, spans))
    for span, picked in reversed(list(zip(spans, picks, strict=True))):
        x = x.index_select(span.axis, picked.to(x.device))
    return x


def _repeats(span: _Span, picked: Tensor) -> bool:
    """Whether the places of a spatial axis are repeated, all as often."""
    times = span.resized // max(1, span.length)
    even = span.axis >= 2 and span.resized == times * span.length > 0
    return even and torch.equal(picked, torch.arange(span.resized) // times)


def _spatial_size(x: Tensor, spans: Sequence[_Span]) -> list[int]:
    """The size of the axes behind the first two, resized."""
    resized = {span.axis: span.resized for span in spans}
    return [resized.get(axis, x.shape[axis]) for axis in range(2, x.ndim)]


def _round(places: Tensor, mode: str, shrinks: bool) -> Tensor:
    """Places to whole ones; before opset 11 (`away_from_scale`) it depends on the scale."""
    if mode == "ceil" or (mode == "away_from_scale" and shrinks):
        return places.ceil()
    below = places.floor()
    if mode == "round_prefer_floor":
        return below + (places - below > 0.5 + _TIE)
    if mode == "round_prefer_ceil":
        return below + (places - below >= 0.5 - _TIE)
    return below


def _torch_interpolates(
    x: Tensor, spans: Sequence[_Span], mode: str, coordinates: str, special: int, a: float
) -> bool:
    """Whether torch has this very interpolation, which is faster."""
    if (mode, x.ndim) not in _INTERPOLATE or special:
        return False
    if any(span.axis < 2 or span.resized == 0 for span in spans):
        return False
    if mode == "cubic" and a != _CUBIC_OF_TORCH:
        return False
    if coordinates == "align_corners":
        return True
    if coordinates == "pytorch_half_pixel" and any(span.resized == 1 for span in spans):
        return False
    even = all(_single(span.resized / span.length) == span.scale for span in spans)
    return even and coordinates in ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel")


def _filter(
    span: _Span, places: Tensor, a: float | None, antialias: bool, exclude_outside: bool
) -> tuple[Tensor, Tensor]:
    """The neighbours that each place is mixed from and their weights, both [resized, taps].

    Args:
        a: the coefficient of the cubic filter (Keys 1981), None for the linear one.
        antialias: stretch the filter when shrinking, so that no place is passed over.
        exclude_outside: neighbours beyond the ends count nothing, instead of as the ends.
    """
    stretch = max(1.0, 1 / span.scale) if antialias else 1.0
    support = (1 if a is None else 2) * stretch
    first = (places - support + 1).floor()
    taps = first[:, None] + torch.arange(math.ceil(2 * support))
    distance = (taps - places[:, None]).abs() / stretch
    if a is None:
        weights = (1 - distance).clamp(min=0)
    else:
        near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
        far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
        weights = torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))
    if exclude_outside:
        weights = weights * ((taps >= 0) & (taps < span.length))
    total = weights.sum(1, keepdim=True)
    weights = weights / torch.where(total == 0, 1.0, total)
    return taps.clamp(0, span.length - 1).long(), weights


def _mix(x: Tensor, axis: int, taps: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of neighbours along an axis, tap after tap."""
    shape = (-1,) + (1,) * (x.ndim - 1 - axis)
    taps, weights = taps.to(x.device), weights.to(x)
    y = x.new_zeros(())
    for tap in range(taps.shape[1]):
        y = y + x.index_select(axis, taps[:, tap]) * weights[:, tap].reshape(shape)
    return y


def _extrapolate(
    y: Tensor, spans: Sequence[_Span], places: Sequence[Tensor], value: float
) -> Tensor:
    """Put the value wherever a place lies outside of the input on any axis."""
    for span, at in zip(spans, places, strict=True):
        outside = ((at < 0) | (at > span.length - 1)).to(y.device)
        y = y.masked_fill(outside.reshape((-1,) + (1,) * (y.ndim - 1 - span.axis)), value)
    return y
