"""DATA: random views of calibration images; the dense network labels whatever it is shown."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["random_view"]


def random_view(pixels: Tensor, kinds: Sequence[str], generator: torch.Generator) -> Tensor:
    """uint8 (batch, height, width, channels) -> the same, each image changed on its own.

    Args:
        kinds: of `recipe.AUGMENTATIONS`.
    """
    if "flip" in kinds:
        chosen = torch.rand(len(pixels), generator=generator) < 0.5
        pixels = torch.where(chosen[:, None, None, None], pixels.flip(2), pixels)
    if "crop" in kinds:
        pixels = _shift(pixels, generator)
    if "mix" in kinds:
        is_blend = torch.rand((), generator=generator) < 0.5
        pixels = (_blended if is_blend else _patched)(pixels, generator)
    return pixels


def _blended(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Each image with up to half of another one of the batch (mixup, Zhang et al. 2018)."""
    others = pixels[torch.randperm(len(pixels), generator=generator)]
    shares = torch.rand(len(pixels), generator=generator)[:, None, None, None] / 2
    return torch.lerp(pixels.float(), others.float(), shares).round().to(pixels.dtype)


def _patched(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Each image with a rectangle, up to half of it, of another one (CutMix, Yun et al. 2019)."""
    count, height, width, _ = pixels.shape
    others = pixels[torch.randperm(count, generator=generator)]
    side = (torch.rand(count, generator=generator) / 2).sqrt()
    rows = _within(height, side, generator)[:, :, None, None]
    columns = _within(width, side, generator)[:, None, :, None]
    return torch.where(rows & columns, others, pixels)


def _within(length: int, share: Tensor, generator: torch.Generator) -> Tensor:
    """For each image, which places along an axis a stretch of that share of it covers."""
    covered = (share * length).round()
    start = (torch.rand(len(share), generator=generator) * (length - covered + 1)).floor()
    places = torch.arange(length)
    return (places >= start[:, None]) & (places < (start + covered)[:, None])


def _shift(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Move each image by up to an eighth of its size; what comes in is mirrored at the edge."""
    count, height, width, _ = pixels.shape
    rows = _moved(height, count, generator)
    columns = _moved(width, count, generator)
    return pixels[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def _moved(length: int, count: int, generator: torch.Generator) -> Tensor:
    """For each image and place along an axis, the place it shows: (count, length)."""
    reach = length // 8
    shift = torch.randint(-reach, reach + 1, (count, 1), generator=generator)
    places = (torch.arange(length) + shift).abs()
    return torch.where(places < length, places, 2 * (length - 1) - places)
