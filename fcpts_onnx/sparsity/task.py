"""LEARN: what there is to learn a sparse network from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fcpts_onnx.calibration import Calibration
from fcpts_onnx.recipe import Recipe
from fcpts_onnx.sparsity.budget import Budget
from fcpts_onnx.sparsity.centres import Centre
from fcpts_onnx.sparsity.compensation import Compensation
from fcpts_onnx.sparsity.losses import Head
from fcpts_onnx.sparsity.network import Network
from fcpts_onnx.sparsity.pattern import PATTERNS, Pattern
from fcpts_onnx.team import ALONE, Team
from fcpts_onnx.weights import Weight

__all__ = ["Task"]


@dataclass(frozen=True)
class Task:
    """A sparse network to be learned from a dense one and unlabelled samples.

    Attributes:
        network: the dense network, or an engine that runs it; it is left as it is.
        weights: the weights to prune, all learned by the network.
        budget: how many zeros they shall have in all.
        heads: how each output is to be met.
        seed: of the samples' order and views.
        team: the processes that share each batch.
        zeros: how many each weight shall have, by name; learned if None.
        start: how many each has where thresholds that are learned start, if that is said.
        features: how values inside the network are to be met, beside the outputs.
        centres: what layers read on average, by weight, where biases shall know of it.
        compensations: what layers read together, by weight, where the weights that are left shall
            make up for the others.
        pattern: where zeros may lie.
        pieces: in how many parts a batch is passed, which takes less memory.
    """

    network: Network
    calibration: Calibration
    weights: Sequence[Weight]
    budget: Budget
    recipe: Recipe
    heads: Sequence[Head]
    seed: int = 0
    team: Team = ALONE
    zeros: Mapping[str, int] | None = None
    start: Mapping[str, int] | None = None
    features: Sequence[Head] = ()
    centres: Mapping[str, Centre] = field(default_factory=dict)
    compensations: Mapping[str, Compensation] = field(default_factory=dict)
    pattern: Pattern = PATTERNS["unstructured"]
    pieces: int = 1

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return next(iter(self.network.learned.values())).device

    def dense(self) -> dict[str, Tensor]:
        """The dense values of the weights to prune, by their name."""
        learned = self.network.learned
        return {weight.name: learned[weight.value].detach() for weight in self.weights}

    def pieces_of(self, batch: Mapping[str, Tensor]) -> list[tuple[dict[str, Tensor], float]]:
        """The parts of a batch, each with its share of the samples."""
        count = len(next(iter(batch.values())))
        pieces = min(self.pieces, count)
        places = [range(first, count, pieces) for first in range(pieces)]
        return [
            ({name: value[first::pieces] for name, value in batch.items()}, len(place) / count)
            for first, place in enumerate(places)
        ]
