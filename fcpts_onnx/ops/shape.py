"""TWIN: moving, cutting and joining tensors, and the arithmetic of shapes.

Shapes are small integer tensors on the CPU, wherever the data lies.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fcpts_onnx.ops.dtypes import TORCH_TYPES
from fcpts_onnx.ops.registry import Ints, op

__all__: list[str] = []


@op("Constant", since=12)
def constant(
    *,
    value_float: float | None = None,
    value_floats: Sequence[float] | None = None,
    value_int: int | None = None,
    value_ints: Sequence[int] | None = None,
) -> Tensor:
    for value, dtype in (
        (value_float, torch.float32),
        (value_floats, torch.float32),
        (value_int, torch.int64),
    ):
        if value is not None:
            return torch.tensor(value, dtype=dtype)
    return torch.tensor(value_ints, dtype=torch.int64)


@op("Identity")
def identity(x: Tensor) -> Tensor:
    return x


@op("Dropout", since=7)
def dropout_7(x: Tensor, *, ratio: float = 0.5) -> Tensor:
    return x


@op("Dropout", since=12, outputs=2, gradient="first")
def dropout_12(
    x: Tensor,
    ratio: Tensor | None = None,
    training_mode: Tensor | None = None,
    *,
    seed: int | None = None,
    outputs: int,
) -> Tensor | tuple[Tensor, Tensor]:
    return x if outputs == 1 else (x, torch.ones_like(x, dtype=torch.bool))


@op("Cast", only={"to": TORCH_TYPES})
def cast(x: Tensor, *, to: int, saturate: int = 1, round_mode: str = "up") -> Tensor:
    return x.to(TORCH_TYPES[to])


@op("Shape", gradient="shapes")
def shape(x: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
    return torch.tensor(x.shape[start:end], dtype=torch.int64)


@op("Reshape")
def reshape(x: Tensor, shape: Ints, *, allowzero: int = 0) -> Tensor:
    if not allowzero:
        shape = tuple(x.shape[axis] if size == 0 else size for axis, size in enumerate(shape))
    return x.reshape(shape)


@op("Flatten")
def flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(x.shape[:axis].numel(), -1)


@op("Transpose")
def transpose(x: Tensor, *, perm: Sequence[int] | None = None) -> Tensor:
    return x.permute(tuple(perm) if perm else tuple(reversed(range(x.ndim))))


@op("Squeeze", since=1)
def squeeze_1(x: Tensor, *, axes: Sequence[int] | None = None) -> Tensor:
    if not axes:
        return x.squeeze()
    # torch leaves other sizes as they are: a batch, where the graph is of a single sample.
    if sizes := [x.shape[axis] for axis in axes if x.shape[axis] != 1]:
        raise ValueError(f"an axis of size {sizes[0]} cannot be dropped")
    return x.squeeze(tuple(axes))


@op("Squeeze", since=13)
def squeeze_13(x: Tensor, axes: Ints | None = None) -> Tensor:
    return squeeze_1(x, axes=axes)


@op("Unsqueeze", since=1)
def unsqueeze_1(x: Tensor, *, axes: Sequence[int]) -> Tensor:
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@op("Unsqueeze", since=13)
def unsqueeze_13(x: Tensor, axes: Ints) -> Tensor:
    return unsqueeze_1(x, axes=axes)


@op("Concat")
def concat(*inputs: Tensor, axis: int) -> Tensor:
    return torch.cat(inputs, axis)


@op("Split", since=2, outputs=2**31)
def split_2(
    x: Tensor, *, axis: int = 0, split: Sequence[int] | None = None, outputs: int
) -> tuple[Tensor, ...]:
    # Equal parts; the last is smaller where they do not come out even.
    part = -(-x.shape[axis] // outputs)
    return x.split(list(split) if split else part, axis)


@op("Split", since=13, outputs=2**31)
def split_13(
    x: Tensor,
    split: Ints | None = None,
    *,
    axis: int = 0,
    num_outputs: int | None = None,
    outputs: int,
) -> tuple[Tensor, ...]:
    return split_2(x, axis=axis, split=split, outputs=outputs)


@op("Slice", since=1)
def slice_1(
    x: Tensor, *, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int] | None = None
) -> Tensor:
    return slice_10(x, tuple(starts), tuple(ends), tuple(axes) if axes else None)


@op("Slice", since=10)
def slice_10(
    x: Tensor, starts: Ints, ends: Ints, axes: Ints | None = None, steps: Ints | None = None
) -> Tensor:
    axes = axes if axes is not None else tuple(range(len(starts)))
    steps = steps or (1,) * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        x = _slice_axis(x, start, end, axis, step)
    return x


def _slice_axis(x: Tensor, start: int, end: int, axis: int, step: int) -> Tensor:
    if step < 0 and start < -x.shape[axis]:
        start = 0  # where Python has nothing
    picked = range(x.shape[axis])[start:end:step]
    if step < 0:  # torch has no view with a negative step
        return x.index_select(axis, torch.tensor(list(picked), dtype=torch.int64).to(x.device))
    # A view keeps channels-last memory: what is added to it later is then added in one sweep.
    places = slice(picked.start, max(picked.start, picked.stop), step)
    return x[(slice(None),) * (axis % x.ndim) + (places,)]


@op("Expand")
def expand(x: Tensor, shape: Ints) -> Tensor:
    # torch.broadcast_shapes would load parts of its compiler, for half a second.
    return x.expand(np.broadcast_shapes(x.shape, shape))


@op("Tile")
def tile(x: Tensor, repeats: Ints) -> Tensor:
    return x.repeat(repeats)


@op("ConstantOfShape", gradient="shapes")
def constant_of_shape(shape: Ints, *, value: Tensor | None = None) -> Tensor:
    if value is None:
        return torch.zeros(shape)
    return value.reshape(-1)[0].expand(shape).clone()


@op("Pad", since=2)
def pad_2(x: Tensor, *, pads: Sequence[int], mode: str = "constant", value: float = 0.0) -> Tensor:
    return _pad(x, tuple(pads), value, tuple(range(x.ndim)), mode)


@op("Pad", since=11)
def pad_11(
    x: Tensor,
    pads: Ints,
    constant_value: Tensor | None = None,
    axes: Ints | None = None,
    *,
    mode: str = "constant",
) -> Tensor:
    value = 0.0 if constant_value is None else constant_value.item()
    return _pad(x, pads, value, axes if axes is not None else tuple(range(x.ndim)), mode)


def _pad(x: Tensor, pads: Ints, value: float, axes: Ints, mode: str) -> Tensor:
    sides = [(0, 0)] * x.ndim
    for place, axis in enumerate(axes):
        sides[axis] = (pads[place], pads[place + len(axes)])
    if mode == "constant":
        return F.pad(x, [side for pair in reversed(sides) for side in pair], value=value)
    # torch pads by neighbours on the last axes of a batch only; indices do it on any axis.
    for axis, (before, after) in enumerate(sides):
        if before or after:
            x = x.index_select(axis, _neighbours(x.shape[axis], before, after, mode).to(x.device))
    return x


def _neighbours(length: int, before: int, after: int, mode: str) -> Tensor:
    """For every place of a padded axis, the place of the input it repeats."""
    places = torch.arange(-before, length + after)
    if mode == "edge":
        return places.clamp(0, length - 1)
    if mode == "wrap":
        return places % length
    period = max(1, 2 * (length - 1))
    return (length - 1) - ((places % period) - (length - 1)).abs()


@op("Size", gradient="shapes")
def size(x: Tensor) -> Tensor:
    return torch.tensor(x.numel())


@op("Range", since=11)
def range_11(start: Tensor, limit: Tensor, delta: Tensor, *, stash_type: int = 1) -> Tensor:
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


@op("EyeLike", since=9, only={"dtype": TORCH_TYPES}, gradient="shapes")
def eye_like(x: Tensor, *, dtype: int | None = None, k: int = 0) -> Tensor:
    rows, columns = x.shape
    places = torch.arange(columns)[None] - torch.arange(rows)[:, None]
    return (places == k).to(x.dtype if dtype is None else TORCH_TYPES[dtype]).to(x.device)


@op("CastLike", since=15)
def cast_like(x: Tensor, like: Tensor, *, saturate: int = 1, round_mode: str = "up") -> Tensor:
    return x.to(like.dtype)


@op("BitCast", since=26, only={"to": TORCH_TYPES}, gradient="ends")
def bit_cast(x: Tensor, *, to: int) -> Tensor:
    return x.contiguous().view(TORCH_TYPES[to])
