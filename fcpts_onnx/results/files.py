"""SHOW: what is found in files: what can be pruned, and what differs between two."""

from __future__ import annotations

from dataclasses import dataclass, field

from fcpts_onnx.results.pruning import Estimate, Sizes
from fcpts_onnx.weights import Weight

__all__ = [
    "Difference",
    "Inspection",
    "TensorDifference",
]


@dataclass(frozen=True)
class Inspection:
    """What `inspect` shows: every candidate for pruning, and what is learned with them.

    Attributes:
        along: biases and norm parameters that are learned along.
        others: values in matrices and the like that are none of these, as of LSTM.
        heads: what is learned against: the outputs, or what gradients reach before them, each
            with its loss; empty where the graph cannot be tried out without calibration data.
        obstacle: why the model cannot be pruned, if so.
        densities: of a chip, by weight, the share of weights below which zeros save no more time.
        gains_from: of MNN, by weight, the share of zeros from which on it is faster than dense;
            None where it never is.
        estimate: of what the zeros that are there save on that chip.
        sizes: of what can be pruned, stored in several ways, where that was asked for.
    """

    model: str
    opset: int
    inputs: tuple[str, ...]
    weights: tuple[Weight, ...]
    along: tuple[str, ...]
    others: int = 0
    heads: tuple[str, ...] = ()
    obstacle: str | None = None
    densities: dict[str, float] = field(default_factory=dict)
    gains_from: dict[str, float | None] = field(default_factory=dict)
    estimate: Estimate | None = None
    sizes: tuple[Sizes, ...] = ()

    @property
    def prunable(self) -> int:
        """How many values can be pruned: the base of the target."""
        return sum(weight.count for weight in self.weights if weight.excluded is None)

    @property
    def zeros(self) -> int:
        """How many of those are zero already."""
        return sum(weight.zeros for weight in self.weights if weight.excluded is None)


@dataclass(frozen=True)
class TensorDifference:
    """A tensor that two files have differently; pairs are of the first file and the second.

    Attributes:
        types: type and shape.
        changed: how many values differ; None where the shapes do.
        largest: the largest difference of two finite values; None where there are no such.
    """

    name: str
    types: tuple[str, str]
    counts: tuple[int, int]
    zeros: tuple[int, int]
    changed: int | None
    largest: float | None


@dataclass(frozen=True)
class Difference:
    """What differs between two files.

    Attributes:
        only_first, only_second: constant tensors that the other one lacks.
        parts: the fields of the files that differ beyond values of tensors.
    """

    first: str
    second: str
    tensors: tuple[TensorDifference, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    parts: tuple[str, ...]
