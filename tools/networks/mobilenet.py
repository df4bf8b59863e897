"""MobileNetV1 and V2: Howard et al. 2017, Sandler et al. 2018; V1 only as the body of an SSD."""

from __future__ import annotations

from torch import Tensor, nn

from tools.networks.layers import conv_norm

__all__ = ["inverted_residual", "mobilenetv1_layers", "mobilenetv2", "mobilenetv2_layers"]

# Channels and stride of each layer after the first.
V1_LAYERS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (512, 1), (512, 1),
    (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip
# Expansion, channels, blocks and stride of each stage: table 2 of the paper.
V2_STAGES = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
    (6, 320, 1, 1),
)  # fmt: skip


class Skip(nn.Module):
    """x + body(x)"""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def mobilenetv1_layers() -> list[nn.Module]:
    """A convolution and 13 depthwise-separable ones."""
    layers: list[nn.Module] = [nn.Sequential(*conv_norm(3, 32, 3, stride=2), nn.ReLU())]
    inputs = 32
    for outputs, stride in V1_LAYERS:
        depthwise = conv_norm(inputs, inputs, 3, stride=stride, groups=inputs)
        pointwise = conv_norm(inputs, outputs, 1)
        layers.append(nn.Sequential(*depthwise, nn.ReLU(), *pointwise, nn.ReLU()))
        inputs = outputs
    return layers


def mobilenetv2_layers() -> list[nn.Module]:
    """A convolution, 17 inverted residuals and a 1x1 convolution to 1280 channels."""
    inputs = 32
    layers: list[nn.Module] = [nn.Sequential(*conv_norm(3, inputs, 3, stride=2), nn.ReLU6())]
    for expansion, outputs, blocks, stride in V2_STAGES:
        for place in range(blocks):
            step = 1 if place else stride
            layers.append(inverted_residual(inputs, outputs, step, inputs * expansion))
            inputs = outputs
    return [*layers, nn.Sequential(*conv_norm(inputs, 1280, 1), nn.ReLU6())]


def inverted_residual(inputs: int, outputs: int, stride: int, width: int) -> nn.Module:
    """1x1 to `width` channels where that is another number, depthwise 3x3, linear 1x1."""
    expand = [*conv_norm(inputs, width, 1), nn.ReLU6()] if width != inputs else []
    depthwise = conv_norm(width, width, 3, stride=stride, groups=width)
    body = nn.Sequential(*expand, *depthwise, nn.ReLU6(), *conv_norm(width, outputs, 1))
    return Skip(body) if inputs == outputs and stride == 1 else body


def mobilenetv2() -> nn.Sequential:
    """MobileNetV2 for ImageNet."""
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000)
    return nn.Sequential(*mobilenetv2_layers(), *head)
