"""prune: what a user chooses, as one, and whether it goes together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from fcpts_onnx.aim import Aim
from fcpts_onnx.methods import (
    NETWISE,
    allocation,
    check_network,
    check_pair,
    check_pattern,
    rates_given,
)
from fcpts_onnx.preparation import check_learning
from fcpts_onnx.preprocess import Preprocess
from fcpts_onnx.recipe import Recipe
from fcpts_onnx.sparsity.losses import Loss
from fcpts_onnx.sparsity.pattern import PATTERNS
from fcpts_onnx.twin import Twin
from fcpts_onnx.weights import Weight

__all__ = ["Choices", "recipe_for"]


@dataclass(frozen=True)
class Choices:
    """What the outcome of a run depends on, beside the model, the data and the recipe.

    Attributes:
        target, objective, pattern, hardware, allocate, reconstruct, losses, engine, preprocess,
            seed, time_budget: as `pipeline.prune` takes them.
    """

    target: float | None
    objective: str
    pattern: str
    hardware: str | None
    allocate: str
    reconstruct: str
    losses: Mapping[str, Loss]
    engine: str
    preprocess: Preprocess
    seed: int
    time_budget: float | None

    def check(self, recipe: Recipe, augment: Sequence[str] | None, memory: int | None) -> None:
        """See that they go together, before anything is read.

        Args:
            augment, memory: as `pipeline.prune` takes them.

        Raises:
            TargetError: they do not, or a way to allocate is unknown.
        """
        allocation(self.allocate)
        unused = {"--time-budget": self.time_budget, "--augment": augment, "--memory": memory}
        check_pair(self.allocate, self.reconstruct, unused)
        check_pattern(self.pattern, self.allocate, self.reconstruct, recipe)

    def check_network(self, twin: Twin, weights: Sequence[Weight]) -> None:
        """See that they fit a network, before samples are read.

        Raises:
            FcptsError: they do not.
        """
        check_learning(twin, self.engine, self.losses)
        check_network(self.allocate, self.reconstruct, twin, weights)

    @property
    def aim(self) -> Aim:
        """What the sparse network shall come to."""
        return Aim(self.target, self.objective, PATTERNS[self.pattern], self.hardware)

    @property
    def named(self) -> dict[str, Any]:
        """Those that a result says as they are."""
        keys = ("objective", "pattern", "hardware", "allocate", "reconstruct", "seed")
        return {key: getattr(self, key) for key in keys}

    def origin(self, learned: Iterable[str]) -> dict[str, Any]:
        """All of them in plain values, for a checkpoint.

        Args:
            learned: the names of what is learned, which follow from choices too.
        """
        return {
            **self.named,
            "target": self.target,
            "rates": rates_given(self.allocate),
            "losses": dict(self.losses),
            "engine": self.engine,
            "preprocess": asdict(self.preprocess),
            "learned": [*learned],
            "by_time": self.time_budget is not None,
        }


def recipe_for(choices: Choices, recipe: Recipe, augment: Sequence[str] | None) -> Recipe:
    """The recipe with what the user chose instead of its own, and without what takes no part."""
    if augment is not None:
        recipe = replace(recipe, augment=tuple(augment), epochs_to_mix=0.0)
    if choices.reconstruct != NETWISE:  # where nothing learns by them, they are not to take time
        recipe = replace(recipe, augment=(), feature_weight=0.0, centred=False, compensated=False)
    return recipe
