"""Random views of images: what each may change, and how much."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fcpts_onnx.views import random_view

SHADES = torch.arange(0, 256, 16, dtype=torch.uint8)


def views(kind: str, pixels: Tensor, count: int = 40) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [random_view(pixels, [kind], generator) for _ in range(count)]


def plain() -> Tensor:
    """Images of one shade each, 12 x 16."""
    return SHADES[:, None, None, None].expand(-1, 12, 16, 3).contiguous()


def test_nothing_changes_unless_asked_for() -> None:
    pixels = torch.randint(256, (4, 8, 8, 3), dtype=torch.uint8)
    assert torch.equal(random_view(pixels, [], torch.Generator()), pixels)


def test_flips() -> None:
    pixels = torch.randint(256, (16, 8, 8, 3), dtype=torch.uint8)
    turned = 0
    for view in views("flip", pixels):
        for image, seen in zip(pixels, view, strict=True):
            turned += not torch.equal(image, seen)
            assert torch.equal(seen, image) or torch.equal(seen, image.flip(1))
    assert turned == pytest.approx(320, abs=60)


def test_mixtures_are_blends_or_patches_of_at_most_half_of_another_image() -> None:
    blends = patches = 0
    for view in views("mix", plain()):
        assert view.dtype == torch.uint8
        shades = [image.unique() for image in view]
        if all(len(found) == 1 for found in shades):
            blends += 1
            away = torch.cat(shades).float() - SHADES.float()
            assert float(away.abs().max()) <= 128
            continue
        patches += 1
        for own, image in zip(SHADES, view, strict=True):
            other = image[..., 0] != own
            assert set(image.unique().tolist()) <= set(SHADES.tolist())
            assert float(other.float().mean()) <= 0.56  # sides are whole pixels
            rows, columns = other.any(1).sum(), other.any(0).sum()
            assert int(other.sum()) == int(rows * columns)  # a rectangle
    assert blends > 10
    assert patches > 10


def test_patches_lie_anywhere() -> None:
    seen = torch.zeros(12, 16, dtype=torch.bool)
    for view in views("mix", plain(), 200):
        for own, image in zip(SHADES, view, strict=True):
            if len(image.unique()) == 2:
                seen |= image[..., 0] != own
    assert bool(seen.all())
