"""LEARN: one threshold a layer: learned by cost or by score, or set for a given count."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from fcpts_onnx.recipe import Recipe
from fcpts_onnx.sparsity.bridge import (
    DEAD,
    Density,
    histogram_density,
    in_order,
    kde_density,
    marginal_cost,
    rate,
    sample,
)
from fcpts_onnx.sparsity.budget import control_loss
from fcpts_onnx.sparsity.mask import apply_mask, apply_threshold, kth_smallest, mask_of_smallest
from fcpts_onnx.sparsity.task import Task

__all__ = [
    "CostThresholds",
    "FixedThresholds",
    "ScoreThresholds",
    "Start",
    "Thresholds",
    "Values",
    "cubic_ramp",
    "ramp_progress",
]

Values = Mapping[str, Tensor]
"""Weight values by initializer name, before any mask."""

_LEAST_THRESHOLD = 1e-6  # that a score stands for, and how far below 1 the greatest is
_LARGEST_RATIO = math.exp(2)  # a layer's cost counts as at most so many times the mean
_LARGEST_MOVE = 0.25  # of the logarithm of that; costs grow as the square, so half a Newton step


class Thresholds(ABC):
    """What the learning loop asks of any of them.

    What they hold is replaced, never changed, but for parameters: a shallow copy keeps their state.

    Attributes:
        masks: 1 where a weight is left, by weight, where what is left can make up for the others.
        holds_target: whether it ends with exactly the budget's zeros.
        optimizer: "sgd" or "adam", what moves its parameters.
        decays: whether these decay as weights do.
        changing: the names of what it holds that is another at each step, but for parameters.
    """

    holds_target = True
    optimizer = "sgd"
    decays = False
    changing: tuple[str, ...] = ()
    masks: Mapping[str, Tensor] = MappingProxyType({})

    @abstractmethod
    def __init__(self, values: Values, task: Task) -> None:
        """Begin on the dense network's weights."""

    def parameters(self) -> list[nn.Parameter]:
        """What the optimizer moves."""
        return []

    def state(self) -> dict[str, Any]:
        """What it holds but for parameters, for a checkpoint."""
        return {name: getattr(self, name) for name in self.changing}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        for name, value in state.items():
            setattr(self, name, value)

    def groups(self, recipe: Recipe) -> list[dict[str, Any]]:
        """The parameters with their rate and decay."""
        rate = recipe.learning_rate * recipe.threshold_rate
        decay = recipe.weight_decay if self.decays else 0.0
        found = self.parameters()
        return [{"params": found, "lr": rate, "weight_decay": decay}] if found else []

    @abstractmethod
    def begin_step(self, values: Values, progress: float) -> None:
        """Settle the masks for a step, at a share of 0 to 1 of the run."""

    @abstractmethod
    def masked(self, values: Values) -> dict[str, Tensor]:
        """M * W, Eq. 2; what is to be learned of its gradients is, when they come."""

    def control_loss(self, values: Values) -> Tensor:
        """What the sparsity adds to the loss, Eq. 5."""
        return next(iter(values.values())).new_zeros(())

    @abstractmethod
    def settle(self, values: Values) -> dict[str, Tensor]:
        """The sparse weights to end with."""


Start = Callable[[Values, Task], Thresholds]
"""How thresholds begin on the dense network's weights."""


class ScoreThresholds(Thresholds):
    """Algorithm 1 as published: t = sigmoid(score), moved by the optimizer with the weights.

    The control loss pulls the sparsity towards the target but does not hold it there; `settle`
    makes up the difference, layer by layer in proportion to what each has left. A threshold takes
    effect only as far as the layer keeps its least number of weights: without that, layers
    collapse and no gradient is left to bring them back.
    """

    changing = ("_limits", "_steps")

    def __init__(self, values: Values, task: Task) -> None:
        self._budget, self._recipe = task.budget, task.recipe
        self._density = _density(task.recipe)
        device = next(iter(values.values())).device
        self._counts = torch.tensor([float(v.numel()) for v in values.values()]).to(device)
        self._scores = {name: nn.Parameter(_score(v, name, task)) for name, v in values.items()}
        self._limits: dict[str, Tensor] = {}
        self._steps = 0

    def parameters(self) -> list[nn.Parameter]:
        return list(self._scores.values())

    def begin_step(self, values: Values, progress: float) -> None:
        del progress  # scores move with the optimizer alone
        if self._steps % self._recipe.interval == 0:
            self._limits = {
                name: _limit(value.abs(), self._budget.most[name]) for name, value in values.items()
            }
        self._steps += 1

    def masked(self, values: Values) -> dict[str, Tensor]:
        return {name: apply_threshold(v, self._threshold(name)) for name, v in values.items()}

    def control_loss(self, values: Values) -> Tensor:
        rates = [rate(v, self._threshold(name), self._density) for name, v in values.items()]
        excess = control_loss(torch.stack(rates), self._counts, self._budget.target)
        return self._recipe.control_weight * excess

    def settle(self, values: Values) -> dict[str, Tensor]:
        wanted = {
            name: float((value.abs() <= self._threshold(name)).sum())
            for name, value in values.items()
        }
        counts = self._budget.counts(wanted)
        return {
            name: apply_mask(mask_of_smallest(v.abs(), counts[name]), v)
            for name, v in values.items()
        }

    def _threshold(self, name: str) -> Tensor:
        """The threshold in effect; its gradient is the score's even at the limit."""
        free = torch.sigmoid(self._scores[name])
        limit = self._limits.get(name)
        return free if limit is None else free - (free - limit).clamp_min(0).detach()


class _Ramped(Thresholds):
    """Masks that are set anew now and then while the sparsity rises, and then stay."""

    changing: tuple[str, ...] = ("masks", "_settled", "_steps")

    def __init__(self, values: Values, task: Task) -> None:
        self._recipe, self._pattern = task.recipe, task.pattern
        self._weights = {weight.name: weight for weight in task.weights}
        self._steps = 0
        self._settled = False
        self.masks = {name: torch.ones_like(value) for name, value in values.items()}

    def begin_step(self, values: Values, progress: float) -> None:
        ramp = ramp_progress(progress, self._recipe.ramp)
        due = self._steps % self._recipe.interval == 0 or ramp == 1.0
        if not self._settled and due:
            self._advance(values, ramp)
            self._settled = ramp == 1.0
        self._steps += 1

    def masked(self, values: Values) -> dict[str, Tensor]:
        return {name: value * self.masks[name] for name, value in values.items()}

    def settle(self, values: Values) -> dict[str, Tensor]:
        if not self._settled:
            self._set_masks(values, 1.0)
            self._settled = True
        return {name: apply_mask(self.masks[name], value) for name, value in values.items()}

    def _advance(self, values: Values, ramp: float) -> None:
        """Go on to a share of the ramp."""
        self._set_masks(values, cubic_ramp(ramp))

    def _ranked(self, name: str, value: Tensor) -> Tensor:
        return self._pattern.ranked(self._weights[name], value.detach().abs())

    def _mask(self, name: str, value: Tensor, zeros: int) -> Tensor:
        return self._pattern.mask(self._weights[name], value.detach().abs(), zeros)

    @abstractmethod
    def _set_masks(self, values: Values, share: float) -> None:
        """Set masks with this share of all zeros."""


class CostThresholds(_Ramped):
    """Thresholds that move until one more zero costs the same loss in every layer.

    That is where no shift of zeros between layers helps, the optimum under the constraint of
    Eq. 3 held exactly. A layer's cost is the gradient of Eq. 9, dL/dr = dL/dt dt/dr, with one
    kernel for both factors, over the weights just made zero (see `marginal_cost`).

    All layers start at the same rate. A move is in the logarithm of the threshold and of the
    cost: costs grow about as the threshold's square, so that neither the scale of a layer nor
    that of the loss matters. After each move one factor common to all thresholds brings the count
    of zeros onto the budget, which rises along a cubic ramp; when the ramp ends the masks stay.
    """

    changing = (*_Ramped.changing, "_costs", "_logs", "_moved", "_thresholds")

    def __init__(self, values: Values, task: Task) -> None:
        super().__init__(values, task)
        self._budget, self._team = task.budget, task.team
        self._moved = 0.0
        share = task.budget.zeros / sum(value.numel() for value in values.values())
        self._logs = {
            name: _log_quantile(self._ranked(name, value), share, task.budget.most[name])
            for name, value in values.items()
        }
        # On the device: a number that is read there at each step would make it wait.
        self._costs = {name: value.new_zeros(2) for name, value in values.items()}
        self._thresholds: dict[str, Tensor] = {}

    def masked(self, values: Values) -> dict[str, Tensor]:
        masked = super().masked(values)
        if not self._settled:
            for name, value in masked.items():
                value.register_hook(partial(self._observe, name, values[name].detach()))
        return masked

    def _advance(self, values: Values, ramp: float) -> None:
        self._move(min(_LARGEST_MOVE, self._recipe.reach * (ramp - self._moved)))
        self._set_masks(values, cubic_ramp(ramp))
        self._moved = ramp

    def _observe(self, name: str, value: Tensor, gradient: Tensor) -> None:
        """Take what a layer's zeros cost into its running mean, while its gradient is there."""
        keep, kernel = self._recipe.memory, self._recipe.kernel
        found = marginal_cost(value, self.masks[name], gradient, self._thresholds[name], kernel)
        mixed = torch.lerp(torch.stack(found), self._costs[name], keep)
        self._costs = {**self._costs, name: mixed}

    def _move(self, reach: float) -> None:
        """Lower thresholds where a zero costs more than the mean, raise the others."""
        found = self._team.mean(torch.stack([*self._costs.values()]).flatten().tolist())
        costs, masses = found[::2], found[1::2]
        total, weight = sum(costs), sum(masses)
        if total <= 0:
            return
        logs = {}
        for name, cost, mass in zip(self._costs, costs, masses, strict=True):
            ratio = cost / mass / (total / weight) if mass else 1.0
            bounded = max(1 / _LARGEST_RATIO, min(_LARGEST_RATIO, ratio))
            logs[name] = self._logs[name] - reach * math.log(bounded)
        self._logs = logs

    def _set_masks(self, values: Values, share: float) -> None:
        """Exactly a share of the budget's zeros, by one factor on all thresholds."""
        zeros = max(round(share * self._budget.zeros), sum(self._budget.least.values()))
        ranks = {name: self._ranked(name, value) for name, value in values.items()}
        counted = self._budget.counts(self._wanted(ranks, zeros), zeros)
        self.masks = {name: self._mask(name, values[name], counted[name]) for name in counted}
        # Zeros that lie where a pattern has no room rank behind all others, and say nothing.
        self._thresholds = {
            name: torch.where((mask == 0) & ranks[name].isfinite(), ranks[name], 0.0).amax()
            for name, mask in self.masks.items()
        }

    def _wanted(self, ranks: Values, zeros: int) -> dict[str, float]:
        """How many of so many zeros are in each layer, by its threshold and within its bounds."""
        low, high = self._budget.bounds(zeros)
        counts = [rank.numel() for rank in ranks.values()]
        scaled = torch.empty(sum(counts), device=next(iter(ranks.values())).device)
        parts = dict(zip(ranks, scaled.split(counts), strict=True))
        for name, part in parts.items():
            torch.div(ranks[name].flatten(), math.exp(self._logs[name]), out=part)
            _hold(part, low[name], high[name])
        factor = kth_smallest(scaled, max(1, zeros))
        return {name: float((part <= factor).sum()) for name, part in parts.items()}


class FixedThresholds(_Ramped):
    """Thresholds that give each layer a fixed count of zeros, reached along the same cubic ramp."""

    def __init__(self, values: Values, task: Task) -> None:
        super().__init__(values, task)
        assert task.zeros is not None, "zeros have to be shared out before"
        self._zeros = task.zeros

    def _set_masks(self, values: Values, share: float) -> None:
        self.masks = {
            name: self._mask(name, value, round(share * self._zeros[name]))
            for name, value in values.items()
        }


def ramp_progress(progress: float, ramp: float) -> float:
    """How much of a ramp is behind, 0 to 1, if it takes such a share of the run."""
    return min(1.0, progress / ramp) if ramp else 1.0


def cubic_ramp(ramp: float) -> float:
    """The share of the zeros that is there by then: fast at first (Zhu and Gupta 2017)."""
    return 1 - (1 - ramp) ** 3


def _hold(sizes: Tensor, low: int, high: int) -> None:
    """Let a layer's smallest come before those of others, and its largest behind them.

    Else they would take places among all layers that they cannot have, or have anyway, and what
    is left over would go to layers that have a higher cost.
    """
    first, last = mask_of_smallest(sizes, low) == 0, mask_of_smallest(sizes, high) != 0
    sizes.masked_fill_(first, 0.0).masked_fill_(last, math.inf)


def _score(value: Tensor, name: str, task: Task) -> Tensor:
    """Where a score starts: as the recipe says, or at the threshold for so many zeros."""
    if task.start is None:
        return value.new_full((), task.recipe.threshold_start)
    threshold = kth_smallest(value.abs(), max(1, task.start[name]))
    return torch.logit(threshold, eps=_LEAST_THRESHOLD).to(value.device)


def _limit(sizes: Tensor, most: int) -> Tensor:
    """The greatest threshold that takes no more weights."""
    return kth_smallest(sizes, most) if most else sizes.new_zeros(())


def _log_quantile(sizes: Tensor, share: float, most: int) -> float:
    """The logarithm of the threshold that takes a share of a layer's weights, as far as it may.

    It is a share of those that are alive: a layer that begins at the size of its dead ones never
    comes to zeros of its own.
    """
    finite = sizes[sizes.isfinite()]
    if not finite.any():
        return 0.0
    alive = sizes[sizes > DEAD * finite.amax()]
    count = min(most - (sizes.numel() - len(alive)), round(share * len(alive)))
    threshold = float(kth_smallest(alive, max(1, count)))
    return math.log(max(threshold, 1e-12)) if math.isfinite(threshold) else 0.0


def _density(recipe: Recipe) -> Density:
    if recipe.density == "histogram":
        return histogram_density
    return partial(_kde, points=recipe.points, h=recipe.bandwidth)


def _kde(weights: Tensor, threshold: Tensor, *, points: int, h: float) -> Tensor:
    return kde_density(sample(in_order(weights), points), threshold, h)
