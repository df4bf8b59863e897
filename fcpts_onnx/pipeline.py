"""prune: the steps of the data flow, one line each."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fcpts_onnx.aim import budget_of
from fcpts_onnx.calibration import Calibration, Data, load_calibration, paths_of
from fcpts_onnx.checkpoint import opened
from fcpts_onnx.choices import Choices
from fcpts_onnx.clock import Clock
from fcpts_onnx.errors import CalibrationError, FcptsError
from fcpts_onnx.evidence import versions
from fcpts_onnx.hardware import CHIPS, estimate
from fcpts_onnx.machine import device_of, limited_threads
from fcpts_onnx.memory import check_room, pieces_that_fit
from fcpts_onnx.methods import (
    LEARNED,
    NETWISE,
    Allocation,
    allocated,
    allocation,
    rates_given,
    recovered,
)
from fcpts_onnx.model import PathLike, load
from fcpts_onnx.parity import check_parity, oracle_of
from fcpts_onnx.preparation import (
    BEHIND_A_CHOICE,
    informed,
    learning_twin,
    network_of,
    weights_to_prune,
)
from fcpts_onnx.preprocess import Preprocess
from fcpts_onnx.publish import check_no_dense_model, check_unchanged, publish
from fcpts_onnx.recipe import Recipe
from fcpts_onnx.results import (
    Progress,
    PruneResult,
    silent,
)
from fcpts_onnx.sparse_initializers import check_storage
from fcpts_onnx.sparsity.augment import with_usable_views
from fcpts_onnx.sparsity.budget import Budget
from fcpts_onnx.sparsity.losses import Loss
from fcpts_onnx.sparsity.pattern import PATTERNS
from fcpts_onnx.sparsity.reconstruct import Learned
from fcpts_onnx.sparsity.task import Task
from fcpts_onnx.team import Team, joined
from fcpts_onnx.weights import Weight, find_weights
from fcpts_onnx.write import check_target

__all__ = ["prune"]

_FEW_SAMPLES = 64
_NAMED = 5
_APART = 0.01  # of shares of zeros, to be worth a word


def prune(
    model: PathLike,
    output: PathLike,
    *,
    target: float | None = None,
    calib: Data,
    objective: str = "sparsity",
    pattern: str = "unstructured",
    preprocess: Preprocess | str = "imagenet",
    recipe: Recipe | str = "default",
    allocate: str = LEARNED,
    reconstruct: str = NETWISE,
    augment: Sequence[str] | None = None,
    time_budget: float | None = None,
    losses: Mapping[str, Loss] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    keep_dense: Sequence[str] = (),
    hardware: str | None = None,
    samples: int = 10_000,
    seed: int = 0,
    memory: int | None = None,
    device: str = "auto",
    engine: str = "torch",
    threads: int = 0,
    overwrite: bool = False,
    resume: bool = False,
    checkpoint_every: float | None = 60.0,
    keep_checkpoint: bool = False,
    storage: str = "dense",
    stamp: bool = False,
    say: Callable[[str], None] = silent,
    report: Callable[[Progress], None] = silent,
    ready: Callable[[], None] = silent,
) -> PruneResult:
    """Make a trained model sparse: the same graph with exactly the requested share of zeros.

    Args:
        model: the dense ONNX file; it is never changed unless `output` names it too and
            `overwrite` is set, nor is another dense model.
        output: the sparse ONNX file to write.
        target: the share of zeros, 0 to 1, over all weights that are pruned; None with a pattern
            that says it itself, as 2:4 does.
        objective: of `aim.OBJECTIVES`: instead of zeros, what the target is a share of. "latency":
            of the pruned layers' time on the hardware, to be saved; how many zeros each gets is
            set by that alone. "size": of the pruned weights' size, to be saved, stored in 8 bits
            with a bitmask.
        pattern: where zeros may lie, of `sparsity.pattern.PATTERNS`.
        calib: calibration data without labels: a folder of images or .npy, an .npz keyed by input
            name, a .npy, or an iterable of arrays or of dicts by input name.
        preprocess: a Preprocess, or the name of a preset or TOML file.
        recipe: a Recipe, or the name of one or of a TOML file.
        allocate: how zeros are shared among layers: "learned" as the recipe says, a rule of
            `methods.ALLOCATIONS`, or a .json file of rates by weight.
        reconstruct: how accuracy is won back: "netwise" by learning, or another of
            `methods.RECONSTRUCTIONS`.
        augment: random views of images, instead of the recipe's: "flip", "crop", "mix".
        time_budget: seconds in all; learns as long as fits, instead of the recipe's epochs. Then
            the result depends on the machine's speed too.
        losses: "kl", "bce" or "mse" by output, instead of what is chosen for it.
        include, exclude: globs on initializer or node names.
        keep_dense: "first" and "last".
        hardware: of `hardware.DEVICES`. A chip: no layer gets more zeros than save time there, as
            long as others have room for them. "mnn": what MNN is seen to run faster from some
            share of zeros on gets that many, as far as they go.
        samples: how much of the calibration data to take at most.
        seed: of every random choice; with the same seed and machine the same file results, but
            for `time_budget` and `hardware` "mnn", which go by what is timed, and for a GPU, which
            adds in any order.
        memory: bytes that learning may take in all, of the machine or the device; batches are
            passed in pieces where they would take more. What there is if None.
        device: "auto", "cpu" or "cuda".
        engine: what computes gradients: "torch", or "ort", which is onnxruntime-training (on the
            processor only).
        threads: for torch and onnxruntime, 0 for their own choice.
        resume: go on from the checkpoint of an interrupted run with the same options, if there is
            one; on the same processor, with the same `memory`, the same file results as without
            the interruption.
        checkpoint_every: seconds between two checkpoints, in the folder OUTPUT.fcpts; None keeps
            none. One process keeps them, several do not.
        keep_checkpoint: leave the last one there when all is done.
        storage: "sparse" writes pruned weights as ONNX's sparse initializers, where these are
            smaller; onnxruntime reads them, few others do.
        stamp: say in the file's metadata how it was made.
        say, report: told what happens: lines, and the progress of learning.
        ready: called when all choices are seen to fit the model, before samples are read; its
            time is not that of the run.

    Raises:
        FcptsError: anything the user can put right; nothing has been written then.
    """
    target_path, clock = Path(output), Clock()
    recipe, preprocess = Recipe.of(recipe), Preprocess.of(preprocess)
    choices = Choices(
        target=None if target is None else float(target), objective=objective, pattern=pattern,
        hardware=hardware, allocate=allocate, reconstruct=reconstruct, losses=dict(losses or {}),
        engine=engine, preprocess=preprocess, seed=seed, time_budget=time_budget,
    )  # fmt: skip
    choices.check(recipe, augment, memory)
    rule = allocation(allocate)
    if augment is not None:
        recipe = replace(recipe, augment=tuple(augment), epochs_to_mix=0.0)
    if reconstruct != NETWISE:  # where nothing learns by them, they are not to take time
        recipe = replace(recipe, augment=(), feature_weight=0.0, centred=False, compensated=False)
    torch_device = device_of(device, engine)
    check_room(torch_device)
    with limited_threads(threads), joined() as team, ExitStack() as stack:
        with clock("load"):
            dense = load(model)
            digest = dense.digest()
            if missing := [path for path in paths_of(calib) if not path.exists()]:
                raise CalibrationError(f"{missing[0]}: no such file or folder.")
            reads = [*dense.files[1:], *paths_of(calib)]
            check_target(target_path, dense.path, reads=reads, overwrite=overwrite)
            checkpoint = stack.enter_context(
                opened(
                    target_path, team, every=checkpoint_every, resume=resume,
                    keep=keep_checkpoint, say=say,
                )
            )  # fmt: skip
            if target_path.is_symlink():
                say(f"{target_path}: is a link and becomes a file; what it leads to stays as it is")
            check_storage(storage, dense.path, dense.proto)
            weights = weights_to_prune(dense, include, exclude, keep_dense)
            twin, reached = learning_twin(dense, weights, exclude)
            _tell_of_choices(weights, reached, say)
            weights = reached
            if not overwrite:
                check_no_dense_model(dense, target_path, weights, choices.target)
            choices.check_network(twin, weights)
            oracle = oracle_of(twin, dense, threads)
        with clock("budget"):
            decided = checkpoint.decided  # by the run that is gone on with
            clock.go_on(decided.get("spent", 0.0))
            budget = None
            if not decided:
                budget = budget_of(dense, weights, choices.aim, preprocess.size, team, say)
                _tell_of_rates(choices, weights, budget, say)
            # Before the file may be replaced.
            everything = find_weights(dense) if hardware in CHIPS else []
        with clock.stopped():
            ready()
        with clock("calibrate"):
            calibration = load_calibration(calib, dense, preprocess, samples=samples, seed=seed)
            _check_samples(calibration, recipe, augment, team)
            _tell(calibration, say)
            origin = choices.origin(twin.learned)
            checkpoint.belongs_to(partial(_origin, digest, calibration, recipe, origin))
            # Timings and memory are others now, and so would be what follows from them.
            budget = budget or Budget(**decided["budget"])
        with clock("check"):
            parity = check_parity(twin, dense, calibration, oracle)
            del oracle  # with the memory that it took
            say(f"Twin: agrees with onnxruntime within {parity.error:.1e} of the output's scale")
            twin.prepare(torch_device)
            task = Task(
                twin, calibration, weights, budget, recipe, (), seed, team,
                pattern=PATTERNS[pattern],
            )  # fmt: skip
            task = informed(task, twin, choices.losses, say)
            if decided:
                recipe = replace(recipe, augment=tuple(decided["augment"]))
            else:
                seconds = clock.left(time_budget, parity, len(calibration), team)
                recipe = with_usable_views(
                    recipe, twin, calibration, task.heads, seconds, team, say
                )
            network = network_of(engine, twin, calibration, recipe, threads)
        with clock("learn"):
            task = replace(task, network=network, recipe=recipe)
            task = _settled(task, decided, rule, reconstruct, memory, say)
            checkpoint.decided = {
                "budget": asdict(budget), "zeros": task.zeros, "pieces": task.pieces,
                "augment": recipe.augment, "device": torch_device.type, "memory": memory,
                "spent": clock.spent,
            }  # fmt: skip
            seconds = clock.left(time_budget, parity, len(calibration), team)
            with checkpoint.listening():
                learned = recovered(
                    task, reconstruct, seconds=seconds, say=say, report=report,
                    checkpoint=checkpoint,
                )  # fmt: skip
            zeros = _zeros(learned, task)
            if not learned.holds_target:
                share = f"{zeros / sum(weight.count for weight in weights):.2%}"
                say(f"Recipe {recipe.name} cannot hold a target: it ends with {share} zeros")
            twin.prepare(torch.device("cpu"))
        if learned.history:
            clock.at_least("learn", learned.history[-1].seconds)
        with clock("write"):
            check_unchanged(dense, digest)
            made = _made(choices, recipe, budget, zeros) if stamp else None
            written = team.rank == 0 and publish(
                dense, target_path, twin, learned.tensors, calibration, weights, zeros, threads,
                made, storage,
            )  # fmt: skip
            validation, values = team.from_first(written or None)
    counted = {weight.name: weight.zeros for weight in everything}
    counted |= {weight.name: weight.zeros for weight in validation.weights}
    return PruneResult(
        source=str(model),
        output=str(target_path),
        target=budget.target,
        goal=choices.target,
        storage=storage,
        asked=dict(budget.asked),
        estimate=estimate(dense, everything, counted, hardware, preprocess.size)
        if hardware in CHIPS
        else None,
        holds_target=learned.holds_target,
        count=validation.count,
        zeros=validation.zeros,
        recipe=recipe.name,
        calibration=calibration.describe(),
        samples=len(calibration),
        skipped=calibration.skipped,
        parity=parity,
        validation=validation,
        history=learned.history,
        seconds=clock.seconds,
        settings={**asdict(recipe), "augment": [*recipe.augment]},
        weight_values=values,
        versions=versions(),
        **choices.named,
    )


def _made(choices: Choices, recipe: Recipe, budget: Budget, zeros: int) -> str:
    """What --stamp says in the file of how it was made, as JSON."""
    own = {key: choices.named[key] for key in ("allocate", "reconstruct", "seed")}
    made = {"version": versions()["fcpts-onnx"], "target": budget.target, "zeros": zeros}
    return json.dumps({**made, "recipe": recipe.name, **own})


def _origin(
    digest: str, calibration: Calibration, recipe: Recipe, given: dict[str, Any]
) -> dict[str, Any]:
    """All that the outcome of a run depends on, for its checkpoint."""
    return {
        "model": digest,
        "data": calibration.digest(),
        "recipe": asdict(recipe),
        "options": given,
        "versions": versions(),
    }


def _settled(
    task: Task,
    decided: Mapping[str, Any],
    rule: Allocation | None,
    reconstruct: str,
    memory: int | None,
    say: Callable[[str], None],
) -> Task:
    """The task with the zeros of its layers, if a rule says them, and pieces that fit memory."""
    task = replace(task, zeros=decided["zeros"]) if decided else allocated(task, rule)
    if reconstruct != NETWISE:
        return task
    # What this process takes already says nothing of the run: other pieces would give another file.
    if decided and (decided.get("memory"), decided.get("device")) == (memory, task.device.type):
        return replace(task, pieces=decided["pieces"])
    return replace(task, pieces=pieces_that_fit(task, memory, task.team, say))


def _zeros(learned: Learned, task: Task) -> int:
    """How many zeros the file is to have: the budget's, or what a method without one came to."""
    if learned.holds_target:
        return task.budget.zeros
    found = [learned.tensors[weight.value] for weight in task.weights]
    return sum(value.numel() - int(value.count_nonzero()) for value in found)


def _check_samples(
    calibration: Calibration, recipe: Recipe, augment: Sequence[str] | None, team: Team
) -> None:
    if augment and not calibration.has_images:
        raise CalibrationError(
            f"--augment {','.join(augment)} is for images, and {calibration.origin} has arrays, "
            "which are learned from as they are. Leave it out."
        )
    batch = min(len(calibration), recipe.batch_size)
    if batch < team.size:
        raise FcptsError(
            f"{team.size} processes cannot share batches of {batch} samples. Start fewer, or give "
            "more samples or a larger batch_size in the recipe (--recipe FILE.toml)."
        )


def _tell_of_choices(
    weights: Sequence[Weight], reached: Collection[Weight], say: Callable[[str], None]
) -> None:
    """Say which weights stay dense because nothing can be learned of them."""
    left = [weight for weight in weights if weight not in reached]
    if left:
        names = ", ".join(weight.name for weight in left[:_NAMED])
        say(
            f"{len(left)} of {len(weights)} weights stay as they are, {BEHIND_A_CHOICE}: {names}"
            + (", ..." if len(left) > _NAMED else "")
        )


def _tell_of_rates(
    choices: Choices, weights: Sequence[Weight], budget: Budget, say: Callable[[str], None]
) -> None:
    """Say where rates from a file come to other zeros than the target, which holds."""
    if not (rates := rates_given(choices.allocate)):
        return
    zeros = sum(rates[weight.name] * weight.count for weight in weights)
    share = zeros / sum(weight.count for weight in weights)
    if abs(share - budget.target) > _APART:
        say(
            f"Rates: those of {choices.allocate} come to {share:.2%} zeros, the target is "
            f"{budget.target:.2%}: all give or take in proportion"
        )


def _tell(calibration: Calibration, say: Callable[[str], None]) -> None:
    say(f"Calibration: {calibration.describe()}")
    if len(calibration) < _FEW_SAMPLES:
        say(
            f"Warning: {len(calibration)} samples are few: the weights will fit these and be worse "
            f"on others. Give at least {_FEW_SAMPLES}, better some thousand."
        )
    for line in calibration.skipped:
        say(f"Skipped: {line}")
