"""ResNet for CIFAR and ImageNet: He et al., *Deep Residual Learning for Image Recognition*, 2016.

Shortcuts that change shape are convolutions (the paper's option B). Bottlenecks have their stride
in the 3x3 convolution, as everybody's have since.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from tools.networks.layers import conv_norm

__all__ = ["cifar_resnet", "resnet18", "resnet50"]

Block = Callable[[int, int, int], nn.Module]


class Residual(nn.Module):
    """relu(body(x) + shortcut(x))"""

    def __init__(self, body: nn.Module, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        keeps = inputs == outputs and stride == 1
        self.body = body
        self.shortcut = nn.Identity() if keeps else conv_norm(inputs, outputs, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


def basic(inputs: int, outputs: int, stride: int) -> Residual:
    """Two 3x3 convolutions."""
    body = nn.Sequential(
        conv_norm(inputs, outputs, 3, stride=stride), nn.ReLU(), conv_norm(outputs, outputs, 3)
    )
    return Residual(body, inputs, outputs, stride)


def bottleneck(inputs: int, outputs: int, stride: int) -> Residual:
    """A 3x3 convolution on a quarter of the channels, between two of 1x1."""
    width = outputs // 4
    body = nn.Sequential(
        conv_norm(inputs, width, 1),
        nn.ReLU(),
        conv_norm(width, width, 3, stride=stride),
        nn.ReLU(),
        conv_norm(width, outputs, 1),
    )
    return Residual(body, inputs, outputs, stride)


def cifar_resnet(depth: int) -> nn.Sequential:
    """ResNet of 6n + 2 layers for images of 32x32 and 10 classes."""
    stem = [conv_norm(3, 16, 3), nn.ReLU()]
    return resnet(stem, basic, 16, (16, 32, 64), ((depth - 2) // 6,) * 3, classes=10)


def resnet18() -> nn.Sequential:
    """ResNet-18 for ImageNet."""
    return resnet(imagenet_stem(), basic, 64, (64, 128, 256, 512), (2, 2, 2, 2), classes=1000)


def resnet50() -> nn.Sequential:
    """ResNet-50 for ImageNet."""
    widths, depths = (256, 512, 1024, 2048), (3, 4, 6, 3)
    return resnet(imagenet_stem(), bottleneck, 64, widths, depths, classes=1000)


def imagenet_stem() -> list[nn.Module]:
    return [conv_norm(3, 64, 7, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]


def resnet(
    stem: Sequence[nn.Module],
    block: Block,
    inputs: int,
    widths: Sequence[int],
    depths: Sequence[int],
    *,
    classes: int,
) -> nn.Sequential:
    """The stem, stages of blocks that halve the size from the second on, and the classifier.

    Args:
        inputs: channels that the stem gives.
        widths, depths: channels that each stage gives, and its blocks.
    """
    layers = list(stem)
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        for place in range(depth):
            layers.append(block(inputs, width, 2 if stage and not place else 1))
            inputs = width
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)
    return nn.Sequential(*layers, *head)
