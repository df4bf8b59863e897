"""SSD on MobileNets for PASCAL VOC: Liu et al., *SSD: Single Shot MultiBox Detector*, 2016.

Layers, prior boxes and variances are those of github.com/qfgaohao/pytorch-ssd, whose networks the
FCPTS paper prunes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product
from math import sqrt

import torch
from torch import Tensor, nn

from tools.networks.mobilenet import inverted_residual, mobilenetv1_layers, mobilenetv2_layers

__all__ = ["SSD", "Detector", "mobilenetv1_ssd", "mobilenetv2_ssdlite"]

CLASSES = 21  # the first is the background
PRIORS = 6  # boxes a place
# Places along a side of each feature map, their distance and the boxes' side, in pixels of 300.
MAPS = (
    (19, 16, 60), (10, 32, 105), (5, 64, 150), (3, 100, 195), (2, 150, 240), (1, 300, 285),
)  # fmt: skip
SIDE_STEP = 45  # from the boxes of one map to those of the next
SIZE = 300
CENTER_VARIANCE, SIZE_VARIANCE = 0.1, 0.2


class SSD(nn.Module):
    """Class scores (batch, priors, classes) and box offsets (batch, priors, 4).

    Args:
        stages: run one after another; each ends in a feature map.
        classify, locate: a head for each feature map.
    """

    def __init__(
        self,
        stages: Sequence[nn.Module],
        classify: Sequence[nn.Module],
        locate: Sequence[nn.Module],
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.classify = nn.ModuleList(classify)
        self.locate = nn.ModuleList(locate)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores, boxes = [], []
        for stage, classify, locate in zip(self.stages, self.classify, self.locate, strict=True):
            x = stage(x)
            scores.append(_by_prior(classify(x), CLASSES))
            boxes.append(_by_prior(locate(x), 4))
        return torch.cat(scores, 1), torch.cat(boxes, 1)


class Detector(nn.Module):
    """An SSD with what makes its outputs ready for non-maximum suppression.

    Gives probabilities (batch, classes without the background, priors), and corners of boxes
    (batch, priors, 4): left, top, right, bottom, as shares of the image.
    """

    priors: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("priors", prior_boxes(), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores, offsets = self.network(x)
        center = self.priors[:, :2] + CENTER_VARIANCE * offsets[..., :2] * self.priors[:, 2:]
        size = self.priors[:, 2:] * torch.exp(SIZE_VARIANCE * offsets[..., 2:])
        boxes = torch.cat((center - size / 2, center + size / 2), -1)
        return scores.softmax(-1)[..., 1:].transpose(1, 2), boxes


def prior_boxes() -> Tensor:
    """(priors, 4): center and size of each prior box, as shares of the image."""
    boxes = []
    for places, step, side in MAPS:
        between = sqrt(side * (side + SIDE_STEP))
        shapes = [(side, side), (between, between)]
        for ratio in (sqrt(2), sqrt(3)):
            shapes += [(side * ratio, side / ratio), (side / ratio, side * ratio)]
        for row, column, (width, height) in product(range(places), range(places), shapes):
            boxes.append(((column + 0.5) * step, (row + 0.5) * step, width, height))
    return (torch.tensor(boxes) / SIZE).clamp(0, 1)


def mobilenetv1_ssd() -> SSD:
    """MobileNetV1-SSD for images of 300x300."""
    layers = mobilenetv1_layers()
    stages = [nn.Sequential(*layers[:12]), nn.Sequential(*layers[12:])]
    widths = (512, 1024, 512, 256, 256, 256)
    for inputs, outputs in pairwise(widths[1:]):
        stages.append(_extra(inputs, outputs, 256 if inputs == 1024 else 128))

    def heads(outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(width, PRIORS * outputs, 3, padding=1) for width in widths]

    return SSD(stages, heads(CLASSES), heads(4))


def mobilenetv2_ssdlite() -> SSD:
    """MobileNetV2-SSDLite for images of 300x300.

    The first feature map is what the first block of 160 channels widens its input to.
    """
    layers = mobilenetv2_layers()
    block = list(layers[14].children())
    widening, rest = nn.Sequential(*block[:3]), nn.Sequential(*block[3:])
    stages: list[nn.Module] = [
        nn.Sequential(*layers[:14], widening),
        nn.Sequential(rest, *layers[15:]),
    ]
    extras = ((1280, 512, 256), (512, 256, 128), (256, 256, 128), (256, 64, 64))
    for inputs, outputs, width in extras:
        stages.append(inverted_residual(inputs, outputs, 2, width))

    def heads(outputs: int) -> list[nn.Module]:
        separable = [_separable(width, PRIORS * outputs) for width in (576, 1280, 512, 256, 256)]
        return [*separable, nn.Conv2d(64, PRIORS * outputs, 1)]

    return SSD(stages, heads(CLASSES), heads(4))


def _extra(inputs: int, outputs: int, width: int) -> nn.Sequential:
    """1x1 and 3x3 with stride 2, without batch norm."""
    return nn.Sequential(
        nn.Conv2d(inputs, width, 1),
        nn.ReLU(),
        nn.Conv2d(width, outputs, 3, 2, 1),
        nn.ReLU(),
    )


def _separable(inputs: int, outputs: int) -> nn.Sequential:
    """Depthwise 3x3 with batch norm, and 1x1."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs),
        nn.BatchNorm2d(inputs),
        nn.ReLU6(),
        nn.Conv2d(inputs, outputs, 1),
    )


def _by_prior(x: Tensor, width: int) -> Tensor:
    """(batch, priors a place * width, height, width of the map) -> (batch, priors, width)."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, width)
