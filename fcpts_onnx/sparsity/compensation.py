"""LEARN: what masks take away, the weights that are left make up for, in closed form."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fcpts_onnx.calibration import Calibration
from fcpts_onnx.sparsity.inputs import inputs_of
from fcpts_onnx.twin import Twin
from fcpts_onnx.twin.layers import Layer, layers
from fcpts_onnx.weights import Weight

__all__ = ["Compensation", "compensations_of"]

_SAMPLES = 256
_PLACES = 2**15  # of a layer, as far as there are so many
_MOST_INPUTS = 2**13  # a square of so many takes 256 MiB
_MOST_UNITS = 2**24  # large depthwise kernels: their layers would take minutes each
_DAMPING = 0.03  # of the mean square of a group's inputs
_LEAST_SPREAD = 1e-5  # of the mean square: less is rounding
_ITERATIONS = 10
_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Compensation:
    """How the inputs of a layer go together, so that one weight can stand in for another.

    Attributes:
        gram: mean of X^T X over samples and places, of a mean of 1 along each group's diagonal, or
            zeros where a group reads nothing that varies: (groups, inputs, inputs).
    """

    layer: Layer
    gram: Tensor

    def near(self, weight: Tensor) -> Compensation:
        """The same on the device of a weight."""
        return replace(self, gram=self.gram.to(weight.device))

    def change(self, lost: Tensor, mask: Tensor) -> Tensor:
        """What is best added to the weights that are left.

        It is the d that makes |X (lost - d)|^2 least over the samples, with a little of |d|^2, and
        is zero outside of the mask: Optimal Brain Surgeon (Hassibi and Stork 1993) for many weights
        at once, by conjugate gradients.

        Args:
            lost: what the weights change by, before any d is added, less than zero where they grow.
            mask: 1 where weights are left; both of the weight's shape.
        """
        left = self.layer.rows(mask).float()
        wanted = left * (self.layer.rows(lost).float() @ self.gram)
        found, error, along = torch.zeros_like(wanted), wanted, wanted
        square = _dot(error, error)
        for _ in range(_ITERATIONS):
            image = left * (along @ self.gram) + _DAMPING * along
            step = square / _dot(along, image)
            found, error = found + step * along, error - step * image
            before, square = square, _dot(error, error)
            along = error + square / before * along
        return self.layer.stored(found).to(lost.dtype)


def _dot(left: Tensor, right: Tensor) -> Tensor:
    """By row; never quite zero, to be divided by."""
    return (left * right).sum(-1, keepdim=True).clamp_min(_TINY)


def compensations_of(
    twin: Twin, calibration: Calibration, weights: Sequence[Weight], centred: Collection[str]
) -> dict[str, Compensation]:
    """By weight, for each layer that reads it as it is stored, with not too many inputs or units.

    Args:
        centred: the weights whose bias makes up for means, so that only what inputs are beside
            their means counts.
    """
    found = {
        name: layer
        for name, layer in layers(twin.steps, weights, {}).items()
        if layer.rows(twin.learned[layer.weight.value]).shape[-1] <= _MOST_INPUTS
        and layer.units <= _MOST_UNITS
    }
    grams: dict[str, Tensor] = {}
    means: dict[str, Tensor] = {}
    first: dict[str, Tensor] = {}
    for name, data, share in inputs_of(twin, calibration, found, _SAMPLES):
        x = _some_places(found[name], data, max(1, round(share * _PLACES)))
        if name in centred:  # about any point near the mean, lest rounding outweighs what is left
            x = x - first.setdefault(name, x.mean(1, keepdim=True))
        grams[name] = grams.get(name, 0.0) + share * (x.mT @ x) / x.shape[1]
        means[name] = means.get(name, 0.0) + share * x.mean(1)
    result = {}
    for name, gram in grams.items():
        squares = _mean_squares(gram)
        if name in centred:
            gram = gram - means[name][:, :, None] * means[name][:, None]
        scales = _mean_squares(gram)
        # Of what does not vary only rounding is left.
        scales = torch.where(scales > _LEAST_SPREAD * squares, scales, math.inf)
        if gram.isfinite().all() and scales.isfinite().any():
            result[name] = Compensation(found[name], gram / scales)
    return result


def _mean_squares(gram: Tensor) -> Tensor:
    """Of the inputs of each group, so that damping is the same for those that read small values."""
    return gram.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None]


def _some_places(layer: Layer, data: Tensor, most: int) -> Tensor:
    """The matrix of a batch, of as many samples as it takes: (groups, places, inputs)."""
    x = layer.matrix(data[:1] if layer.is_by_sample else data)
    places = x.shape[1]
    if places > most:
        chosen = torch.randperm(places, generator=torch.Generator().manual_seed(0))[:most]
        x = x[:, chosen]
    elif layer.is_by_sample:  # several at once: one by one they take up to three times as long
        x = layer.matrix(data[: math.ceil(most / places)])
    return x.float().contiguous()  # products of many groups take six times as long in strides
