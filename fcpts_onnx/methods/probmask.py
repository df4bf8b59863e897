"""RIVALS: ProbMask, a probability for each weight to be kept, on a global budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fcpts_onnx.errors import CheckpointError
from fcpts_onnx.sparsity.budget import counts_by_rank
from fcpts_onnx.sparsity.mask import apply_mask, mask_of_smallest
from fcpts_onnx.sparsity.task import Task
from fcpts_onnx.sparsity.thresholds import Thresholds, Values, cubic_ramp, ramp_progress

__all__ = ["ProbabilisticMasks"]

_COLDEST = 0.03  # what the temperature of masks ends at, from 1
_DENSE = 0.16 / 0.6  # of the ramp, before the first zeros, as in the published code
_LEARNED = 300 / 320  # of the run; then weights alone learn, as there
_HALVINGS = 20
_EDGE = 1e-6  # of probabilities, where their logarithm is taken


class ProbabilisticMasks(Thresholds):
    """Masks drawn by the Gumbel-softmax trick, their probabilities learned with the weights.

    Zhou et al. (2021), Algorithm 1: after each step probabilities are projected onto a sum of at
    most what may be left, which falls along a cubic ramp; the temperature of the masks falls from 1
    to 0.03. Then the most probable weights are kept, exactly as many as there shall be, where the
    published code draws once more, and the weights learn on for a while. Left out of that code: the
    mean of two draws a step, and the limit on the length of gradients.
    """

    optimizer = "adam"
    changing = ("_temperature", "_final")

    def __init__(self, values: Values, task: Task) -> None:
        self._recipe, self._budget = task.recipe, task.budget
        device = next(iter(values.values())).device
        self._random = torch.Generator(device).manual_seed(task.seed)
        self._temperature = 1.0
        self._kept = {name: nn.Parameter(torch.ones_like(value)) for name, value in values.items()}
        self._final: dict[str, Tensor] = {}  # masks to end with

    def state(self) -> dict[str, Any]:
        return {**super().state(), "random": self._random.get_state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        rest = dict(state)
        random = rest.pop("random").cpu()
        if random.shape != self._random.get_state().shape:
            raise CheckpointError(
                "It began on another kind of device, whose random numbers are others. Go on there "
                "with --device, or start anew without --resume."
            )
        self._random.set_state(random)
        super().restore(rest)

    def parameters(self) -> list[nn.Parameter]:
        return list(self._kept.values())

    def begin_step(self, values: Values, progress: float) -> None:
        learned = progress / _LEARNED
        if learned >= 1:
            self._final = self._final or self._most_probable(values)
            return
        dense = _DENSE * self._recipe.ramp
        ramp = ramp_progress(max(0.0, learned - dense), self._recipe.ramp - dense)
        self._project(cubic_ramp(ramp))
        self._temperature = 1 - (1 - _COLDEST) * learned

    def masked(self, values: Values) -> dict[str, Tensor]:
        if self._final:
            return {name: value * self._final[name] for name, value in values.items()}
        return {name: value * self._drawn(self._kept[name]) for name, value in values.items()}

    def settle(self, values: Values) -> dict[str, Tensor]:
        masks = self._final or self._most_probable(values)
        return {name: apply_mask(masks[name], value) for name, value in values.items()}

    def _most_probable(self, values: Values) -> dict[str, Tensor]:
        """1 for the weights that are kept in the end."""
        kept = {
            name: probability.detach().masked_fill(values[name] == 0, -1.0)  # they stay zeros
            for name, probability in self._kept.items()
        }
        counts = self._budget.counts(counts_by_rank(kept, self._budget.zeros))
        return {name: mask_of_smallest(kept[name], counts[name]) for name in values}

    def _drawn(self, kept: Tensor) -> Tensor:
        """A soft mask, between 0 and 1: both Gumbel variables together are one logistic."""
        uniform = torch.rand(kept.shape, generator=self._random, device=kept.device)
        noise = uniform.clamp(_EDGE, 1 - _EDGE).logit()
        # At 0 and 1 the gradient passes all the same: what is gone can come back.
        inside = kept + (kept.clamp(_EDGE, 1 - _EDGE) - kept).detach()
        return torch.sigmoid((inside.logit() + noise) / self._temperature)

    @torch.no_grad()
    def _project(self, share: float) -> None:
        """The nearest probabilities with at most the sum that is left at this share of the ramp."""
        kept = list(self._kept.values())
        count = sum(part.numel() for part in kept)
        most = count - share * self._budget.zeros
        low, high = 0.0, max(float(part.max()) for part in kept)
        if sum(float(part.clamp(0, 1).sum()) for part in kept) <= most:
            high = 0.0
        for _ in range(_HALVINGS if high else 0):
            middle = (low + high) / 2
            excess = sum(float((part - middle).clamp(0, 1).sum()) for part in kept) > most
            low, high = (middle, high) if excess else (low, middle)
        for part in kept:
            part.sub_(high).clamp_(0, 1)
