"""RegNetX: Radosavovic et al., *Designing Network Design Spaces*, 2020."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from tools.networks.layers import conv_norm

__all__ = ["regnetx_200mf", "regnetx_400mf"]


class Block(nn.Module):
    """A grouped 3x3 convolution between two of 1x1, none of them narrower; and the shortcut."""

    def __init__(self, inputs: int, outputs: int, group_width: int, stride: int) -> None:
        super().__init__()
        keeps = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if keeps else conv_norm(inputs, outputs, 1, stride=stride)
        self.body = nn.Sequential(
            conv_norm(inputs, outputs, 1),
            nn.ReLU(),
            conv_norm(outputs, outputs, 3, stride=stride, groups=outputs // group_width),
            nn.ReLU(),
            conv_norm(outputs, outputs, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.body(x))


def regnetx_200mf() -> nn.Sequential:
    """RegNetX-200MF for ImageNet, with the paper's widths."""
    return regnetx((24, 56, 152, 368), (1, 1, 4, 7), group_width=8)


def regnetx_400mf() -> nn.Sequential:
    """RegNetX-400MF for ImageNet, with torchvision's widths: the paper's last stage has 384."""
    return regnetx((32, 64, 160, 400), (1, 2, 7, 12), group_width=16)


def regnetx(widths: Sequence[int], depths: Sequence[int], *, group_width: int) -> nn.Sequential:
    """The stem, stages of blocks that each halve the size, and a classifier of 1000 classes."""
    inputs = 32
    layers: list[nn.Module] = [conv_norm(3, inputs, 3, stride=2), nn.ReLU()]
    for width, depth in zip(widths, depths, strict=True):
        for place in range(depth):
            layers.append(Block(inputs, width, group_width, 1 if place else 2))
            inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000))
