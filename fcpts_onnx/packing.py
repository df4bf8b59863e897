"""LEARN: a state as JSON and tensors, so that nothing in a file is ever executed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["flat", "moved", "packed", "unpacked"]


def moved(state: Any, device: torch.device) -> Any:
    """A state with its tensors on a device."""
    if isinstance(state, Tensor):
        return state.to(device)
    if isinstance(state, Mapping):
        return {name: moved(value, device) for name, value in state.items()}
    if isinstance(state, list):
        return [moved(value, device) for value in state]
    return state


def packed(value: Any, tensors: dict[str, Tensor], seen: dict[Any, str]) -> Any:
    """A state as JSON has it, with a text for each tensor: its number, and its axes in memory.

    What is there twice is stored once. The order of axes is kept, as sums depend on it.
    """
    if isinstance(value, Tensor):
        value = value.detach()
        place = (value.data_ptr(), value.dtype, value.shape, value.stride())
        if place not in seen:
            axes = list(range(value.ndim))
            if not value.is_contiguous():
                axes = sorted(axes, key=lambda axis: -value.stride(axis))
            tensors[str(len(tensors))] = value.permute(axes).contiguous().cpu()
            seen[place] = " ".join(map(str, (len(tensors) - 1, *axes)))
        return seen[place]
    if isinstance(value, Mapping):
        return {name: packed(entry, tensors, seen) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [packed(entry, tensors, seen) for entry in value]
    return value


def unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, str):
        name, *axes = value.split()
        return tensors[name].permute([axes.index(str(axis)) for axis in range(len(axes))])
    if isinstance(value, dict):
        return {name: unpacked(entry, tensors) for name, entry in value.items()}
    if isinstance(value, list):
        return [unpacked(entry, tensors) for entry in value]
    return value


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by a name with dots for each mapping inside another."""
    found: dict[str, Any] = {}
    for name, entry in value.items():
        if isinstance(entry, Mapping):
            found |= flat(entry, f"{prefix}{name}.")
        else:
            found[prefix + name] = entry
    return found
