"""prune: a run, and what its steps do that no other module does alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fcpts_onnx.aim import budget_of
from fcpts_onnx.calibration import Calibration, Data, load_calibration, paths_of
from fcpts_onnx.choices import Choices
from fcpts_onnx.clock import Clock
from fcpts_onnx.errors import CalibrationError, FcptsError
from fcpts_onnx.evidence import versions
from fcpts_onnx.memory import pieces_that_fit
from fcpts_onnx.methods import NETWISE, allocated, allocation, rates_given
from fcpts_onnx.model import Model
from fcpts_onnx.preparation import informed, network_of
from fcpts_onnx.recipe import Recipe
from fcpts_onnx.results import Parity
from fcpts_onnx.sparse_initializers import check_storage
from fcpts_onnx.sparsity.augment import with_usable_views
from fcpts_onnx.sparsity.budget import Budget
from fcpts_onnx.sparsity.pattern import PATTERNS
from fcpts_onnx.sparsity.reconstruct import Learned
from fcpts_onnx.sparsity.task import Task
from fcpts_onnx.team import Team
from fcpts_onnx.twin import Twin
from fcpts_onnx.weights import Weight
from fcpts_onnx.write import check_target

__all__ = ["Run", "check_files"]

_FEW_SAMPLES = 64
_APART = 0.01  # of shares of zeros, to be worth a word


def check_files(
    dense: Model,
    output: Path,
    calib: Data,
    overwrite: bool,
    storage: str,
    say: Callable[[str], None],
) -> None:
    """See that samples are there and the output may be written, before any of it takes time.

    Raises:
        CalibrationError: there are no samples of that name.
        OutputError: the output must not be written, or not as it is to be stored.
    """
    paths = paths_of(calib)
    if missing := [path for path in paths if not path.exists()]:
        raise CalibrationError(f"{missing[0]}: no such file or folder.")
    check_target(output, dense.path, reads=[*dense.files[1:], *paths], overwrite=overwrite)
    check_storage(storage, dense.path, dense.proto)
    if output.is_symlink():
        say(f"{output}: is a link and becomes a file; what it leads to stays as it is")


@dataclass(frozen=True)
class Run:
    """What all steps of a run know.

    Attributes:
        choices: what the outcome depends on.
        recipe: how to learn, as `choices.recipe_for` gives it.
        augment, memory, threads: as `pipeline.prune` takes them.
        clock: what the user's time goes to.
        team: the processes that learn.
        say: told what happens, in lines.
    """

    choices: Choices
    recipe: Recipe
    augment: Sequence[str] | None
    memory: int | None
    threads: int
    clock: Clock
    team: Team
    say: Callable[[str], None]

    def budget(self, dense: Model, weights: Sequence[Weight]) -> Budget:
        """How many zeros there shall be; rates from a file that come to others are told of.

        Raises:
            FcptsError: as `aim.budget_of`.
        """
        choices = self.choices
        budget = budget_of(
            dense, weights, choices.aim, choices.preprocess.size, self.team, self.say
        )
        if rates := rates_given(choices.allocate):
            zeros = sum(rates[weight.name] * weight.count for weight in weights)
            share = zeros / sum(weight.count for weight in weights)
            if abs(share - budget.target) > _APART:
                self.say(
                    f"Rates: those of {choices.allocate} come to {share:.2%} zeros, the target is "
                    f"{budget.target:.2%}: all give or take in proportion"
                )
        return budget

    def calibration(self, calib: Data, dense: Model, samples: int) -> Calibration:
        """The samples, `samples` of them at most.

        Raises:
            CalibrationError: they cannot be read, or views are asked of what are no images.
            FcptsError: they are too few for the processes.
        """
        preprocess, seed = self.choices.preprocess, self.choices.seed
        found = load_calibration(calib, dense, preprocess, samples=samples, seed=seed)
        if self.augment and not found.has_images:
            raise CalibrationError(
                f"--augment {','.join(self.augment)} is for images, and {found.origin} has "
                "arrays, which are learned from as they are. Leave it out."
            )
        batch = min(len(found), self.recipe.batch_size)
        if batch < self.team.size:
            raise FcptsError(
                f"{self.team.size} processes cannot share batches of {batch} samples. Start "
                "fewer, or give more samples or a larger batch_size in the recipe (--recipe "
                "FILE.toml)."
            )
        self.say(f"Calibration: {found.describe()}")
        if len(found) < _FEW_SAMPLES:
            self.say(
                f"Warning: {len(found)} samples are few: the weights will fit these and be worse "
                f"on others. Give at least {_FEW_SAMPLES}, better some thousand."
            )
        for line in found.skipped:
            self.say(f"Skipped: {line}")
        return found

    def origin(
        self, digest: str, calibration: Calibration, learned: Iterable[str]
    ) -> dict[str, Any]:
        """All that the outcome depends on, for a checkpoint."""
        return {
            "model": digest,
            "data": calibration.digest(),
            "recipe": asdict(self.recipe),
            "options": self.choices.origin(learned),
            "versions": versions(),
        }

    def task(
        self,
        twin: Twin,
        calibration: Calibration,
        weights: Sequence[Weight],
        budget: Budget,
        decided: Mapping[str, Any],
        parity: Parity,
    ) -> Task:
        """What there is to learn, with what the dense network says of the samples.

        Args:
            decided: what the run that is gone on with had settled, if there is one.
            parity: how long the network took, for what is left of the time.

        Raises:
            FcptsError: the network cannot be learned from the samples, or no time is left.
        """
        choices, recipe = self.choices, self.recipe
        task = Task(
            twin, calibration, weights, budget, recipe, (), choices.seed, self.team,
            pattern=PATTERNS[choices.pattern],
        )  # fmt: skip
        task = informed(task, twin, choices.losses, self.say)
        if decided:
            recipe = replace(recipe, augment=tuple(decided["augment"]))
        else:
            seconds = self.clock.left(choices.time_budget, parity, len(calibration), self.team)
            recipe = with_usable_views(
                recipe, twin, calibration, task.heads, seconds, self.team, self.say
            )
        network = network_of(choices.engine, twin, calibration, recipe, self.threads)
        return replace(task, network=network, recipe=recipe)

    def settled(self, task: Task, decided: Mapping[str, Any]) -> Task:
        """The task with the zeros of its layers, if a rule says them, and pieces that fit memory.

        Args:
            decided: what the run that is gone on with had settled, if there is one.
        """
        rule = allocation(self.choices.allocate)
        task = replace(task, zeros=decided["zeros"]) if decided else allocated(task, rule)
        if self.choices.reconstruct != NETWISE:
            return task
        # What this process takes already says nothing of the run: other pieces would give another
        # file.
        here = (self.memory, task.device.type)
        if decided and (decided.get("memory"), decided.get("device")) == here:
            return replace(task, pieces=decided["pieces"])
        return replace(task, pieces=pieces_that_fit(task, self.memory, self.team, self.say))

    def decisions(self, task: Task) -> dict[str, Any]:
        """What is settled before learning, in plain values, for a run that goes on with this."""
        return {
            "budget": asdict(task.budget), "zeros": task.zeros, "pieces": task.pieces,
            "augment": task.recipe.augment, "device": task.device.type, "memory": self.memory,
            "spent": self.clock.spent,
        }  # fmt: skip

    def zeros(self, learned: Learned, task: Task) -> int:
        """How many zeros the file is to have: the budget's, or what a method came to without it."""
        if learned.holds_target:
            return task.budget.zeros
        found = [learned.tensors[weight.value] for weight in task.weights]
        zeros = sum(value.numel() - int(value.count_nonzero()) for value in found)
        share = zeros / sum(weight.count for weight in task.weights)
        self.say(f"Recipe {self.recipe.name} cannot hold a target: it ends with {share:.2%} zeros")
        return zeros

    def made(self, budget: Budget, zeros: int) -> str:
        """What --stamp says in the file of how it was made, as JSON."""
        own = {key: self.choices.named[key] for key in ("allocate", "reconstruct", "seed")}
        made = {"version": versions()["fcpts-onnx"], "target": budget.target, "zeros": zeros}
        return json.dumps({**made, "recipe": self.recipe.name, **own})
