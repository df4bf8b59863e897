"""MEASURE: methods side by side on one model, gone on with where it was stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from fcpts_onnx.book import Book, opened
from fcpts_onnx.calibration import load_calibration
from fcpts_onnx.errors import (
    CalibrationError,
    FcptsError,
    RecipeError,
    TargetError,
)
from fcpts_onnx.methods import METHODS, NETWISE
from fcpts_onnx.model import PathLike, load
from fcpts_onnx.preparation import weights_to_prune
from fcpts_onnx.preprocess import Preprocess
from fcpts_onnx.recipe import Recipe
from fcpts_onnx.results import Comparison, Progress, Trial, silent
from fcpts_onnx.team import started_processes
from fcpts_onnx.texts import in_share, in_words
from fcpts_onnx.trials import Run, Setting, all_run, evaluated

__all__ = ["compare"]

_TRIED = 64  # samples


def compare(
    model: PathLike,
    *,
    methods: Sequence[str],
    targets: Sequence[float],
    calib: PathLike,
    out: PathLike,
    data: PathLike | None = None,
    labels: PathLike | None = None,
    label_offset: int = 0,
    boxes: PathLike | None = None,
    detector: PathLike | None = None,
    preprocess: Preprocess | str = "imagenet",
    recipe: Recipe | str | None = None,
    samples: int = 10_000,
    seeds: Sequence[int] = (0,),
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    keep_dense: Sequence[str] = (),
    jobs: int = 1,
    threads: int = 0,
    say: Callable[[str], None] = silent,
    report: Callable[[Progress], None] = silent,
) -> Comparison:
    """Prune a model by several methods to several targets and hold the results side by side.

    Every sparse model, results.json, results.md and results.html lie in `out`; they are written
    after each run. Runs whose results are there are not repeated, and one that was interrupted goes
    on from its last checkpoint. A method that cannot hold a target is run once for all of them.

    Args:
        methods: names of `methods.METHODS`.
        targets: shares of zeros, 0 to 1.
        data, labels, label_offset, boxes, detector: as `evaluate` takes them.
        recipe: instead of the own one of each method that learns its thresholds in the same way;
            the others are said.
        include, exclude, keep_dense: which weights are pruned, as `prune` takes them.
        jobs: how many runs at once, each in a process with its part of the processor.
        threads: of each run, 0 for its part of what is there.
        say, report: told what happens: lines, and the progress of learning where there is one job.

    Raises:
        FcptsError: a method is unknown, or the model or the data cannot be read at all. A method
            that cannot take the model is a row that says why.
        Interrupted: a signal asked to stop.
    """
    if unknown := sorted(set(methods) - METHODS.keys()):
        raise TargetError(f"Unknown: {', '.join(unknown)}; methods are {', '.join(METHODS)}.")
    if started_processes() > 1:
        raise FcptsError(
            "A comparison is started by one process; --jobs makes others. No torchrun."
        )
    if jobs < 1:
        raise FcptsError(f"{jobs} jobs; expected at least 1.")
    recipes = _recipes(methods, recipe, say)
    folder = Path(out)
    if data is None and (labels, boxes, detector, label_offset) != (None, None, None, 0):
        raise CalibrationError("Labels, boxes or a detector are given, but no images: add --data.")
    settings = Preprocess.of(preprocess)
    if detector is not None:
        settings = replace(settings, fit="stretch")  # as it is measured
    setting = Setting(
        Path(model), Path(calib), _path(data), _path(labels), label_offset, _path(boxes),
        _path(detector), settings, samples,
        threads or max(1, _cores() // jobs), tuple(include), tuple(exclude), tuple(keep_dense),
    )  # fmt: skip
    dense = load(model)
    weights_to_prune(dense, include, exclude, keep_dense)
    # What no method could read; of some, since single images may be broken.
    load_calibration(calib, dense, settings, samples=_TRIED)
    with opened(folder, setting) as book:
        book.dense = book.dense or evaluated(setting, setting.model)
        wanted = [
            Run(name, recipes[name], target, seed)
            for target in targets
            for name in methods
            for seed in seeds
        ]
        _run_all(book, setting, folder, wanted, jobs, say, report)
        return book.comparison(wanted)


def _run_all(
    book: Book,
    setting: Setting,
    folder: Path,
    wanted: Sequence[Run],
    jobs: int,
    say: Callable[[str], None],
    report: Callable[[Progress], None],
) -> None:
    """See that the book has each run, with those that come to the same done once."""
    left = [run for run in wanted if not book.has(run)]
    done = len(wanted) - len(left)
    say(f"{len(wanted)} runs" + (f", {done} of them done before" if done else ""))
    while left:
        first = [run for place, run in enumerate(left) if not _ends_as_any(run, left[:place])]
        for run, trial in all_run(setting, folder, first, jobs, book.drop, report):
            # An error may be of the target.
            alike = (
                [run] if trial.error else [other for other in left if _ends_as_any(other, [run])]
            )
            for other in alike:
                book.add(other, replace(trial, target=other.target))
                left.remove(other)
            say(_line(trial))


def _ends_as_any(run: Run, others: Sequence[Run]) -> bool:
    return any(run.ends_as(*other.name) for other in others)


def _cores() -> int:
    """How many this process may use; a scheduler or `taskset` may keep it to some."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _path(file: PathLike | None) -> Path | None:
    return None if file is None else Path(file)


def _recipes(
    methods: Sequence[str], choice: Recipe | str | None, say: Callable[[str], None]
) -> dict[str, Recipe]:
    """The chosen recipe for each method, unless that would make another method of it.

    Raises:
        RecipeError: it would of each that learns thresholds.
    """
    own = {name: Recipe.load(METHODS[name].recipe) for name in methods}
    if choice is None:
        return own
    chosen = Recipe.of(choice)
    learning = [name for name in methods if METHODS[name].reconstruct == NETWISE]
    kept = {name: own[name] for name in learning if own[name].thresholds != chosen.thresholds}
    ways = ", ".join(f"{name} ({of.thresholds})" for name, of in kept.items())
    if kept and len(kept) == len(learning):
        raise RecipeError(
            f"Recipe {chosen.name!r}: learns thresholds by {chosen.thresholds!r}, and the methods "
            f"in other ways: {ways}. Leave it out, or compare a method that it fits."
        )
    if kept:
        say(
            f"Recipe {chosen.name!r} learns thresholds by {chosen.thresholds!r}; what learns in "
            f"another way keeps its own: {ways}"
        )
    return {name: kept.get(name, chosen) for name in methods}


def _line(trial: Trial) -> str:
    start = f"{trial.method} at {in_share(trial.target)}"
    if trial.error is not None:
        return f"{start}: {trial.error}"
    accuracy = f"{in_words(trial.scores)}, " if trial.scores else ""
    agreement = "" if trial.agreement is None else f"same top-1 on calib {trial.agreement:.2%}, "
    note = f"; {trial.note}" if trial.note else ""
    return f"{start}: {accuracy}{agreement}{trial.seconds:.0f} s{note}"
