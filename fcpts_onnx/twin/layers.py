"""TWIN: layers as products: the matrix that a layer's weight is multiplied with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from fcpts_onnx.twin.steps import Step
from fcpts_onnx.weights import Weight

__all__ = ["Layer", "layers"]

_DATA, _WEIGHT, _BIAS = 0, 1, 2
_CHANNELS_SECOND = ("Conv", "ConvTranspose")
_OPERATORS = (*_CHANNELS_SECOND, "Gemm", "MatMul")


@dataclass(frozen=True)
class Layer:
    """A layer with one weight, as Y = X W, for each group of its channels.

    Attributes:
        place: of its step in the graph.
        weight: its weight.
        data: the name of what it multiplies.
        bias: the name of the bias that it adds and nothing else reads, one value a channel, in
            whatever shape.
        product: the step without the bias.
    """

    place: int
    weight: Weight
    data: str
    bias: str | None
    product: Step

    @cached_property
    def groups(self) -> int:
        """How many groups of channels are multiplied on their own."""
        return int(self.product.attributes.get("group", 1))

    @property
    def axis(self) -> int:
        """Of the stored weight's output channels."""
        assert self.weight.channel_axis is not None
        return self.weight.channel_axis

    def rows(self, weight: Tensor) -> Tensor:
        """The stored weight as (groups, output channels of one, inputs of one)."""
        flat = weight.movedim(self.axis, 0).flatten(1)
        return flat.reshape(self.groups, -1, flat.shape[1])

    def stored(self, rows: Tensor) -> Tensor:
        """`rows` back in the layout of the stored weight."""
        shape = list(self.weight.shape)
        moved = [shape.pop(self.axis), *shape]
        return rows.reshape(moved).movedim(0, self.axis).contiguous()

    def matrix(self, data: Tensor) -> Tensor:
        """What the rows are multiplied with: (groups, places, inputs of one).

        The operator itself gives it, with unit vectors for weights, so that padding, strides and
        the like are its own.
        """
        if self.product.op == "MatMul":
            return data.reshape(-1, data.shape[-1])[None]
        if self.product.op == "Conv":
            return self._patches(data)
        inner = [size for place, size in enumerate(self.weight.shape) if place != self.axis]
        count = int(torch.Size(inner).numel())
        units = torch.eye(count, dtype=data.dtype, device=data.device).reshape(count, *inner)
        units = units.repeat(self.groups, *[1] * len(inner)).movedim(0, self.axis)
        return self.times(data, units)

    def _patches(self, data: Tensor) -> Tensor:
        """As `matrix`, of a convolution, each channel on its own: most unit vectors are zeros."""
        channels, kernel = data.shape[1], self.weight.shape[2:]
        count = torch.Size(kernel).numel()
        units = torch.eye(count, dtype=data.dtype, device=data.device)
        units = units.reshape(count, 1, *kernel).repeat(channels, *[1] * (1 + len(kernel)))
        attributes = {**self.product.attributes, "group": channels}
        alone = replace(self, product=replace(self.product, attributes=attributes))
        patches = alone.times(data, units)  # (channels, places, count)
        return patches.unflatten(0, (self.groups, -1)).transpose(1, 2).flatten(2)

    @property
    def units(self) -> int:
        """How many numbers there are in the unit vectors that `matrix` gives a convolution."""
        if self.product.op != "Conv":
            return 0
        inputs, *kernel = self.weight.shape[1:]
        return self.groups * inputs * prod(kernel) ** 2

    @property
    def is_by_sample(self) -> bool:
        """Whether the first axis of what it reads is that of samples for certain."""
        return self.product.op in _CHANNELS_SECOND

    def times(self, data: Tensor, weight: Tensor) -> Tensor:
        """Data times a stored weight: (groups, places, output channels of one)."""
        name = self.product.inputs[_WEIGHT]
        assert name is not None
        (output,) = self.product.run({self.data: data, name: weight})
        axis = 1 if self.product.op in _CHANNELS_SECOND else -1
        flat = output.movedim(axis, -1).reshape(-1, output.shape[axis])
        return flat.reshape(len(flat), self.groups, -1).movedim(1, 0)


def layers(
    steps: Sequence[Step], weights: Sequence[Weight], learned: Mapping[str, Tensor]
) -> dict[str, Layer]:
    """The layers whose weights are read as they are stored, and once, by weight, in graph order.

    Left out are stacks of matrices, as of the experts of a mixture: each is a product of its own.

    Args:
        learned: what may change, by name; a bias that may not is none here.
    """
    known = {weight.value: weight for weight in weights}
    readers: dict[str, list[Step]] = {}
    for step in steps:
        for read in step.reads:
            readers.setdefault(read, []).append(step)
    found = {}
    for place, step in enumerate(steps):
        product = step if step.op in _OPERATORS else next(iter(step.parts), step)
        if product.op not in _OPERATORS:
            continue
        data, name = product.inputs[_DATA], product.inputs[_WEIGHT]
        if name is None or name not in known or data is None or len(readers[name]) > 1:
            continue
        if known[name].channel_axis is None or _is_stack(known[name]):
            continue
        bias = _bias(step, product, known[name], learned)
        # One that several layers share stays as it is.
        bias = bias if bias is not None and len(readers[bias]) == 1 else None
        plain = replace(product, inputs=product.inputs[: _WEIGHT + 1])
        found[known[name].name] = Layer(place, known[name], data, bias, plain)
    return found


def _bias(step: Step, product: Step, weight: Weight, learned: Mapping[str, Tensor]) -> str | None:
    """What is added to a product, if it is learned, as it is, and one value a channel."""
    name = next(iter(step.inputs[_BIAS:]), None)
    bias = None if name is None else learned.get(name)
    if bias is None or bias.numel() != weight.channels or product.attributes.get("beta", 1.0) != 1:
        return None
    # A Gemm may add one value a row instead.
    is_row = bias.shape[-1:].numel() == bias.numel()
    return name if product.op in _CHANNELS_SECOND or is_row else None


def _is_stack(weight: Weight) -> bool:
    """Whether a weight of MatMul is more than one matrix."""
    return weight.op == "MatMul" and prod(weight.shape[:-2]) > 1
