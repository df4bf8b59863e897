"""TWIN: reductions over axes, given as an attribute or, in later opsets, as an input."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fcpts_onnx.ops.registry import Ints, op

__all__: list[str] = []

Reduction = Callable[[Tensor, tuple[int, ...], bool], Tensor]


def _register(
    name: str,
    axes_as_input: int,
    reduction: Reduction,
    alone: Callable[[Tensor], Tensor] = lambda x: x,
) -> None:
    """Register a reduction; `alone` is what it makes of single elements, reduced over no axis."""

    @op(name, since=1)
    def reduce_1(x: Tensor, *, axes: Sequence[int] | None = None, keepdims: int = 1) -> Tensor:
        return reduction(x, tuple(axes or range(x.ndim)), bool(keepdims))

    @op(name, since=axes_as_input)
    def reduce_by_input(
        x: Tensor, axes: Ints | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Tensor:
        if not axes and noop_with_empty_axes:
            return alone(x)
        return reduction(x, axes or tuple(range(x.ndim)), bool(keepdims))


def _exactly(function: Reduction) -> Reduction:
    """A function of numbers with a fraction for whole numbers too, whose type the result has."""

    def reduction(x: Tensor, axes: tuple[int, ...], keepdims: bool) -> Tensor:
        exact = x if x.is_floating_point() else x.double()
        return function(exact, axes, keepdims).to(x.dtype)

    return reduction


def _norm(x: Tensor, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    # The gradient of the root of a sum of squares is no number at zero; this one's is zero.
    return torch.linalg.vector_norm(x, 2, axes, keepdim=keepdims)


def _log_of_sum(x: Tensor, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    return x.sum(axes, keepdim=keepdims).log()


def _sum(x: Tensor, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    return x.sum(axes, keepdim=keepdims).to(x.dtype)


def _product(x: Tensor, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keepdims).to(x.dtype)
    return x


def _extreme(function: Callable[..., Tensor], *, largest: bool) -> Reduction:
    """The largest or smallest value; over no value at all, what any value replaces."""

    def reduction(x: Tensor, axes: tuple[int, ...], keepdims: bool) -> Tensor:
        if any(x.shape[axis] == 0 for axis in axes):
            shape = x.any(axes, keepdim=keepdims).shape
            return torch.full(shape, _limit(x.dtype, not largest), dtype=x.dtype, device=x.device)
        return function(x, axes, keepdim=keepdims)

    return reduction


def _limit(dtype: torch.dtype, largest: bool) -> float:
    """The largest or smallest value of a type."""
    if dtype is torch.bool:
        return largest
    if dtype.is_floating_point:
        return math.inf if largest else -math.inf
    return torch.iinfo(dtype).max if largest else torch.iinfo(dtype).min


_register("ReduceMean", 18, _exactly(lambda x, axes, keep: torch.mean(x, axes, keepdim=keep)))
_register("ReduceSum", 13, _sum)
_register("ReduceProd", 18, _product)
_register("ReduceMax", 18, _extreme(torch.amax, largest=True))
_register("ReduceMin", 18, _extreme(torch.amin, largest=False))
_register("ReduceL1", 18, lambda x, axes, keep: _sum(x.abs(), axes, keep), torch.abs)
_register("ReduceL2", 18, _exactly(_norm), torch.abs)
_register("ReduceLogSum", 18, _exactly(_log_of_sum), torch.log)
_register(
    "ReduceLogSumExp", 18, _exactly(lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep))
)
_register("ReduceSumSquare", 18, lambda x, axes, keep: _sum(x * x, axes, keep), torch.square)
