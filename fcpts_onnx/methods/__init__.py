"""RIVALS: ways to share zeros among layers and to win accuracy back, one a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fcpts_onnx.checkpoint import NO_CHECKPOINT, Checkpoint
from fcpts_onnx.errors import TargetError
from fcpts_onnx.methods.erk import erk
from fcpts_onnx.methods.fisher import fisher
from fcpts_onnx.methods.lamp import lamp
from fcpts_onnx.methods.ltp import LearnedThresholds
from fcpts_onnx.methods.magnitude import global_magnitude, l1norm, l2norm
from fcpts_onnx.methods.pot import least_squares
from fcpts_onnx.methods.probmask import ProbabilisticMasks
from fcpts_onnx.methods.soft_threshold import SoftThresholds
from fcpts_onnx.methods.sparsegpt import sparsegpt
from fcpts_onnx.methods.stored import check_rates, read_rates, stored_rates
from fcpts_onnx.methods.uniform import uniform
from fcpts_onnx.methods.untouched import untouched
from fcpts_onnx.methods.wanda import wanda
from fcpts_onnx.recipe import Recipe
from fcpts_onnx.results import Progress, silent
from fcpts_onnx.sparsity.layerwise import Rule, layer_by_layer, layers_to_prune
from fcpts_onnx.sparsity.pattern import PATTERNS
from fcpts_onnx.sparsity.reconstruct import Learned, reconstruct
from fcpts_onnx.sparsity.task import Task
from fcpts_onnx.sparsity.thresholds import (
    CostThresholds,
    FixedThresholds,
    ScoreThresholds,
    Thresholds,
)
from fcpts_onnx.twin import Twin
from fcpts_onnx.weights import Weight

__all__ = [
    "ALLOCATIONS",
    "LEARNED",
    "METHODS",
    "NETWISE",
    "NONE",
    "RECONSTRUCTIONS",
    "Allocation",
    "Method",
    "allocated",
    "allocation",
    "check_network",
    "check_pair",
    "check_pattern",
    "holds_target",
    "rates_given",
    "recovered",
]

Allocation = Callable[[Task], dict[str, float]]
"""Zeros by weight, any real numbers whose sum is about the budget's."""

LEARNED = "learned"
ALLOCATIONS: dict[str, Allocation] = {
    "uniform": uniform,
    "global": global_magnitude,
    "l1norm": l1norm,
    "l2norm": l2norm,
    "erk": erk,
    "lamp": lamp,
    "fisher": fisher,
}

THRESHOLDS: dict[str, type[Thresholds]] = {
    "cost": CostThresholds,
    "score": ScoreThresholds,
    "str": SoftThresholds,
    "ltp": LearnedThresholds,
    "probmask": ProbabilisticMasks,
}

NETWISE = "netwise"
LAYERWISE: dict[str, Rule] = {
    "layerwise": least_squares,
    "sparsegpt": sparsegpt,
    "wanda": wanda,
}
NONE = "none"
RECONSTRUCTIONS = (NETWISE, *LAYERWISE, NONE)


@dataclass(frozen=True)
class Method:
    """A pair of choices under a name of its own.

    Attributes:
        source: where it is published.
    """

    allocate: str
    reconstruct: str
    source: str
    recipe: str = "default"


_POT = "Lazarevich, Kozlov and Malinin, Post-training deep neural network pruning, 2021"
METHODS = {
    "fcpts": Method(LEARNED, NETWISE, "Gong et al., FCPTS, AAAI 2024, as this tool learns it"),
    "fcpts-paper": Method(LEARNED, NETWISE, "Gong et al., Algorithm 1", "paper"),
    "fcpts-erk": Method("erk", NETWISE, "Gong et al., Figure 4: the rates of ERK, fixed"),
    "fcpts-fisher": Method("fisher", NETWISE, "Theis et al., 2018, for the rates"),
    "pot-l2norm": Method("l2norm", "layerwise", _POT),
    "pot-erk": Method("erk", "layerwise", f"{_POT}; Evci et al., RigL, 2020"),
    "str": Method(LEARNED, NETWISE, "Kusupati et al., STR, ICML 2020", "str"),
    "ltp": Method(LEARNED, NETWISE, "Azarian et al., LTP, 2020", "ltp"),
    "probmask": Method(LEARNED, NETWISE, "Zhou et al., ProbMask, CVPR 2021", "probmask"),
    "sparsegpt": Method("uniform", "sparsegpt", "Frantar and Alistarh, SparseGPT, ICML 2023"),
    "wanda": Method("uniform", "wanda", "Sun et al., Wanda, ICLR 2024"),
    "lamp": Method("lamp", NONE, "Lee et al., LAMP, ICLR 2021, nothing learned"),
    "magnitude": Method("global", NONE, "Han et al., 2015, nothing learned"),
}


def allocation(name: str) -> Allocation | None:
    """A rule by its name, or rates from a JSON file; None where they are learned.

    Raises:
        TargetError: there is no such rule, or the file has no rates.
    """
    if name == LEARNED:
        return None
    if name.endswith(".json"):
        return stored_rates(Path(name))
    if name not in ALLOCATIONS:
        raise TargetError(
            f"--allocate {name} is unknown; expected {LEARNED}, {', '.join(ALLOCATIONS)} or a "
            ".json file."
        )
    return ALLOCATIONS[name]


def rates_given(name: str) -> dict[str, float]:
    """The rates that a choice of `allocation` has from a file, if it names one.

    Raises:
        TargetError: the file has no rates.
    """
    return read_rates(Path(name)) if name.endswith(".json") else {}


def check_pair(allocate: str, reconstruct: str, unused: Mapping[str, object]) -> None:
    """See that choices go together.

    Args:
        unused: by option, what has no meaning where nothing is learned; None or empty if not given.

    Raises:
        TargetError: there is no such way to reconstruct, it needs zeros that are shared before, or
            an option is given that it does not know.
    """
    if reconstruct not in RECONSTRUCTIONS:
        raise TargetError(
            f"--reconstruct {reconstruct} is unknown; expected {', '.join(RECONSTRUCTIONS)}."
        )
    if allocate == LEARNED and reconstruct != NETWISE:
        raise TargetError(
            f"--reconstruct {reconstruct} does not learn how layers share zeros: say how with "
            f"--allocate {', '.join(ALLOCATIONS)} or a .json file."
        )
    given = [option for option, value in unused.items() if value]
    if given and reconstruct != NETWISE:
        raise TargetError(
            f"{', '.join(given)}: for learning by gradients alone, which --reconstruct "
            f"{reconstruct} does without. Leave out, or reconstruct {NETWISE}."
        )


def check_network(allocate: str, reconstruct: str, twin: Twin, weights: Sequence[Weight]) -> None:
    """See that choices fit a network.

    Raises:
        TargetError: a file of rates is not one for these weights.
        UnsupportedError: some weights cannot be taken layer by layer.
    """
    if allocate.endswith(".json"):
        check_rates(Path(allocate), [weight.name for weight in weights])
    if reconstruct in LAYERWISE:
        layers_to_prune(twin, weights)


def check_pattern(pattern: str, allocate: str, reconstruct: str, recipe: Recipe) -> None:
    """See that a pattern is known, and that the choices can keep to it.

    Raises:
        TargetError: there is no such pattern, or another method would break it.
    """
    if pattern not in PATTERNS:
        raise TargetError(f"--pattern {pattern} is unknown; expected {', '.join(PATTERNS)}.")
    if pattern == "unstructured":
        return
    if reconstruct in LAYERWISE:
        raise TargetError(
            f"--reconstruct {reconstruct} chooses zeros itself; with --pattern {pattern} use "
            f"{NETWISE} or {NONE}."
        )
    if allocate == LEARNED and recipe.thresholds != "cost":
        raise TargetError(
            f"The recipe {recipe.name} learns masks in a way that keeps to no pattern; with "
            f'--pattern {pattern} use one with thresholds = "cost".'
        )


def allocated(task: Task, rule: Allocation | None) -> Task:
    """The task with as many zeros for each weight as the rule says, on the budget; or as it was."""
    return task if rule is None else replace(task, zeros=task.budget.counts(rule(task)))


def holds_target(allocate: str, recipe: Recipe) -> bool:
    """Whether the choices end with just the share of zeros that was asked for."""
    return allocate != LEARNED or THRESHOLDS[recipe.thresholds].holds_target


def recovered(
    task: Task,
    name: str,
    *,
    seconds: float | None = None,
    say: Callable[[str], None] = silent,
    report: Callable[[Progress], None] = silent,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> Learned:
    """What one of the ways to reconstruct makes of a task."""
    if name == NETWISE:
        learned = THRESHOLDS[task.recipe.thresholds]
        start = learned if task.zeros is None else FixedThresholds
        if task.recipe.start_rates != "none":
            rates = ALLOCATIONS[task.recipe.start_rates](task)
            task = replace(task, start=task.budget.counts(rates))
        return reconstruct(
            task, start, seconds=seconds, say=say, report=report, checkpoint=checkpoint
        )
    if name == NONE:
        return untouched(task)
    return layer_by_layer(task, LAYERWISE[name], report=report, checkpoint=checkpoint)
