"""TWIN: how much running a graph's steps may make: refused before the memory is taken."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

__all__ = ["Bounded"]

_LEAST_COST = 2**12  # values that a call of torch counts as, so that loops end too
_META = torch.device("meta")
_ATEN = torch.ops.aten
# Their results hold no more than what they read. These, and the other common ones that `_sizes`
# knows, need no trial, for which torch would load its compiler: that takes seconds.
_NO_LARGER = frozenset(
    (
        _ATEN.cat.default,
        _ATEN.stack.default,
        _ATEN.mean.dim,
        _ATEN.sum.dim_IntList,
        _ATEN.var_mean.correction,
        _ATEN.linalg_vector_norm.default,
        _ATEN._log_softmax.default,
        _ATEN._safe_softmax.default,
        _ATEN.native_layer_norm.default,
        _ATEN.native_batch_norm.default,
        _ATEN.native_group_norm.default,
        _ATEN.hardswish.default,
    )
)


class Bounded(TorchDispatchMode):
    """While it is entered, torch makes no tensor too large, and not too many values in all.

    A graph of a few bytes may ask for any size (Expand, Tile, ConstantOfShape, Pad, Resize), and
    repeat it without end (Loop). Each call is tried first on tensors that have a shape and no
    memory.

    Args:
        largest: values in one tensor, at most.
        total: values in all that is made, views among it, at most.

    Raises:
        RuntimeError: from within, where that is exceeded.
    """

    def __init__(self, largest: int, total: int) -> None:
        super().__init__()
        self._largest, self._left = largest, total

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Else torch would load its compiler, for seconds, to keep it away from here."""
        return False

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        sizes = _sizes(func, args, kwargs)
        if max(sizes, default=0) > self._largest:
            raise RuntimeError(f"asks for {max(sizes):,} values, more than {self._largest:,}")
        self._left -= max(_LEAST_COST, *sizes, 0)
        if self._left < 0:
            raise RuntimeError("asks for more values in all than are computed")
        return func(*args, **kwargs)


def _sizes(func: OpOverload, args: Any, kwargs: dict[str, Any]) -> list[int]:
    """How many values each result of a call will have; none where only the values tell."""
    if torch.Tag.pointwise in func.tags or func is _ATEN.floor_divide.default:
        return [_broadcast([arg.shape for arg in args if isinstance(arg, Tensor)])]
    if func in _NO_LARGER:
        # A sum along an axis of no length has values although what it reads has none.
        shapes = [arg.shape for arg in tree_leaves(args) if isinstance(arg, Tensor)]
        return [sum(math.prod(max(1, size) for size in shape) for shape in shapes)]
    if func is _ATEN.addmm.default:
        return [args[1].shape[0] * args[2].shape[1]]
    if func.overloadpacket is _ATEN.arange:
        return _counted(*(args if len(args) > 1 else (0, *args)))
    if func.name().startswith("aten::upsample_"):
        return [args[0].shape[:2].numel() * math.prod(args[1])]
    args, kwargs = tree_map_only(Tensor, _without_memory, (args, kwargs))
    if "device" in kwargs:
        kwargs = kwargs | {"device": _META}
    try:
        results = tree_leaves(func(*args, **kwargs))
    except (RuntimeError, TypeError):
        return []  # what is picked by values is no more than what it is picked from
    return [result.numel() for result in results if isinstance(result, Tensor)]


def _counted(start: float, end: float, step: float = 1) -> list[int]:
    """How many values arange gives; none where it refuses to."""
    turns = (end - start) / step if step else math.nan
    return [max(0, math.ceil(turns))] if math.isfinite(turns) else []


def _broadcast(shapes: Sequence[Sequence[int]]) -> int:
    """How many values tensors of these shapes make together, value by value."""
    rank = max(map(len, shapes), default=0)
    aligned = [(*[1] * (rank - len(shape)), *shape) for shape in shapes]
    return math.prod(max(sizes) for sizes in zip(*aligned, strict=True))


def _without_memory(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=_META)
