"""TWIN: picking, scattering, sorting and counting."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fcpts_onnx.ops.registry import Ints, op

__all__: list[str] = []

_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@op("Gather")
def gather(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    axis = axis % x.ndim
    places = _places(indices, x.shape[axis], x.device)
    picked = x.index_select(axis, places.reshape(-1))
    return picked.reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])


@op("GatherElements")
def gather_elements(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    return x.gather(axis, _places(indices, x.shape[axis], x.device))


@op("GatherND")
def gather_nd(x: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Tensor:
    outer = x.shape[:batch_dims]
    count = outer.numel()
    x = x.reshape(count, *x.shape[batch_dims:])
    places = indices.reshape(count, *indices.shape[batch_dims:])
    batch = torch.arange(count, device=x.device)
    batch = batch.reshape(-1, *[1] * (places.ndim - 2))
    picked = x[(batch, *places.to(x.device).unbind(-1))]
    return picked.reshape(*outer, *picked.shape[1:])


@op("Scatter")
def scatter(x: Tensor, indices: Tensor, updates: Tensor, *, axis: int = 0) -> Tensor:
    return scatter_elements(x, indices, updates, axis=axis)


@op("ScatterElements", since=11)
def scatter_elements(
    x: Tensor, indices: Tensor, updates: Tensor, *, axis: int = 0, reduction: str = "none"
) -> Tensor:
    places = _places(indices, x.shape[axis], x.device)
    x, updates = _of_one_type(x, updates)
    if reduction == "none":
        return x.scatter(axis, places, updates)
    return x.scatter_reduce(axis, places, updates, _REDUCTIONS[reduction])


@op("ScatterND", since=11)
def scatter_nd(x: Tensor, indices: Tensor, updates: Tensor, *, reduction: str = "none") -> Tensor:
    depth = indices.shape[-1]
    sizes = x.shape[:depth]
    flat = torch.zeros(indices.shape[:-1], dtype=torch.int64, device=x.device)
    for axis, size in enumerate(sizes):
        flat = flat * size + _places(indices[..., axis], size, x.device)
    rows = x.reshape(sizes.numel(), -1)
    places = flat.reshape(-1, 1).expand(-1, rows.shape[1])
    changed = scatter_elements(
        rows, places, updates.reshape(places.shape), axis=0, reduction=reduction
    )
    return changed.reshape(x.shape)


@op("OneHot", since=9, gradient="ends")
def one_hot(indices: Tensor, depth: Tensor, values: Tensor, *, axis: int = -1) -> Tensor:
    count = int(depth.reshape(()))
    places = indices.long()
    # What lies out of range is off everywhere.
    inside = (places >= -count) & (places < count)
    hot = F.one_hot(torch.where(inside, places, 0) % count, count) * inside.unsqueeze(-1)
    rank = indices.ndim + 1
    return torch.where(hot.bool(), values[1], values[0]).movedim(-1, axis % rank)


@op("TopK", since=1, outputs=2, gradient="first")
def top_k_1(x: Tensor, *, k: int, axis: int = -1) -> tuple[Tensor, Tensor]:
    return _top_k(x, k, axis, descending=True)


@op("TopK", since=10, outputs=2, gradient="first")
def top_k_10(
    x: Tensor, k: Ints, *, axis: int = -1, largest: int = 1, sorted: int = 1
) -> tuple[Tensor, Tensor]:
    return _top_k(x, k[0], axis, descending=bool(largest))


def _top_k(x: Tensor, k: int, axis: int, *, descending: bool) -> tuple[Tensor, Tensor]:
    """Of equal values the first ones, which torch.topk does not promise."""
    found = torch.sort(x, dim=axis, descending=descending, stable=True)
    return found.values.narrow(axis, 0, k), found.indices.narrow(axis, 0, k)


@op("ArgMax", since=1, gradient="ends")
def arg_max(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    return _arg(x, axis, keepdims, select_last_index, descending=True)


@op("ArgMin", since=1, gradient="ends")
def arg_min(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    return _arg(x, axis, keepdims, select_last_index, descending=False)


def _arg(x: Tensor, axis: int, keepdims: int, last: int, *, descending: bool) -> Tensor:
    """The place of the extreme value: of equal ones the first, or the last."""
    seen = x.flip(axis) if last else x
    places = torch.sort(seen, dim=axis, descending=descending, stable=True).indices
    place = places.narrow(axis, 0, 1)
    place = x.shape[axis] - 1 - place if last else place
    return place if keepdims else place.squeeze(axis)


@op("NonZero", since=9, gradient="ends")
def non_zero(x: Tensor) -> Tensor:
    return x.nonzero().T if x.ndim else x.reshape(1).nonzero().T[:0]


@op("Compress", since=9)
def compress(x: Tensor, condition: Tensor, *, axis: int | None = None) -> Tensor:
    x, axis = (x.reshape(-1), 0) if axis is None else (x, axis)
    return x.index_select(axis, condition.nonzero().reshape(-1).to(x.device))


@op("Unique", since=11, outputs=4, gradient="ends")
def unique(
    x: Tensor, *, axis: int | None = None, sorted: int = 1
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, along = (x.reshape(-1), 0) if axis is None else (x, axis)
    values, inverse, counts = torch.unique(
        x, sorted=True, return_inverse=True, return_counts=True, dim=along
    )
    inverse = inverse.reshape(-1)
    first = torch.full_like(counts, len(inverse))
    places = torch.arange(len(inverse), device=x.device)
    first = first.scatter_reduce(0, inverse, places, "amin")
    if not sorted:
        order = first.argsort()
        rank = order.argsort()
        values, first = values.index_select(along, order), first[order]
        inverse, counts = rank[inverse], counts[order]
    return values, first, inverse, counts


@op("CumSum", since=11)
def cum_sum(x: Tensor, axis: Ints, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    return _cumulate(torch.cumsum, 0, x, axis[0], exclusive, reverse)


@op("CumProd", since=26)
def cum_prod(x: Tensor, axis: Ints, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    return _cumulate(torch.cumprod, 1, x, axis[0], exclusive, reverse)


def _cumulate(
    function: Callable[[Tensor, int], Tensor],
    neutral: int,
    x: Tensor,
    axis: int,
    exclusive: int,
    reverse: int,
) -> Tensor:
    x = x.flip(axis) if reverse else x
    if exclusive:
        start = torch.full_like(x.narrow(axis, 0, 1), neutral)
        x = torch.cat([start, x.narrow(axis, 0, x.shape[axis] - 1)], axis)
    result = function(x, axis).to(x.dtype)
    return result.flip(axis) if reverse else result


@op("ReverseSequence", since=10)
def reverse_sequence(
    x: Tensor, lengths: Ints, *, batch_axis: int = 1, time_axis: int = 0
) -> Tensor:
    x = x.movedim((batch_axis, time_axis), (0, 1))
    rows = [torch.cat([row[:n].flip(0), row[n:]]) for row, n in zip(x, lengths, strict=True)]
    return torch.stack(rows).movedim((0, 1), (batch_axis, time_axis))


@op("Trilu", since=14)
def trilu(x: Tensor, k: Ints | None = None, *, upper: int = 1) -> Tensor:
    diagonal = k[0] if k else 0
    return torch.triu(x, diagonal) if upper else torch.tril(x, diagonal)


@op("TensorScatter", since=24)
def tensor_scatter(
    past: Tensor,
    update: Tensor,
    write_indices: Tensor | None = None,
    *,
    axis: int = -2,
    mode: str = "linear",
) -> Tensor:
    axis = axis % past.ndim
    places = torch.arange(update.shape[axis], device=past.device).expand(len(past), -1)
    if write_indices is not None:
        places = places + write_indices.to(past.device)[:, None]
    places = places % past.shape[axis] if mode == "circular" else places
    shape = [1] * past.ndim
    shape[0], shape[axis] = places.shape
    past, update = _of_one_type(past, update)
    return past.scatter(axis, places.reshape(shape).expand(update.shape), update)


def _of_one_type(x: Tensor, updates: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the wider type: in bfloat16, only what convolutions and products give is narrow."""
    wider = torch.promote_types(x.dtype, updates.dtype)
    return x.to(wider), updates.to(wider)


def _places(indices: Tensor, size: int, device: torch.device) -> Tensor:
    """Indices as torch takes them: int64, counted from the front."""
    indices = indices.to(device, torch.int64)
    return torch.where(indices < 0, indices + size, indices)
