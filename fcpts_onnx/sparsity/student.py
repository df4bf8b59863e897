"""LEARN: the sparse network's parameters, from the stored tensors and back to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fcpts_onnx.quantization import Grid
from fcpts_onnx.recipe import Recipe
from fcpts_onnx.sparsity.centres import Centre
from fcpts_onnx.sparsity.compensation import Compensation
from fcpts_onnx.sparsity.network import Network
from fcpts_onnx.sparsity.thresholds import Thresholds
from fcpts_onnx.weights import Norm, Weight

__all__ = ["Student"]

_LEAST_SIZE = 0.1  # of biases and norms, for their learning rate: some are all zero
_LEAST_GAIN = 1e-3  # of a channel, relative to the others


class Student:
    """The sparse network's own parameters.

    With channel scales these are the weights as they act: batch norm right behind a layer is
    multiplied in, so that weights compare and learn as those of a network with batch norm folded
    in at export do, and each output channel has a scale, which is what batch norm would learn
    there. In the end all that is divided, or multiplied, back into the stored weights.

    With centres, biases make up for what a change of the weights, zeros included, does to the mean
    of what a layer gives. Weights then learn from what is read less its mean. With compensations,
    the weights that are left make up for the rest of what zeros do, as far as they can.

    For Adam each tensor is learned in units of its root mean square: one learning rate then
    means the same for all of them, and the optimizer takes them all at once.

    Attributes:
        dense: the dense network's tensors, by their name in the graph.
    """

    def __init__(
        self,
        network: Network,
        weights: Sequence[Weight],
        recipe: Recipe,
        centres: Mapping[str, Centre] | None = None,
        compensations: Mapping[str, Compensation] | None = None,
    ) -> None:
        scaled = [weight for weight in weights if recipe.channel_scales and weight.channels]
        self.dense = {name: value.detach() for name, value in network.learned.items()}
        self._names = {weight.name: weight.value for weight in weights}
        self._gains = {w.name: _gain(w, w.norm, network) for w in scaled if w.norm is not None}
        # Of branches that are switched off, whose weights act as if they were not.
        self._passed = {
            w.name: share
            for w in scaled
            if w.norm is not None
            and (share := _exact_gain(w.norm, network) / self._gains[w.name].flatten()).ne(1).any()
        }
        self._grids = {w.name: _Steps(w.grid, self.device) for w in weights if w.grid is not None}
        acting = {
            name: self.dense[value] * self._gains.get(name, 1.0)
            for name, value in self._names.items()
        }
        norms = [weight.norm for weight in scaled if weight.norm is not None]
        fixed = {*self._names.values(), *(norm.scale for norm in norms)}
        along = {name: value for name, value in self.dense.items() if name not in fixed}
        self._units = dict.fromkeys((*acting, *along), 1.0)
        if recipe.optimizer == "adam":
            self._units = _sizes(acting, along, norms, network)
        self._weights = {name: self._parameter(name, value) for name, value in acting.items()}
        self._along = {name: self._parameter(name, value) for name, value in along.items()}
        self._centres = {
            name: centre.near(acting[name])
            for name, centre in (centres or {}).items()
            if centre.bias in along
        }
        self._compensations = {
            name: compensation.near(acting[name])
            for name, compensation in (compensations or {}).items()
        }
        self._levels = {
            name: centre.outputs(acting[name]) for name, centre in self._centres.items()
        }
        self._scales = {
            weight.name: nn.Parameter(
                _along_channels(acting[weight.name].new_ones(weight.channels or 1), weight)
            )
            for weight in scaled
        }

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return next(iter(self.dense.values())).device

    def parameters(self) -> list[nn.Parameter]:
        """All that the optimizer moves."""
        return [*self._weights.values(), *self._along.values(), *self._scales.values()]

    def groups(self, recipe: Recipe) -> list[dict[str, Any]]:
        """The parameters with their learning rates; only weights decay."""
        others = [*self._along.values(), *self._scales.values()]
        rate = recipe.learning_rate
        return [
            {
                "params": list(self._weights.values()),
                "lr": rate,
                "weight_decay": recipe.weight_decay,
            },
            {"params": others, "lr": rate * recipe.channel_rate, "weight_decay": 0.0},
        ]

    def values(self) -> dict[str, Tensor]:
        """The weights as they act, before any mask."""
        return {
            name: weight * (self._scales.get(name, 1.0) * self._units[name])
            for name, weight in self._weights.items()
        }

    @torch.no_grad()
    def make_up(
        self,
        values: Mapping[str, Tensor],
        before: Mapping[str, Tensor],
        after: Mapping[str, Tensor],
    ) -> bool:
        """Let the weights that are left make up for a change of masks; whether there was any.

        Args:
            values: the weights as they act.
            before, after: masks, 1 where a weight is left.
        """
        lost = {
            name: values[name] * (mask - after[name])
            for name, mask in before.items()
            if name in self._compensations and mask is not after[name]
        }
        for name, change in lost.items():
            if change.any():
                made_up = self._compensations[name].change(change, after[name])
                factor = self._scales.get(name, 1.0) * self._units[name]
                self._weights[name].add_(made_up / factor)
        return bool(lost)

    def tensors(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All tensors that the graph reads, from weights as they act."""
        along = {name: value * self._units[name] for name, value in self._along.items()}
        for name, centre in self._centres.items():
            moved = centre.outputs(values[name]) - self._levels[name]
            moved = moved * self._passed[name] if name in self._passed else moved
            along[centre.bias] = along[centre.bias] - moved.reshape_as(along[centre.bias])
        return self.dense | along | self._stored(values)

    @torch.no_grad()
    def finish(self, thresholds: Thresholds) -> dict[str, Tensor]:
        """All learned tensors as the graph has them, the weights sparse.

        What the last masks take away is made up for too, if they come only now.
        """
        values, masks = self.values(), thresholds.masks
        sparse = thresholds.settle(values)
        if self.make_up(values, masks, thresholds.masks):
            sparse = thresholds.settle(self.values())
        result = self.tensors(sparse)
        learned = {*self._along, *self._names.values()}
        return {name: result[name].cpu() for name in self.dense if name in learned}

    def _parameter(self, name: str, value: Tensor) -> nn.Parameter:
        return nn.Parameter(value / (self._units[name] or 1.0))

    def _stored(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights as the graph has them, by name of their values."""
        result = {}
        for name, value in values.items():
            value = value / self._gains[name] if name in self._gains else value
            result[self._names[name]] = (
                self._grids[name].rounded(value) if name in self._grids else value
            )
        return result


class _Steps:
    """The grid of a weight that is stored as integers."""

    def __init__(self, grid: Grid, device: torch.device) -> None:
        self._scale = torch.from_numpy(grid.step).to(device)
        self._dead = torch.from_numpy(np.asarray(grid.scale == 0)).to(device)
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
        whole = torch.minimum(torch.maximum(whole, self._low), self._high)
        whole = torch.where((whole == 0) & (steps != 0), away, whole)
        # Where the scale is 0 nothing that is stored changes a value.
        passed = torch.where(self._dead, 0.0, value)
        return passed + (whole * self._scale - passed).detach()


def _sizes(
    acting: Mapping[str, Tensor],
    along: Mapping[str, Tensor],
    norms: Sequence[Norm],
    network: Network,
) -> dict[str, float]:
    """What each tensor is learned in units of: weights as they act, and all that is beside them."""
    sizes = {name: _size(value) for name, value in along.items()}
    sizes |= {norm.shift: _size(_folded_bias(norm, network)) for norm in norms}
    units = {name: max(size, _LEAST_SIZE) for name, size in sizes.items()}
    return units | {name: _size(value) for name, value in acting.items()}


def _gain(weight: Weight, norm: Norm, network: Network) -> Tensor:
    """What batch norm multiplies each channel with; never nearly zero, to be divided by."""
    gain = _exact_gain(norm, network)
    least = _LEAST_GAIN * gain.abs().mean()
    gain = torch.where(gain.abs() < least, torch.where(gain < 0, -least, least), gain)
    gain = torch.where(gain == 0, 1.0, gain)  # a branch that is switched off as a whole
    return _along_channels(gain, weight)


def _exact_gain(norm: Norm, network: Network) -> Tensor:
    variance = network.constant(norm.variance) + norm.epsilon
    return network.constant(norm.scale).detach() / variance.sqrt()


def _folded_bias(norm: Norm, network: Network) -> Tensor:
    """The bias that a layer has once batch norm is folded into it, less what its own adds."""
    return network.constant(norm.shift) - network.constant(norm.mean) * _exact_gain(norm, network)


def _along_channels(values: Tensor, weight: Weight) -> Tensor:
    """One value an output channel, in a shape that multiplies the weight."""
    shape = [size if axis == weight.channel_axis else 1 for axis, size in enumerate(weight.shape)]
    return values.reshape(shape)


def _size(parameter: Tensor) -> float:
    """The root mean square of a tensor's values."""
    return float(parameter.detach().square().mean().sqrt())
