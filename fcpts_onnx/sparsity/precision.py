"""LEARN: the precision of the passes, by the recipe and by what the device is fast in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch

from fcpts_onnx.recipe import Recipe

__all__ = ["precision_of"]


def precision_of(
    recipe: Recipe, device: torch.device
) -> Callable[[], AbstractContextManager[object]]:
    """A context for the passes: bfloat16 where the recipe, or the processor, says so."""
    half = recipe.precision == "bfloat16"
    if recipe.precision == "auto":
        half = (
            _is_fast_in_half(device)
            if device.type == "cuda"
            else bool(_processor().get("amx_bf16", False))
        )
    return partial(torch.autocast, device.type, torch.bfloat16) if half else nullcontext


def _processor() -> Mapping[str, Any]:
    """What the processor can do, as torch tells from 2.11 on."""
    tell: Callable[[], Mapping[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)
    return tell()


def _is_fast_in_half(device: torch.device) -> bool:
    """Whether a GPU computes in bfloat16; older ones imitate it, which is slow."""
    with torch.cuda.device(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)
