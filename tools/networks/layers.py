"""The layer that every convolutional network here is made of."""

from __future__ import annotations

from torch import nn

__all__ = ["conv_norm"]


def conv_norm(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """A convolution without bias that keeps the size (but for the stride), and batch norm."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    )
