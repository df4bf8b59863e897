"""A device that is not the processor, for machines without: what mixes the two is refused."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

__all__ = ["OTHER", "OtherDevice"]

OTHER = torch.device("meta")
_CPU = torch.device("cpu")
_aten = torch.ops.aten
# As on a GPU, these read places that lie on the processor.
_TAKE_PLACES = {_aten.index.Tensor, _aten.index_put_.default, _aten.index_put.default,
                _aten._index_put_impl_.default, _aten._unsafe_index.Tensor,
                _aten._unsafe_index_put.default}  # fmt: skip
_COPIES = {_aten._to_copy.default, _aten.copy_.default}


class OtherDevice(TorchDispatchMode):
    """While it lasts, tensors on `OTHER` have values, kept on the processor behind its back.

    Raises:
        RuntimeError: an operator reads tensors of both devices, other than single numbers.
    """

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        kwargs = dict(kwargs or {})
        found: list[Tensor] = []
        tree_map(lambda x: found.append(x) if isinstance(x, Tensor) else None, (args, kwargs))
        there = any(isinstance(x, _There) for x in found)
        here = [x for x in found if not isinstance(x, _There) and x.ndim]
        if there and here and function not in _COPIES | _TAKE_PLACES:
            shapes = [tuple(x.shape) for x in here]
            raise RuntimeError(f"{function}: tensors {shapes} on the processor, others are not")
        if "device" in kwargs:
            named = kwargs["device"]
            there = torch.device(named) == OTHER if named is not None else there
            kwargs["device"] = _CPU
        elif function is _aten.copy_.default:
            there = isinstance(args[0], _There)
        plain_args, plain_kwargs = tree_map(_plain, (args, kwargs))
        result = function(*plain_args, **plain_kwargs)
        if function is _aten._local_scalar_dense.default or not there:
            return result
        changed = function._schema.is_mutable and isinstance(result, Tensor)
        return args[0] if changed else tree_map(_There.of, result)


class _There(Tensor):
    """A tensor of the other device: a wrapper of one on the processor."""

    values: Tensor

    @staticmethod
    def of(value: Any) -> Any:
        """A tensor there for one here; anything else as it is."""
        if not isinstance(value, Tensor) or isinstance(value, _There):
            return value
        found = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            _There,
            value.shape,
            strides=value.stride(),
            storage_offset=value.storage_offset(),
            dtype=value.dtype,
            device=OTHER,
        )
        found.values = value
        return found

    __torch_function__ = torch._C._disabled_torch_function_impl

    def tolist(self) -> Any:
        return self.values.tolist()

    @classmethod
    def __torch_dispatch__(
        cls, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        with OtherDevice():
            return function(*args, **(kwargs or {}))


def _plain(value: Any) -> Any:
    return value.values if isinstance(value, _There) else value
