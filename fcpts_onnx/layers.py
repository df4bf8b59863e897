"""TWIN: layers as products: the matrix that a layer's weight is multiplied with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from fcpts_onnx.steps import Step
from fcpts_onnx.weights import Weight

__all__ = ["Layer", "layers"]

_DATA, _WEIGHT, _BIAS = 0, 1, 2
_CHANNELS_SECOND = ("Conv", "ConvTranspose")


@dataclass(frozen=True)
class Layer:
    """A layer with one weight, as Y = X W, for each group of its channels.

    Attributes:
        weight: its weight.
        data: the name of what it multiplies.
        output: the name of what it gives, its bias added.
        bias: the name of that bias, if it has one.
        product: the step without the bias.
    """

    weight: Weight
    data: str
    output: str
    bias: str | None
    product: Step

    @cached_property
    def groups(self) -> int:
        """How many groups of channels are multiplied on their own."""
        return int(self.product.attributes.get("group", 1))

    def rows(self, weight: Tensor) -> Tensor:
        """The stored weight as (groups, output channels of one, inputs of one)."""
        assert self.weight.channel_axis is not None
        flat = weight.movedim(self.weight.channel_axis, 0).flatten(1)
        return flat.reshape(self.groups, -1, flat.shape[1])

    def stored(self, rows: Tensor) -> Tensor:
        """`rows` back in the layout of the stored weight."""
        axis = self.weight.channel_axis
        assert axis is not None
        shape = list(self.weight.shape)
        moved = [shape.pop(axis), *shape]
        return rows.reshape(moved).movedim(0, axis).contiguous()

    def matrix(self, data: Tensor) -> Tensor:
        """What the rows are multiplied with: (groups, places, inputs of one).

        The operator itself gives it, with unit vectors for weights, so that padding, strides and
        the like are its own.
        """
        axis = self.weight.channel_axis
        assert axis is not None
        inner = [size for place, size in enumerate(self.weight.shape) if place != axis]
        count = int(torch.Size(inner).numel())
        units = torch.eye(count, dtype=data.dtype, device=data.device).reshape(count, *inner)
        units = units.repeat(self.groups, *[1] * len(inner)).movedim(0, axis)
        (name,) = self.product.inputs[_WEIGHT : _WEIGHT + 1]
        assert name is not None
        (found,) = self.product.run({self.data: data, name: units})
        return self.places(found)

    def places(self, output: Tensor) -> Tensor:
        """What the layer gives, as (groups, places, output channels of one)."""
        axis = 1 if self.product.op in _CHANNELS_SECOND else -1
        flat = output.movedim(axis, -1).flatten(0, -2)
        return flat.reshape(len(flat), self.groups, -1).movedim(1, 0)


def layers(steps: Sequence[Step], weights: Sequence[Weight]) -> dict[str, Layer]:
    """The layers whose weights are read as they are stored, and once, by weight, in graph order."""
    known = {weight.value: weight for weight in weights}
    readers: dict[str, list[Step]] = {}
    for step in steps:
        for name in step.reads & known.keys():
            readers.setdefault(name, []).append(step)
    found = {}
    for name, (step, *others) in readers.items():
        product = step.parts[0] if step.parts else step
        is_second = len(product.inputs) > _WEIGHT and product.inputs[_WEIGHT] == name
        data = product.inputs[_DATA]
        if others or not is_second or data is None or known[name].channel_axis is None:
            continue
        bias = step.inputs[_BIAS] if len(step.inputs) > _BIAS else None
        plain = replace(product, inputs=product.inputs[: _WEIGHT + 1])
        found[known[name].name] = Layer(known[name], data, step.outputs[0], bias, plain)
    return found
