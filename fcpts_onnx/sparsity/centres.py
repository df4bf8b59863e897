"""LEARN: what layers read on average: biases can then make up for a change of their weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fcpts_onnx.calibration import Calibration
from fcpts_onnx.sparsity.inputs import inputs_of
from fcpts_onnx.twin import Twin
from fcpts_onnx.twin.layers import Layer, layers
from fcpts_onnx.weights import Weight

__all__ = ["Centre", "centres_of"]

_SAMPLES = 128


@dataclass(frozen=True)
class Centre:
    """What a layer reads on average in the dense network, and the bias that knows of it.

    Attributes:
        bias: the name of what is added to each output channel, a bias or a batch norm's shift.
        axis: of the weight's output channels.
        inputs: the mean of what each value of the weight is multiplied with, in a shape that
            multiplies the weight; of zeros around an image as well.
    """

    bias: str
    axis: int
    inputs: Tensor

    def near(self, weight: Tensor) -> Centre:
        """The same on the device of a weight, images in channels-last memory as there."""
        inputs = self.inputs.to(weight.device)
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return replace(self, inputs=inputs)

    def outputs(self, weight: Tensor) -> Tensor:
        """What each output channel has on average of a weight."""
        return (weight * self.inputs).sum([a for a in range(weight.ndim) if a != self.axis])


def centres_of(
    twin: Twin, calibration: Calibration, weights: Sequence[Weight]
) -> dict[str, Centre]:
    """The centres of all layers with a bias of their own that is learned, by weight.

    Where images are all positive, as behind a ReLU, any change of a weight moves the mean of what
    the layer gives, the more the more inputs it has. Batch norm takes that out again while a
    network is trained; in an exported network it is fixed or folded in, and biases have to learn it
    (Nagel et al. 2019, Section 4.2, correct them after quantisation).
    """
    found = layers(twin.steps, weights, twin.learned)
    biases = {name: _bias(layer) for name, layer in found.items()}
    readers = Counter(name for step in twin.steps for name in step.reads)
    # A shift that other steps read too would move what is none of the layer's.
    own = {
        name: bias for name, bias in biases.items() if bias in twin.learned and readers[bias] == 1
    }
    means = _means(twin, calibration, {name: found[name] for name in own})
    return {name: Centre(bias, found[name].axis, means[name]) for name, bias in own.items() if bias}


def _bias(layer: Layer) -> str | None:
    """A batch norm behind the layer has the last word on each channel's mean."""
    return layer.bias if layer.weight.norm is None else layer.weight.norm.shift


def _means(twin: Twin, calibration: Calibration, found: Mapping[str, Layer]) -> dict[str, Tensor]:
    """Over some samples and all places, of what each value of a weight is multiplied with."""
    means: dict[str, Tensor] = {}
    for name, data, share in inputs_of(twin, calibration, found, _SAMPLES):
        layer = found[name]
        mean = _mean(layer, data, twin.learned[layer.weight.value])
        means[name] = means.get(name, 0.0) + share * mean
    return means


def _mean(layer: Layer, data: Tensor, weight: Tensor) -> Tensor:
    """The gradient of a product's mean is the mean of the other factor."""
    if layer.groups == 1:  # all output channels read the same: one of them says it
        weight = weight.narrow(layer.axis, 0, 1)
    with torch.enable_grad():
        factor = weight.detach().requires_grad_()
        (mean,) = torch.autograd.grad(layer.times(data, factor).mean(1).sum(), factor)
    return mean
