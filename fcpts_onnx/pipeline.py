"""prune: the steps of the data flow, one line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from fcpts_onnx.calibration import Data
from fcpts_onnx.checkpoint import opened
from fcpts_onnx.choices import Choices, recipe_for
from fcpts_onnx.clock import Clock
from fcpts_onnx.evidence import versions
from fcpts_onnx.hardware import CHIPS, estimate
from fcpts_onnx.machine import device_of, limited_threads
from fcpts_onnx.memory import check_room
from fcpts_onnx.methods import LEARNED, NETWISE, recovered
from fcpts_onnx.model import PathLike, load
from fcpts_onnx.parity import check_parity, oracle_of
from fcpts_onnx.preparation import network_to_prune
from fcpts_onnx.preprocess import Preprocess
from fcpts_onnx.publish import check_no_dense_model, check_unchanged, publish
from fcpts_onnx.recipe import Recipe
from fcpts_onnx.results import Progress, PruneResult, silent
from fcpts_onnx.run import Run, check_files
from fcpts_onnx.sparsity.budget import Budget
from fcpts_onnx.sparsity.losses import Loss
from fcpts_onnx.team import joined
from fcpts_onnx.weights import find_weights

__all__ = ["prune"]


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
    recipe = recipe_for(choices, recipe, augment)
    torch_device = device_of(device, engine)
    check_room(torch_device)
    with limited_threads(threads), joined() as team, ExitStack() as stack:
        run = Run(choices, recipe, augment, memory, threads, clock, team, say)
        with clock("load"):
            dense = load(model)
            digest = dense.digest()
            check_files(dense, target_path, calib, overwrite, storage, say)
            checkpoint = stack.enter_context(
                opened(
                    target_path, team, every=checkpoint_every, resume=resume,
                    keep=keep_checkpoint, say=say,
                )
            )  # fmt: skip
            twin, weights = network_to_prune(dense, include, exclude, keep_dense, say)
            if not overwrite:
                check_no_dense_model(dense, target_path, weights, choices.target)
            choices.check_network(twin, weights)
            oracle = oracle_of(twin, dense, threads)
        with clock("budget"):
            decided = checkpoint.decided  # by the run that is gone on with
            clock.go_on(decided.get("spent", 0.0))
            budget = None if decided else run.budget(dense, weights)
            # Before the file may be replaced.
            everything = find_weights(dense) if hardware in CHIPS else []
        with clock.stopped():
            ready()
        with clock("calibrate"):
            calibration = run.calibration(calib, dense, samples)
            checkpoint.belongs_to(partial(run.origin, digest, calibration, twin.learned))
            # Timings and memory are others now, and so would be what follows from them.
            budget = budget or Budget(**decided["budget"])
        with clock("check"):
            parity = check_parity(twin, dense, calibration, oracle)
            del oracle  # with the memory that it took
            say(f"Twin: agrees with onnxruntime within {parity.error:.1e} of the output's scale")
            twin.prepare(torch_device)
            task = run.task(twin, calibration, weights, budget, decided, parity)
        with clock("learn"):
            task = run.settled(task, decided)
            checkpoint.decided = run.decisions(task)
            seconds = clock.left(time_budget, parity, len(calibration), team)
            with checkpoint.listening():
                learned = recovered(
                    task, reconstruct, seconds=seconds, say=say, report=report,
                    checkpoint=checkpoint,
                )  # fmt: skip
            zeros = run.zeros(learned, task)
            twin.prepare(torch.device("cpu"))
        if learned.history:
            clock.at_least("learn", learned.history[-1].seconds)
        with clock("write"):
            check_unchanged(dense, digest)
            made = run.made(budget, zeros) if stamp else None
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
        settings={**asdict(task.recipe), "augment": [*task.recipe.augment]},
        weight_values=values,
        versions=versions(),
        **choices.named,
    )
