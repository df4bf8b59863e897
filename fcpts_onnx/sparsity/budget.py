"""LEARN: the global constraint: the control loss (Eq. 3, 8) and exact counts of zeros."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fcpts_onnx.errors import TargetError
from fcpts_onnx.weights import Weight

__all__ = [
    "Budget",
    "behind",
    "control_loss",
    "counts_by_rank",
    "kth_smallest",
    "mask_of_smallest",
]


@dataclass(frozen=True)
class Budget:
    """How many zeros there shall be in all, and how many each layer may take.

    Attributes:
        target: the share of zeros asked for.
        zeros: round(target x prunable), to the weight.
        least: by layer, the zeros that are there already.
        most: by layer, so that it keeps at least one weight an output channel.
        useful: by layer, beyond which zeros gain nothing: as long as others have room for them.
    """

    target: float
    zeros: int
    least: Mapping[str, int]
    most: Mapping[str, int]
    useful: Mapping[str, int]

    @classmethod
    def of(
        cls, weights: Sequence[Weight], target: float, densities: Mapping[str, float] | None = None
    ) -> Budget:
        """The budget of a target on the selected weights.

        Args:
            densities: by layer, if known: the share of weights below which zeros gain nothing.

        Raises:
            TargetError: the target is not between 0 and 1, is below the zeros already there, or
                would empty a layer.
        """
        if not 0 < target < 1:
            raise TargetError(f"The target is {target:g}; expected a share between 0 and 1.")
        count = sum(weight.count for weight in weights)
        zeros, present = round(target * count), sum(weight.zeros for weight in weights)
        if zeros < present:
            raise TargetError(
                f"The target of {target:g} is below the {present / count:.4f} of zeros already "
                f"there ({present} of {count} weights). Ask for more."
            )
        most = {weight.name: max(weight.zeros, weight.count - _floor(weight)) for weight in weights}
        if zeros > sum(most.values()):
            raise TargetError(
                f"The target of {target:g} would empty a layer: one weight an output channel is "
                f"kept, so at most {sum(most.values()) / count:.4f} can be zero. Ask for less."
            )
        least = {weight.name: weight.zeros for weight in weights}
        useful = {
            weight.name: min(
                most[weight.name],
                max(
                    weight.zeros,
                    math.floor(weight.count * (1 - (densities or {}).get(weight.name, 0.0))),
                ),
            )
            for weight in weights
        }
        return cls(target, zeros, least, most, useful)

    def counts(self, wanted: Mapping[str, float], zeros: int | None = None) -> dict[str, int]:
        """Whole counts of zeros by layer, near the wanted ones and with exactly the right sum.

        Args:
            wanted: zeros by layer, any real numbers; a layer beyond its bounds is held at them.
            zeros: the sum, by default the whole budget.
        """
        zeros = self.zeros if zeros is None else max(zeros, sum(self.least.values()))
        # What is useful is filled first, and only then what is not.
        is_enough = zeros <= sum(self.useful.values())
        low, high = (self.least, self.useful) if is_enough else (self.useful, self.most)
        found = {
            name: min(max(round(value), low[name]), high[name]) for name, value in wanted.items()
        }
        # What rounding and bounds leave over goes to the layers in proportion to their room.
        while missing := zeros - sum(found.values()):
            limit = high if missing > 0 else low
            room = {name: abs(limit[name] - value) for name, value in found.items()}
            whole, sign = sum(room.values()), 1 if missing > 0 else -1
            shares = {name: abs(missing) * size // whole for name, size in room.items()}
            if not any(shares.values()):
                largest = sorted(room, key=lambda name: -room[name])[: abs(missing)]
                shares = {name: 1 for name in largest if room[name]}
            for name, share in shares.items():
                found[name] += sign * share
        return found


def control_loss(rates: Tensor, counts: Tensor, target: float) -> Tensor:
    """L_c, Eq. 3; Eq. 8 is what autograd makes of it.

    Args:
        rates: r_i, one a layer.
        counts: N_i, the number of weights of each layer.
    """
    return ((rates * counts).sum() / counts.sum() - target).abs()


def counts_by_rank(scores: Mapping[str, Tensor], zeros: int) -> dict[str, float]:
    """How many of the `zeros` smallest scores of all layers together are in each of them.

    What is no number counts as zero, as the scores of a layer that is all zeros.
    """
    if not zeros:
        return dict.fromkeys(scores, 0.0)
    scores = {name: score.nan_to_num(0.0) for name, score in scores.items()}
    joint = torch.cat([score.flatten() for score in scores.values()])
    threshold = kth_smallest(joint, zeros)
    below = {name: float((score < threshold).sum()) for name, score in scores.items()}
    ties = {name: float((score == threshold).sum()) for name, score in scores.items()}
    share = (zeros - sum(below.values())) / sum(ties.values())
    return {name: below[name] + share * ties[name] for name in scores}


def mask_of_smallest(sizes: Tensor, zeros: int) -> Tensor:
    """A mask with exactly `zeros` zeros, where `sizes` are smallest; of ties the first ones."""
    flat = sizes.flatten()
    if zeros == 0:
        return torch.ones_like(sizes)
    threshold = kth_smallest(flat, zeros)
    mask = flat > threshold
    surplus = flat.numel() - int(mask.sum()) - zeros
    if surplus:
        ties = (flat == threshold).nonzero().flatten()
        mask[ties[-surplus:]] = True
    return mask.to(sizes.dtype).reshape(sizes.shape)


def behind(mask: Tensor, values: Tensor) -> Tensor:
    """M * W with exactly the mask's zeros: one that happens to be zero would be one too many."""
    kept = torch.where(values == 0, torch.finfo(values.dtype).tiny, values)
    return torch.where(mask != 0, kept, 0.0)


def kth_smallest(values: Tensor, k: int) -> Tensor:
    """The k-th smallest value, counted from 1, as a scalar tensor."""
    flat = values.detach().flatten()
    if flat.device.type != "cpu":
        return flat.kthvalue(k).values
    # Numpy's is five to eight times as fast, and needs no array of places.
    return torch.from_numpy(np.partition(flat.numpy(), k - 1)[k - 1 : k]).squeeze()


def _floor(weight: Weight) -> int:
    """The least number of weights a layer keeps."""
    axis = weight.channel_axis
    return weight.shape[axis] if axis is not None else max(weight.shape)
