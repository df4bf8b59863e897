"""LEARN: what layers read in the dense network, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from fcpts_onnx.calibration import Calibration
from fcpts_onnx.twin import Twin
from fcpts_onnx.twin.layers import Layer

__all__ = ["inputs_of"]

_BATCH = 16


@torch.no_grad()
def inputs_of(
    twin: Twin, calibration: Calibration, found: Mapping[str, Layer], samples: int
) -> Iterator[tuple[str, Tensor, float]]:
    """By layer and batch, what is read and which share of the samples that is of.

    Args:
        samples: how many to draw, the same at each call.
    """
    drawn = calibration.some(samples)
    # A batch size that is written into a graph is one.
    for part in drawn.split(1 if twin.per_sample else _BATCH):
        values, place = twin.begun(calibration.take(part)), 0
        for name, layer in found.items():
            values = twin.through(values, slice(place, layer.place))
            place = layer.place
            yield name, twin.known(values)[layer.data], len(part) / len(drawn)
