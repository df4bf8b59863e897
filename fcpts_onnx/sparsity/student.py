"""LEARN: the sparse network's parameters, from the stored tensors and back to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from fcpts_onnx.quantization import Grid
from fcpts_onnx.recipe import Recipe
from fcpts_onnx.sparsity.thresholds import Thresholds
from fcpts_onnx.weights import Norm, Weight

__all__ = ["Network", "Student"]

_LEAST_SIZE = 0.1  # of biases and norms, for their learning rate: some are all zero
_LEAST_GAIN = 1e-3  # of a channel, relative to the others


class Network(Protocol):
    """What runs the graph and gives gradients: the twin, or an engine in its place.

    Attributes:
        learned: what may change, by its ONNX name.
    """

    learned: dict[str, nn.Parameter]

    def constant(self, name: str) -> Tensor:
        """The value of a constant float tensor that the graph reads."""

    def prepare(self, device: torch.device) -> None:
        """Make ready to learn on a device."""

    def __call__(
        self, inputs: Mapping[str, Tensor], replaced: Mapping[str, Tensor], /
    ) -> dict[str, Tensor]:
        """The outputs by name, with other tensors for some of those learned."""


class Student:
    """The sparse network's own parameters.

    With channel scales these are the weights as they act: batch norm right behind a layer is
    multiplied in, so that weights compare and learn as those of a network with batch norm folded
    in at export do, and each output channel has a scale, which is what batch norm would learn
    there. In the end all that is divided, or multiplied, back into the stored weights.
    """

    def __init__(self, twin: Network, weights: Sequence[Weight], recipe: Recipe) -> None:
        scaled = [weight for weight in weights if recipe.channel_scales and weight.channels]
        self._gains = {w.name: _gain(w, w.norm, twin) for w in scaled if w.norm is not None}
        self._weights = {
            weight.name: nn.Parameter(
                twin.learned[weight.value].detach() * self._gains.get(weight.name, 1.0)
            )
            for weight in weights
        }
        self._names = {weight.name: weight.value for weight in weights}
        self._grids = {w.name: _Steps(w.grid, self.device) for w in weights if w.grid is not None}
        norms = [weight.norm for weight in scaled if weight.norm is not None]
        fixed = {weight.value for weight in weights} | {norm.scale for norm in norms}
        self._along = {name: v for name, v in twin.learned.items() if name not in fixed}
        self._sizes = {name: _size(value) for name, value in self._along.items()}
        self._sizes |= {norm.shift: _size(_folded_bias(norm, twin)) for norm in norms}
        self._scales = {
            weight.name: nn.Parameter(
                _along_channels(self._weights[weight.name].new_ones(weight.channels or 1), weight)
            )
            for weight in scaled
        }

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return next(iter(self._weights.values())).device

    def kept_dense(self, learned: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The dense network's tensors; of what is learned in place, copies."""
        return {
            name: value.detach().clone() if name in self._along else value.detach()
            for name, value in learned.items()
        }

    @torch.no_grad()
    def put_back(self, dense: Mapping[str, Tensor]) -> None:
        """Set what is learned in place to what it was."""
        for name, value in self._along.items():
            value.copy_(dense[name])

    def groups(self, recipe: Recipe) -> list[dict[str, Any]]:
        """A parameter group for each tensor, with its learning rate; only weights decay."""
        relative = recipe.optimizer == "adam"
        rate, channel_rate = recipe.learning_rate, recipe.learning_rate * recipe.channel_rate
        groups = []
        for weight in self._weights.values():
            lr = rate * _size(weight) if relative else rate
            groups.append({"params": [weight], "lr": lr, "weight_decay": recipe.weight_decay})
        for name, value in (*self._along.items(), *self._scales.items()):
            size = max(self._sizes.get(name, 1.0), _LEAST_SIZE) if relative else 1.0
            groups.append({"params": [value], "lr": channel_rate * size, "weight_decay": 0.0})
        return groups

    def values(self) -> dict[str, Tensor]:
        """The weights as they act, before any mask."""
        return {
            name: weight * self._scales[name] if name in self._scales else weight
            for name, weight in self._weights.items()
        }

    def stored(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights as the graph has them, from weights as they act, by name of their values."""
        result = {}
        for name, value in values.items():
            value = value / self._gains[name] if name in self._gains else value
            result[self._names[name]] = (
                self._grids[name].rounded(value) if name in self._grids else value
            )
        return result

    @torch.no_grad()
    def finish(self, thresholds: Thresholds) -> dict[str, Tensor]:
        """All learned tensors as the graph has them, with exactly the zeros of the budget."""
        values = self.values()
        masks = thresholds.settle(values)
        result = {name: value.detach().clone() for name, value in self._along.items()}
        for name, value in values.items():
            # A kept weight that happens to be zero would be one zero too many.
            kept = torch.where(value == 0, torch.finfo(value.dtype).tiny, value)
            result |= self.stored({name: torch.where(masks[name] != 0, kept, 0.0)})
        return {name: value.cpu() for name, value in result.items()}


class _Steps:
    """The grid of a weight that is stored as whole numbers."""

    def __init__(self, grid: Grid, device: torch.device) -> None:
        self._scale = torch.from_numpy(np.asarray(grid.scale)).to(device)
        self._low, self._high = (
            torch.from_numpy(np.asarray(limit)).to(device) for limit in grid.limits
        )

    def rounded(self, value: Tensor) -> Tensor:
        """The nearest values of the grid; what is not zero does not become so.

        The gradient passes as if nothing were rounded (Bengio et al. 2013).
        """
        steps = value.detach() / self._scale
        away = torch.where((steps < 0) & (self._low < 0) | (self._high < 1), -1.0, 1.0)
        whole = steps.round()
        whole = torch.where((whole == 0) & (steps != 0), away, whole)
        whole = torch.minimum(torch.maximum(whole, self._low), self._high)
        return value + (whole * self._scale - value).detach()


def _gain(weight: Weight, norm: Norm, twin: Network) -> Tensor:
    """What batch norm multiplies each channel with; never nearly zero, to be divided by."""
    gain = _exact_gain(norm, twin)
    least = _LEAST_GAIN * gain.abs().mean()
    gain = torch.where(gain.abs() < least, torch.where(gain < 0, -least, least), gain)
    return _along_channels(gain, weight)


def _exact_gain(norm: Norm, twin: Network) -> Tensor:
    variance = twin.constant(norm.variance) + norm.epsilon
    return twin.constant(norm.scale).detach() / variance.sqrt()


def _folded_bias(norm: Norm, twin: Network) -> Tensor:
    """The bias that a layer has once batch norm is folded into it, less what its own adds."""
    return twin.constant(norm.shift) - twin.constant(norm.mean) * _exact_gain(norm, twin)


def _along_channels(values: Tensor, weight: Weight) -> Tensor:
    """One value an output channel, in a shape that multiplies the weight."""
    shape = [size if axis == weight.channel_axis else 1 for axis, size in enumerate(weight.shape)]
    return values.reshape(shape)


def _size(parameter: Tensor) -> float:
    """The root mean square of a tensor's values."""
    return float(parameter.detach().square().mean().sqrt())
