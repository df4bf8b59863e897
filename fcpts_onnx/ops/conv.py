"""TWIN: convolutions in one, two and three dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from fcpts_onnx.ops.registry import op
from fcpts_onnx.ops.windows import pad, resolve_pads, spread

__all__: list[str] = []

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@op("Conv")
def conv(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    rank = x.ndim - 2
    strides, dilations = spread(strides, rank), spread(dilations, rank)
    sides = resolve_pads(auto_pad, pads, x.shape[2:], w.shape[2:], strides, dilations)
    if all(before == after for before, after in sides):
        padding = [before for before, _ in sides]
    else:
        x, padding = pad(x, sides), [0] * rank
    return _CONV[rank](x, w, b, strides, padding, dilations, group)


@op("ConvTranspose")
def conv_transpose(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    rank = x.ndim - 2
    strides, dilations = spread(strides, rank), spread(dilations, rank)
    extra = tuple(output_padding) if output_padding else (0,) * rank
    lengths = [
        (size - 1) * step + (kernel - 1) * dilation + 1 + more
        for size, step, kernel, dilation, more in zip(
            x.shape[2:], strides, w.shape[2:], dilations, extra, strict=True
        )
    ]
    if auto_pad in ("SAME_UPPER", "SAME_LOWER") and not output_shape:
        even = (size * step for size, step in zip(x.shape[2:], strides, strict=True))
        output_shape = [*map(min, even, lengths)]
    if output_shape:
        sides = []
        for length, wanted in zip(lengths, output_shape[-rank:], strict=True):
            total = length - wanted
            small, large = total // 2, total - total // 2
            sides.append((small, large) if auto_pad == "SAME_UPPER" else (large, small))
    else:
        sides = resolve_pads(auto_pad, pads, (), w.shape[2:], strides, dilations)
    # The full result has no padding cut off; what is stated as padding is cut on each side, and
    # beyond its ends there is nothing but the bias.
    added = [(-before, more - after) for (before, after), more in zip(sides, extra, strict=True)]
    is_beyond = any(side > 0 for pair in added for side in pair)
    inside, outside = (None, b) if is_beyond else (b, None)
    found = pad(_CONV_TRANSPOSE[rank](x, w, inside, strides, 0, 0, group, dilations), added)
    return found if outside is None else found + outside.reshape(-1, *[1] * rank)
