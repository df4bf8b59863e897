"""LEARN: where zeros may lie: anywhere, so many in each group of weights, or whole blocks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from fcpts_onnx.sparsity.mask import mask_of_smallest
from fcpts_onnx.weights import Weight

__all__ = ["PATTERNS", "Blocks", "Groups", "Pattern", "Unstructured"]


class Pattern(ABC):
    """A rule for where the zeros of a weight lie.

    Attributes:
        unit: zeros come in multiples of this.
        is_fixed: whether it says itself how many zeros a weight has.
    """

    unit = 1
    is_fixed = False

    @abstractmethod
    def most(self, weight: Weight) -> int:
        """How many zeros the pattern has room for in a weight."""

    @abstractmethod
    def ranked(self, weight: Weight, sizes: Tensor) -> Tensor:
        """What zeros are chosen by, the smallest first; infinite where there must be none.

        Args:
            sizes: of the weight's values, in its shape.
        """

    def mask(self, weight: Weight, sizes: Tensor, zeros: int) -> Tensor:
        """A mask with exactly so many zeros, where sizes are smallest.

        Args:
            zeros: a multiple of the unit; of a weight that the pattern has no room in, those that
                are there.
        """
        ranks = self.ranked(weight, sizes) if self.most(weight) else sizes
        return mask_of_smallest(ranks, zeros).to(sizes.dtype)


class Unstructured(Pattern):
    """Zeros lie anywhere."""

    def most(self, weight: Weight) -> int:
        return weight.count

    def ranked(self, weight: Weight, sizes: Tensor) -> Tensor:
        del weight
        return sizes


class Groups(Pattern):
    """N:M: of each M weights along the input channels just N are kept (Mishra et al. 2021).

    What is left over at the end of that axis, and layers without one, stay dense.
    """

    is_fixed = True

    def __init__(self, kept: int, of: int) -> None:
        self._gone, self._of = of - kept, of

    def most(self, weight: Weight) -> int:
        axis = weight.input_axis
        if axis is None:
            return 0
        groups = weight.shape[axis] // self._of
        return weight.count // weight.shape[axis] * groups * self._gone

    def ranked(self, weight: Weight, sizes: Tensor) -> Tensor:
        axis = weight.input_axis
        if axis is None:
            return torch.full_like(sizes, math.inf)
        groups, rest = _grouped(sizes, axis, self._of)
        places = groups.argsort(dim=-1, stable=True).argsort(-1)
        return _ungrouped(torch.where(places < self._gone, groups, math.inf), rest, axis)


class Blocks(Pattern):
    """1xN: N weights of neighbouring output channels at one place are zero together or not at all.

    What is left over at the end of that axis, and layers without one, stay dense.
    """

    def __init__(self, length: int) -> None:
        self.unit = length

    def most(self, weight: Weight) -> int:
        axis = weight.channel_axis
        if axis is None or not weight.count:
            return 0
        length = weight.shape[axis]
        return weight.count // length * (length // self.unit) * self.unit

    def ranked(self, weight: Weight, sizes: Tensor) -> Tensor:
        axis = weight.channel_axis
        if axis is None:
            return torch.full_like(sizes, math.inf)
        groups, rest = _grouped(sizes, axis, self.unit)
        means = groups.square().mean(-1, keepdim=True).sqrt().expand_as(groups)
        return _ungrouped(means, rest, axis)

    def mask(self, weight: Weight, sizes: Tensor, zeros: int) -> Tensor:
        axis = weight.channel_axis
        if axis is None or not self.most(weight):
            return mask_of_smallest(sizes, zeros)
        groups, rest = _grouped(self.ranked(weight, sizes), axis, self.unit)
        # By block: of blocks of one size, as of zeros, none may be taken in part.
        blocks = mask_of_smallest(groups[..., 0], zeros // self.unit)
        return _ungrouped(blocks[..., None].expand_as(groups), rest, axis, 1.0)


PATTERNS: dict[str, Pattern] = {
    "unstructured": Unstructured(),
    "2:4": Groups(2, 4),
    "4:8": Groups(4, 8),
    "1x4": Blocks(4),
}


def _grouped(values: Tensor, axis: int, length: int) -> tuple[Tensor, Tensor]:
    """Values in groups along the last axis, and what is left over at the end of their own."""
    moved = values.movedim(axis, -1)
    whole = moved.shape[-1] // length * length
    return moved[..., :whole].unflatten(-1, (-1, length)), moved[..., whole:]


def _ungrouped(groups: Tensor, rest: Tensor, axis: int, filling: float = math.inf) -> Tensor:
    """The inverse, with one value for what was left over."""
    whole = torch.cat([groups.flatten(-2), torch.full_like(rest, filling)], -1)
    return whole.movedim(-1, axis).contiguous()
