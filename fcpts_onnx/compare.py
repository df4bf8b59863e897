"""MEASURE: methods side by side on one model, gone on with where it was stopped."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

from fcpts_onnx.calibration import load_calibration
from fcpts_onnx.errors import (
    CalibrationError,
    CheckpointError,
    FcptsError,
    OutputError,
    TargetError,
)
from fcpts_onnx.examine import evaluate
from fcpts_onnx.methods import METHODS, Method, holds_target
from fcpts_onnx.model import PathLike, load
from fcpts_onnx.pipeline import prune
from fcpts_onnx.preprocess import Preprocess
from fcpts_onnx.recipe import Recipe
from fcpts_onnx.report.comparison import markdown, page
from fcpts_onnx.results import Comparison, Evaluation, Trial, silent
from fcpts_onnx.texts import in_words
from fcpts_onnx.write import check_text, write_text

__all__ = ["compare"]

_RESULTS, _TABLE, _PAGE = "results.json", "results.md", "results.html"


@dataclass(frozen=True)
class _Setting:
    """What all runs of a comparison have in common; results of another are never mixed in."""

    model: Path
    calib: Path
    data: Path | None
    labels: Path | None
    label_offset: int
    boxes: Path | None
    detector: Path | None
    preprocess: Preprocess
    samples: int
    threads: int

    def fingerprint(self) -> dict[str, Any]:
        """What results depend on, to know them again by."""
        return {
            "model": [_hash(file) for file in load(self.model).files],
            "calib": str(self.calib.resolve()),
            "data": None if self.data is None else str(self.data.resolve()),
            "labels": None if self.labels is None else _hash(self.labels),
            "label_offset": self.label_offset,
            "boxes": None if self.boxes is None else str(self.boxes.resolve()),
            "detector": None if self.detector is None else _hash(self.detector),
            "preprocess": _as_stored(self.preprocess),
            "samples": self.samples,
        }


@dataclass(frozen=True)
class _Run:
    """A method at a target, with the recipe it learns by."""

    method: str
    recipe: Recipe
    target: float
    seed: int

    @property
    def settings(self) -> dict[str, Any]:
        """What the name stands for, to know it again by."""
        method = METHODS[self.method]
        chosen = {"allocate": method.allocate, "reconstruct": method.reconstruct}
        return {**chosen, "recipe": _as_stored(self.recipe)}

    @property
    def outcome(self) -> tuple[str, int, float | None]:
        """What says how it ends; without a target, that is the same at each."""
        held = holds_target(METHODS[self.method].allocate, self.recipe)
        return self.method, self.seed, self.target if held else None

    def is_of(self, trial: Trial) -> bool:
        """Whether a result is that of this run."""
        found = (trial.method, trial.target, trial.seed)
        return found == (self.method, self.target, self.seed)


def _as_stored(settings: Recipe | Preprocess) -> dict[str, Any]:
    """As they read once they were written as JSON."""
    found: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    return found


def _hash(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


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
    jobs: int = 1,
    threads: int = 0,
    say: Callable[[str], None] = silent,
) -> Comparison:
    """Prune a model by several methods to several targets and hold the results side by side.

    Every sparse model, results.json, results.md and results.html lie in `out`; they are written
    after each run. Runs whose results are there are not repeated, and one that was interrupted goes
    on from its last checkpoint. A method that cannot hold a target is run once for all of them.

    Args:
        methods: names of `methods.METHODS`.
        targets: shares of zeros, 0 to 1.
        data, labels, label_offset, boxes, detector: as `evaluate` takes them.
        recipe: instead of the own one of each method that learns its thresholds in the same way.
        jobs: how many runs at once, each in a process with its part of the processor.
        threads: of each run, 0 for its part of what is there.

    Raises:
        FcptsError: a method is unknown, or the model or the data cannot be read at all. A method
            that cannot take the model is a row that says why.
        Interrupted: a signal asked to stop.
    """
    if unknown := sorted(set(methods) - METHODS.keys()):
        raise TargetError(f"Unknown: {', '.join(unknown)}; methods are {', '.join(METHODS)}.")
    folder = Path(out)
    if data is None and (labels, boxes, detector, label_offset) != (None, None, None, 0):
        raise CalibrationError("Labels, boxes or a detector are given, but no images: add --data.")
    settings = Preprocess.of(preprocess)
    if detector is not None:
        settings = replace(settings, fit="stretch")  # as it is measured
    setting = _Setting(
        Path(model), Path(calib), _path(data), _path(labels), label_offset, _path(boxes),
        _path(detector), settings, samples,
        threads or max(1, (os.cpu_count() or 1) // jobs),
    )  # fmt: skip
    load_calibration(calib, load(model), settings, samples=1)  # what no method could read
    recipes = {name: _recipe(METHODS[name], recipe) for name in methods}
    dense = _evaluated(setting, setting.model)
    book = _Book(folder, setting, dense)
    wanted = [
        _Run(name, recipes[name], target, seed)
        for target in targets
        for name in methods
        for seed in seeds
    ]
    left = [run for run in wanted if not book.has(run)]
    say(f"{len(wanted)} runs, {len(wanted) - len(left)} of them done before")
    alike: dict[Any, list[_Run]] = {}
    for run in left:
        alike.setdefault(run.outcome, []).append(run)
    for found, trial in _all_run(setting, folder, [first for first, *_ in alike.values()], jobs):
        for run in alike[found.outcome]:
            book.add(run, replace(trial, target=run.target))
        say(_line(trial))
    return book.comparison(wanted)


def _path(file: PathLike | None) -> Path | None:
    return None if file is None else Path(file)


def _recipe(method: Method, choice: Recipe | str | None) -> Recipe:
    """The chosen recipe, unless that would make another method of it."""
    own = Recipe.load(method.recipe)
    if choice is None:
        return own
    chosen = Recipe.of(choice)
    return chosen if chosen.thresholds == own.thresholds else own


class _Book:
    """The results of a folder, written anew after each run."""

    def __init__(self, folder: Path, setting: _Setting, dense: Evaluation | None) -> None:
        self._folder, self._setting, self._dense = folder, setting, dense
        self._path = folder / _RESULTS
        self._same = setting.fingerprint()
        self._entries: list[dict[str, Any]] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            check_text(self._path, "JSON")
            stored = json.loads(self._path.read_text(encoding="utf-8") or "{}")
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise OutputError(f"{folder}: results cannot be kept there: {error}") from error
        if stored.get("setting") != self._same:
            raise OutputError(
                f"{self._path}: holds results of another model, data or preprocessing. Name "
                "another folder with --out."
            )
        self._entries = stored["runs"]

    def has(self, run: _Run) -> bool:
        """Whether a run was done with just these settings, and its file is there."""
        found = self._find(run)
        return found is not None and found.error is None

    def add(self, run: _Run, trial: Trial) -> None:
        """Note a run and write all that is known."""
        self._entries = [e for e in self._entries if not run.is_of(Trial(**e["trial"]))]
        self._entries.append({"settings": run.settings, "trial": asdict(trial)})
        stored = {"setting": self._same, "runs": self._entries}
        write_text(self._path, json.dumps(stored, indent=2) + "\n")
        trials = tuple(Trial(**entry["trial"]) for entry in self._entries)
        found = Comparison(str(self._setting.model), self._dense, trials)
        write_text(self._folder / _TABLE, markdown(found))
        write_text(self._folder / _PAGE, page(found))

    def comparison(self, wanted: Sequence[_Run]) -> Comparison:
        """What the runs gave, in the order they were asked for."""
        trials = tuple(found for run in wanted if (found := self._find(run)) is not None)
        return Comparison(str(self._setting.model), self._dense, trials)

    def _find(self, run: _Run) -> Trial | None:
        for entry in self._entries:
            trial = Trial(**entry["trial"])
            if run.is_of(trial):
                is_there = trial.output is None or (self._folder / trial.output).is_file()
                return trial if entry["settings"] == run.settings and is_there else None
        return None


def _all_run(
    setting: _Setting, folder: Path, runs: Sequence[_Run], jobs: int
) -> Iterator[tuple[_Run, Trial]]:
    """The runs, as they end; at once in processes of their own where there are several jobs."""
    if jobs == 1:
        for run in runs:
            yield run, _timed(setting, folder, run)
        return
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
    try:
        pending = {pool.submit(_timed, setting, folder, run): run for run in runs}
        for future in as_completed(pending):
            yield pending[future], future.result()
    except KeyboardInterrupt:
        for worker in active_children():  # else they are waited for
            worker.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _timed(setting: _Setting, folder: Path, run: _Run) -> Trial:
    start = time.monotonic()
    try:
        return _trial(setting, folder, run)
    except (FcptsError, RuntimeError, MemoryError) as error:
        reason, seconds = str(error) or type(error).__name__, time.monotonic() - start
        return Trial(run.method, run.target, run.seed, seconds=seconds, error=reason)


def _trial(setting: _Setting, folder: Path, run: _Run) -> Trial:
    method = METHODS[run.method]
    output = folder / f"{run.method}-{run.target:g}{f'-seed{run.seed}' if run.seed else ''}.onnx"
    pruned = partial(
        prune, setting.model, output, target=run.target, calib=setting.calib, seed=run.seed,
        preprocess=setting.preprocess, recipe=run.recipe, allocate=method.allocate,
        reconstruct=method.reconstruct, samples=setting.samples, threads=setting.threads,
    )  # fmt: skip
    try:
        result = pruned(resume=True)
    except CheckpointError:  # of other settings, or another version
        result = pruned()
    compared = next((o for o in result.validation.outputs if o.kl is not None), None)
    found = _evaluated(setting, output)
    return Trial(
        run.method,
        run.target,
        run.seed,
        output=output.name,
        zeros=result.zeros,
        count=result.count,
        kl=None if compared is None else compared.kl,
        agreement=None if compared is None else compared.agreement,
        scores={} if found is None else found.scores,
        seconds=sum(result.seconds.values()),
    )


def _evaluated(setting: _Setting, model: Path) -> Evaluation | None:
    if setting.data is None:
        return None
    return evaluate(
        model, data=setting.data, labels=setting.labels, label_offset=setting.label_offset,
        boxes=setting.boxes, detector=setting.detector, preprocess=setting.preprocess,
        threads=setting.threads,
    )  # fmt: skip


def _line(trial: Trial) -> str:
    start = f"{trial.method} at {trial.target:g}"
    if trial.error is not None:
        return f"{start}: {trial.error}"
    accuracy = f"{in_words(trial.scores)}, " if trial.scores else ""
    agreement = "" if trial.agreement is None else f"same top-1 {trial.agreement:.2%}, "
    note = f"; {trial.note}" if trial.note else ""
    return f"{start}: {accuracy}{agreement}{trial.seconds:.0f} s{note}"
