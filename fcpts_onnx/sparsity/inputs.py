"""LEARN: what layers read and give in the dense network, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from fcpts_onnx.calibration import Calibration
from fcpts_onnx.twin import Twin
from fcpts_onnx.twin.layers import Layer

__all__ = ["inputs_of", "values_of"]

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


@torch.no_grad()
def values_of(twin: Twin, batch: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """What the dense network gives for a batch, a part at a time: that takes less memory.

    Values without samples along their first axis cannot be put together, and come of a whole pass.

    Args:
        names: of outputs, and of values inside the graph.
    """
    count = len(next(iter(batch.values())))
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    for start in range(0, count, _BATCH):
        part = {name: value[start : start + _BATCH] for name, value in batch.items()}
        values, samples = twin(part, fetch=names), len(next(iter(part.values())))
        if any(values[name].shape[:1] != (samples,) for name in names):
            values = twin(batch, fetch=names)
            return {name: values[name] for name in names}
        for name in names:
            found[name].append(values[name])
    return {name: torch.cat(parts) for name, parts in found.items()}
