"""TWIN: reductions over axes, given as an attribute or, in later opsets, as an input."""

from __future__ import annotations

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


def _root_of_squares(x: Tensor, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    return x.square().sum(axes, keepdim=keepdims).sqrt()


_register("ReduceMean", 18, lambda x, axes, keep: torch.mean(x, axes, keepdim=keep))
_register("ReduceSum", 13, lambda x, axes, keep: torch.sum(x, axes, keepdim=keep).to(x.dtype))
_register("ReduceMax", 18, lambda x, axes, keep: torch.amax(x, axes, keepdim=keep))
_register("ReduceMin", 18, lambda x, axes, keep: torch.amin(x, axes, keepdim=keep))
_register("ReduceL2", 18, _root_of_squares, torch.abs)
