"""MEASURE: methods side by side on one model, gone on with where it was stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fcpts_onnx.calibration import load_calibration
from fcpts_onnx.errors import (
    CalibrationError,
    FcptsError,
    OutputError,
    RecipeError,
    TargetError,
)
from fcpts_onnx.files import check_text, write_text
from fcpts_onnx.methods import METHODS
from fcpts_onnx.model import PathLike, load
from fcpts_onnx.preparation import weights_to_prune
from fcpts_onnx.preprocess import Preprocess
from fcpts_onnx.recipe import Recipe
from fcpts_onnx.report.comparison import markdown, page
from fcpts_onnx.results import Comparison, Evaluation, Progress, Trial, silent
from fcpts_onnx.team import started_processes
from fcpts_onnx.texts import in_words
from fcpts_onnx.trials import Run, Setting, all_run, evaluated

__all__ = ["compare"]

_RESULTS, _TABLE, _PAGE = "results.json", "results.md", "results.html"
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
    book = _Book(folder, setting)
    book.dense = book.dense or evaluated(setting, setting.model)
    wanted = [
        Run(name, recipes[name], target, seed)
        for target in targets
        for name in methods
        for seed in seeds
    ]
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
    return book.comparison(wanted)


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
        RecipeError: it would of each.
    """
    own = {name: Recipe.load(METHODS[name].recipe) for name in methods}
    if choice is None:
        return own
    chosen = Recipe.of(choice)
    kept = {name: of for name, of in own.items() if of.thresholds != chosen.thresholds}
    ways = ", ".join(f"{name} ({of.thresholds})" for name, of in kept.items())
    if kept and len(kept) == len(own):
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


class _Book:
    """The results of a folder, written anew after each run.

    Attributes:
        dense: what the dense model was measured to have, None as long as it was not.
    """

    def __init__(self, folder: Path, setting: Setting) -> None:
        self._folder, self._setting = folder, setting
        self._path = folder / _RESULTS
        self.dense: Evaluation | None = None
        self._same = setting.fingerprint(folder)
        self._entries: list[dict[str, Any]] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            check_text(self._path, "JSON")
            stored = json.loads(self._path.read_text(encoding="utf-8") or "{}")
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise OutputError(f"{folder}: results cannot be kept there: {error}") from error
        there = stored.get("setting", {})
        every = [*self._same, *(key for key in there if key not in self._same)]
        if apart := [key for key in every if there.get(key) != self._same.get(key)]:
            raise OutputError(
                f"{self._path}: holds results of another comparison: {', '.join(apart)} differ. "
                "Name another folder with --out."
            )
        self._entries = stored["runs"]
        if dense := stored.get("dense"):
            self.dense = Evaluation(**{**dense, "skipped": tuple(dense["skipped"])})

    def has(self, run: Run) -> bool:
        """Whether a run was done with just these settings, and its file is there.

        What came to the same at another target is noted for this one too.
        """
        found = self._find(run)
        if found is not None and found.error is None and found.target != run.target:
            self.add(run, replace(found, target=run.target, recipe=""))
        return found is not None and found.error is None

    def drop(self, run: Run) -> None:
        """Forget what is known of the file that a run is about to replace."""
        kept = [entry for entry in self._entries if entry["trial"]["output"] != run.output]
        if len(kept) < len(self._entries):
            self._entries = kept
            self._write()

    def add(self, run: Run, trial: Trial) -> None:
        """Note a run and write all that is known."""
        self._entries = [e for e in self._entries if _name(Trial(**e["trial"])) != run.name]
        self._entries.append({"settings": run.settings, "trial": asdict(trial)})
        self._write()

    def _write(self) -> None:
        dense = None if self.dense is None else asdict(self.dense)
        stored = {"setting": self._same, "dense": dense, "runs": self._entries}
        write_text(self._path, json.dumps(stored, indent=2) + "\n")
        trials = tuple(trial for _, trial in _labelled(self._entries))
        found = self._compared(trials)
        write_text(self._folder / _TABLE, markdown(found))
        write_text(self._folder / _PAGE, page(found))

    def comparison(self, wanted: Sequence[Run]) -> Comparison:
        """What the runs gave, in the order they were asked for."""
        trials = tuple(found for run in wanted if (found := self._find(run)) is not None)
        return self._compared(trials)

    def _compared(self, trials: tuple[Trial, ...]) -> Comparison:
        return Comparison(str(self._setting.model), self.dense, trials, self._setting.selection)

    def _find(self, run: Run) -> Trial | None:
        """A result of this run, or else of one that comes to the same."""
        trials = [
            trial
            for settings, trial in _labelled(self._entries)
            if settings == run.settings and self._is_there(trial)
        ]
        own = [trial for trial in trials if _name(trial) == run.name]
        alike = [trial for trial in trials if not trial.error and run.ends_as(*_name(trial))]
        return next(iter(own + alike), None)

    def _is_there(self, trial: Trial) -> bool:
        return trial.output is None or (self._folder / trial.output).is_file()


def _labelled(entries: Sequence[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Trial]]:
    """Settings and trials of entries, with the recipe's name where those of a method differ."""
    recipes: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        known = recipes.setdefault(entry["trial"]["method"], [])
        if entry["settings"]["recipe"] not in known:
            known.append(entry["settings"]["recipe"])
    for entry in entries:
        known, own = recipes[entry["trial"]["method"]], entry["settings"]["recipe"]
        alike = [recipe for recipe in known if recipe["name"] == own["name"]]
        place = 1 + alike.index(own)  # others of the name, as of a file that was changed
        name = own["name"] if place == 1 else f"{own['name']} ({place})"
        label = name if len(known) > 1 else ""
        yield entry["settings"], Trial(**{**entry["trial"], "recipe": label})


def _name(trial: Trial) -> tuple[str, float, int]:
    return trial.method, trial.target, trial.seed


def _line(trial: Trial) -> str:
    start = f"{trial.method} at {trial.target:g}"
    if trial.error is not None:
        return f"{start}: {trial.error}"
    accuracy = f"{in_words(trial.scores)}, " if trial.scores else ""
    agreement = "" if trial.agreement is None else f"same top-1 on calib {trial.agreement:.2%}, "
    note = f"; {trial.note}" if trial.note else ""
    return f"{start}: {accuracy}{agreement}{trial.seconds:.0f} s{note}"
