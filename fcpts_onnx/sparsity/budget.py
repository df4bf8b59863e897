"""LEARN: the global constraint: the control loss (Eq. 3, 8) and exact counts of zeros."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fcpts_onnx.errors import TargetError
from fcpts_onnx.sparsity.mask import kth_smallest
from fcpts_onnx.sparsity.pattern import PATTERNS, Pattern
from fcpts_onnx.weights import Weight

__all__ = [
    "Budget",
    "control_loss",
    "counts_by_rank",
    "most_zeros",
]


@dataclass(frozen=True)
class Budget:
    """How many zeros there shall be in all, and how many each layer may take.

    Attributes:
        target: the share of zeros asked for.
        zeros: round(target x prunable), to the weight.
        least: by layer, the zeros that are there already.
        most: by layer, so that it keeps at least as many weights as it has output channels.
        useful: by layer, beyond which zeros gain nothing: as long as others have room for them.
        unit: zeros come in multiples of this, in each layer and in all.
        asked: by layer, zeros that it is to have at least in the end; before in proportion.
    """

    target: float
    zeros: int
    least: Mapping[str, int]
    most: Mapping[str, int]
    useful: Mapping[str, int]
    unit: int = 1
    asked: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        weights: Sequence[Weight],
        target: float | None,
        densities: Mapping[str, float] | None = None,
        pattern: Pattern = PATTERNS["unstructured"],
        asked: Mapping[str, int] | None = None,
    ) -> Budget:
        """The budget of a target on the selected weights.

        Args:
            target: a share of zeros; None where the pattern says how many there are.
            densities: by layer, if known: the share of weights below which zeros gain nothing.
            pattern: where zeros may lie.
            asked: zeros that some layers are to have at least, by name; with those that are there
                in the others no more than in all.

        Raises:
            TargetError: the target is not between 0 and 1, it or the pattern is below the zeros
                already there, or it would empty a layer.
        """
        if target is not None and not 0 < target < 1:
            raise TargetError(f"The target is {target:g}; expected a share between 0 and 1.")
        if target is None or pattern.is_fixed:
            return cls._full(weights, target, pattern)
        count = sum(weight.count for weight in weights)
        unit = pattern.unit
        zeros, present = round(target * count / unit) * unit, sum(w.zeros for w in weights)
        if zeros < present:
            raise TargetError(
                f"The target of {target:g} is below the {present / count:.4f} of zeros already "
                f"there ({present} of {count} weights). Ask for more."
            )
        most = {weight.name: most_zeros(weight, pattern) for weight in weights}
        if zeros > sum(most.values()):
            raise TargetError(
                f"The target of {target:g} would empty a layer: each keeps as many weights as it "
                f"has output channels, so at most {sum(most.values()) / count:.4f} can be zero. "
                "Ask for less."
            )
        # Zeros that are there may lie where the pattern has none.
        least = {w.name: w.zeros if unit == 1 else 0 for w in weights}
        asked = {
            name: min(zeros, most[name]) // unit * unit
            for name, zeros in (asked or {}).items()
            if min(zeros, most[name]) > least[name]
        }
        useful = {
            weight.name: min(
                most[weight.name],
                max(
                    weight.zeros,
                    math.floor(weight.count * (1 - (densities or {}).get(weight.name, 0.0))),
                ),
            )
            // unit
            * unit
            for weight in weights
        }
        return cls(target, zeros, least, most, useful, unit, asked)

    @classmethod
    def _full(cls, weights: Sequence[Weight], target: float | None, pattern: Pattern) -> Budget:
        """As many zeros as a pattern has that leaves no choice."""
        count = sum(weight.count for weight in weights)
        room = {weight.name: pattern.most(weight) for weight in weights}
        # Layers that the pattern has no room in keep the zeros they have.
        least = {w.name: 0 if room[w.name] else w.zeros for w in weights}
        most = {name: room[name] or least[name] for name in room}
        share = sum(most.values()) / count
        if not pattern.is_fixed:
            raise TargetError("There is no target; give a share of zeros between 0 and 1.")
        if not any(room.values()):
            raise TargetError("No layer has a whole group along its input channels to prune.")
        if (present := sum(weight.zeros for weight in weights)) > sum(most.values()):
            raise TargetError(
                f"With the pattern {share:.6g} of the weights are zero, no more and no less, and "
                f"{present / count:.4f} are already. Prune the dense model, or leave --pattern out."
            )
        if target is not None and round(target * count) != sum(most.values()):
            raise TargetError(
                f"The target is {target:g}; with the pattern {share:.6g} of the weights are zero, "
                "no more and no less. Leave the target out."
            )
        return cls(share, sum(most.values()), least, most, most)

    def counts(self, wanted: Mapping[str, float], zeros: int | None = None) -> dict[str, int]:
        """Whole counts of zeros by layer, near the wanted ones and with exactly the right sum.

        Args:
            wanted: zeros by layer, any real numbers; a layer beyond its bounds is held at them.
            zeros: the sum, by default the whole budget.
        """
        unit = self.unit
        zeros = self.zeros if zeros is None else max(zeros, sum(self.least.values()))
        zeros = round(zeros / unit)
        bounds = self.bounds(zeros * unit)
        low, high = ({name: value // unit for name, value in one.items()} for one in bounds)
        found = {
            name: min(max(round(value / unit), low[name]), high[name])
            for name, value in wanted.items()
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
        return {name: value * unit for name, value in found.items()}

    def bounds(self, zeros: int) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """The least and the most zeros of each layer when there are so many in all.

        What is useful is filled first, and only then what is not.
        """
        if zeros <= sum(self.useful.values()):
            return self._least(zeros), self.useful
        return self.useful, self.most

    def _least(self, zeros: int) -> Mapping[str, int]:
        """What each layer is to have when there are so many zeros in all."""
        there = sum(self.least.values())
        share = (zeros - there) / max(1, self.zeros - there)
        more = {name: int((asked - self.least[name]) * share) for name, asked in self.asked.items()}
        return {name: count + more.get(name, 0) for name, count in self.least.items()}


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


def most_zeros(weight: Weight, pattern: Pattern) -> int:
    """The most zeros a layer may have: the pattern's, and fewer where it would be emptied."""
    room = weight.count - _floor(weight)
    most = min(room, pattern.most(weight)) // pattern.unit * pattern.unit
    return max(weight.zeros, most) if pattern.unit == 1 else most


def _floor(weight: Weight) -> int:
    """The least number of weights a layer keeps."""
    axis = weight.channel_axis
    return weight.shape[axis] if axis is not None else max(weight.shape)
