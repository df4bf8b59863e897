"""LEARN: what is aimed at, a share of zeros, of time or of size, as a budget of zeros."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fcpts_onnx.errors import TargetError
from fcpts_onnx.evaluate import check_installed, probe
from fcpts_onnx.hardware import (
    CHIPS,
    MNN,
    Times,
    layer_times,
    least_zeros,
    target_densities,
    zeros_for_size,
    zeros_for_time,
)
from fcpts_onnx.model import Model
from fcpts_onnx.sparsity.budget import Budget, most_zeros
from fcpts_onnx.sparsity.pattern import Pattern
from fcpts_onnx.team import Team
from fcpts_onnx.weights import Weight

__all__ = ["OBJECTIVES", "Aim", "budget_of"]

OBJECTIVES = ("sparsity", "latency", "size")
"""What the target is a share of: of zeros; of the layers' time, and of the weights' size, saved."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Aim:
    """What a sparse network shall come to.

    Attributes:
        target: a share, 0 to 1; None where the pattern says how many zeros there are.
        objective: what of, see `OBJECTIVES`.
        pattern: where zeros may lie.
        hardware: of `hardware.DEVICES`, if zeros are to be of use there.
    """

    target: float | None
    objective: str
    pattern: Pattern
    hardware: str | None

    def check(self, weights: Sequence[Weight]) -> None:
        """See that all of it goes together.

        Raises:
            TargetError: it does not.
        """
        pattern = self.pattern
        whole = [weight.name for weight in weights if weight.grid is not None]
        if whole and (pattern.is_fixed or pattern.unit > 1):
            raise TargetError(f"Patterns are for float weights; {whole[0]} is stored as integers.")
        if self.hardware not in (None, *CHIPS, MNN):
            known = ", ".join((*CHIPS, MNN))
            raise TargetError(f"--hardware {self.hardware} is unknown; expected {known}.")
        if pattern.is_fixed and self.hardware is not None:
            raise TargetError("--hardware has no say where the pattern sets every layer's zeros.")
        if self.objective not in OBJECTIVES:
            raise TargetError(
                f"The objective is {self.objective!r}; expected {', '.join(OBJECTIVES)}."
            )
        if self.objective == "sparsity":
            return
        if pattern.is_fixed or pattern.unit > 1:
            raise TargetError(
                f"--objective {self.objective} is for zeros that lie anywhere; leave --pattern out."
            )
        if self.target is None or not 0 < self.target < 1:
            raise TargetError(f"The target is {self.target}; expected a share between 0 and 1.")
        if self.objective == "latency" and self.hardware is None:
            raise TargetError(f"--objective latency needs --hardware: {', '.join((*CHIPS, MNN))}.")


def budget_of(
    model: Model,
    weights: Sequence[Weight],
    aim: Aim,
    size: tuple[int, int] | None,
    team: Team,
    say: Say,
) -> Budget:
    """How many zeros there shall be, and what the hardware makes of them in each layer.

    Args:
        size: height and width of images, where the graph leaves them open.

    Raises:
        TargetError: the target cannot be, or what is aimed at does not go together.
        FcptsError: the engine to be probed is not installed, or does not take the model.
    """
    aim.check(weights)
    if aim.objective == "latency":
        return _by_time(model, weights, aim, _times(model, weights, aim, size, team), say)
    target = aim.target
    if aim.objective == "size":
        target = _by_size(weights, aim, say)
    if aim.hardware is None or target is None:
        return Budget.of(weights, target, pattern=aim.pattern)
    if aim.hardware != MNN:
        densities = target_densities(model, weights, aim.hardware)
        return Budget.of(weights, target, densities, aim.pattern)
    asked = least_zeros(_times(model, weights, aim, size, team), weights, target)
    say(
        f"MNN: {len(asked)} of {len(weights)} layers are faster with the zeros they are given at "
        f"least, {sum(asked.values()):,} in all"
    )
    return Budget.of(weights, target, pattern=aim.pattern, asked=asked)


def _times(
    model: Model,
    weights: Sequence[Weight],
    aim: Aim,
    size: tuple[int, int] | None,
    team: Team,
) -> dict[str, dict[float, float]]:
    """How long layers take by their share of zeros: estimated for a chip, measured on MNN."""
    assert aim.hardware is not None, "there is no time without a device"
    if aim.hardware != MNN:
        return layer_times(model, weights, aim.hardware, size)
    check_installed(MNN)
    # What one process saw has to hold in all.
    return team.from_first(probe(model, weights, size) if team.rank == 0 else None)


def _by_time(
    model: Model, weights: Sequence[Weight], aim: Aim, times: Mapping[str, Times], say: Say
) -> Budget:
    """The zeros that save a share of the layers' time: each layer's are set by that."""
    assert aim.target is not None, "checked before"
    most = {weight.name: most_zeros(weight, aim.pattern) for weight in weights}
    asked, saved = zeros_for_time(times, weights, most, aim.target)
    if saved < aim.target:
        raise TargetError(
            f"{model.path}: zeros save at most {saved:.4f} of its layers' time on {aim.hardware}, "
            f"and {aim.target:g} is asked for. Ask for less."
        )
    zeros = sum(max(weight.zeros, asked.get(weight.name, 0)) for weight in weights)
    if zeros == sum(weight.zeros for weight in weights):
        raise TargetError(
            f"{model.path}: the zeros that are there save {saved:.4f} of its layers' time on "
            f"{aim.hardware} already, and {aim.target:g} is asked for. Ask for more."
        )
    share = zeros / sum(weight.count for weight in weights)
    say(
        f"Latency on {aim.hardware}: {share:.2%} zeros in {len(asked)} of {len(weights)} layers "
        f"are to save {saved:.1%} of the layers' time"
    )
    return Budget.of(weights, share, pattern=aim.pattern, asked=asked)


def _by_size(weights: Sequence[Weight], aim: Aim, say: Say) -> float:
    """The share of zeros that saves a share of the weights' size."""
    assert aim.target is not None, "checked before"
    count = sum(weight.count for weight in weights)
    zeros = zeros_for_size(count, aim.target)
    most = sum(most_zeros(weight, aim.pattern) for weight in weights)
    present = sum(weight.zeros for weight in weights)
    if zeros < present:
        raise TargetError(
            f"The target of {aim.target:g} is below what the {present:,} zeros that are there save "
            f"of the weights, in 8 bits with a bitmask ({present / count - 1 / 8:.4f}). "
            "Ask for more."
        )
    if zeros > most:
        best = aim.target - (zeros - most) / count
        raise TargetError(
            f"The target of {aim.target:g} would empty a layer: stored in 8 bits with a bitmask, "
            f"the weights can be at most {best:.4f} smaller. Ask for less."
        )
    say(f"Size in 8 bits with a bitmask: {zeros / count:.2%} zeros save {aim.target:.1%} of it")
    return zeros / count
