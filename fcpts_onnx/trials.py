"""MEASURE: the runs of a comparison, each a trial of a method at a target."""

from __future__ import annotations

import json
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import active_children, get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from shlex import quote
from typing import Any, TypedDict

from fcpts_onnx.errors import CheckpointError, FcptsError
from fcpts_onnx.examine import evaluate
from fcpts_onnx.identity import hash_of_data, hash_of_file
from fcpts_onnx.methods import METHODS, NETWISE, NONE, holds_target
from fcpts_onnx.model import load
from fcpts_onnx.pipeline import prune
from fcpts_onnx.preprocess import Preprocess
from fcpts_onnx.recipe import Recipe
from fcpts_onnx.results import Evaluation, Progress, Trial, silent

__all__ = ["Run", "RunSettings", "Setting", "all_run", "as_read", "evaluated"]

_SPAWN = get_context("spawn")
_KILLED = "its process was killed, perhaps for memory; fewer --jobs take less"
_NEVER_BEGUN = (
    "No run could begin: its process ended before. A script has to call compare below "
    '`if __name__ == "__main__":`, as each process imports it.'
)


@dataclass(frozen=True)
class Setting:
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
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    keep_dense: tuple[str, ...] = ()

    @property
    def selection(self) -> str:
        """Which weights are pruned, as on a command line."""
        globs = {"--include": self.include, "--exclude": self.exclude}
        parts = [f"{option} {quote(glob)}" for option, some in globs.items() for glob in some]
        kept = [f"--keep-dense {','.join(self.keep_dense)}"] if self.keep_dense else []
        return " ".join(parts + kept)

    def fingerprint(self, out: Path) -> dict[str, Any]:
        """What results depend on, to know them again by; they themselves lie in `out`."""
        chosen = {name: [*getattr(self, name)] for name in ("include", "exclude", "keep_dense")}
        return {
            "model": [hash_of_file(file) for file in load(self.model).files],
            "calib": hash_of_data(self.calib, out),
            "data": None if self.data is None else hash_of_data(self.data, out),
            "labels": None if self.labels is None else hash_of_file(self.labels),
            "label_offset": self.label_offset,
            "boxes": None if self.boxes is None else hash_of_data(self.boxes, out),
            "detector": None if self.detector is None else hash_of_file(self.detector),
            "preprocess": _as_stored(self.preprocess),
            "samples": self.samples,
            # Left out where there are none, as in results from before there was a choice.
            **{name: globs for name, globs in chosen.items() if globs},
        }


class RunSettings(TypedDict):
    """What the name of a run stands for, in plain values."""

    allocate: str
    reconstruct: str
    recipe: dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A method at a target, with the recipe it learns by."""

    method: str
    recipe: Recipe
    target: float
    seed: int

    @property
    def settings(self) -> RunSettings:
        """What the name stands for, to know it again by."""
        method = METHODS[self.method]
        return {
            "allocate": method.allocate, "reconstruct": method.reconstruct,
            "recipe": _as_stored(self.recipe),
        }  # fmt: skip

    @property
    def name(self) -> tuple[str, float, int]:
        """What it is told from the others of a comparison by."""
        return self.method, self.target, self.seed

    @property
    def output(self) -> str:
        """The file that it writes."""
        seed = f"-seed{self.seed}" if self.seed else ""
        return f"{self.method}-{self.target}{seed}.onnx"

    def ends_as(self, method: str, target: float, seed: int) -> bool:
        """Whether it comes to the same as a run of that name; without a target, it does at each."""
        if (self.method, self.seed) != (method, seed):
            return False
        held = holds_target(METHODS[method].allocate, self.recipe) or self.recipe.rate_by_density
        return self.target == target or not held


def as_read(settings: RunSettings) -> RunSettings:
    """The settings without what the way to reconstruct does not look at in the recipe."""
    way, recipe = settings["reconstruct"], settings["recipe"]
    if way == NETWISE:
        return settings
    looked_at = () if way == NONE else ("batch_size",)
    return {**settings, "recipe": {key: recipe.get(key) for key in looked_at}}


def _as_stored(settings: Recipe | Preprocess) -> dict[str, Any]:
    """As they read once they were written as JSON."""
    found: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    return found


def all_run(
    setting: Setting,
    folder: Path,
    runs: Sequence[Run],
    jobs: int,
    begin: Callable[[Run], None],
    report: Callable[[Progress], None],
) -> Iterator[tuple[Run, Trial]]:
    """The runs, as they end; at once in processes of their own where there are several jobs.

    Args:
        begin: told of each run before it starts.
        report: told how one learns, where there is one job.
    """
    if jobs == 1:
        for run in runs:
            begin(run)
            yield run, _timed(setting, folder, run, report)
        return
    others, has_begun = active_children(), _SPAWN.Event()
    waiting, pending = deque(runs), dict[Future[Trial], tuple[Run, ProcessPoolExecutor]]()
    try:
        while waiting or pending:
            while waiting and len(pending) < jobs:
                run, pool = waiting.popleft(), _own_process(has_begun)
                begin(run)
                pending[pool.submit(_timed, setting, folder, run)] = run, pool
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                run, pool = pending.pop(future)
                pool.shutdown()
                yield run, _ended(run, future, has_begun.is_set())
    finally:
        for worker in set(active_children()) - set(others) if pending else ():
            worker.terminate()  # else they are waited for
        for _, pool in pending.values():
            pool.shutdown()


def _own_process(has_begun: Event) -> ProcessPoolExecutor:
    """A process for one run: where one is killed, a pool ends all that it has."""
    return ProcessPoolExecutor(1, _SPAWN, _begun, (has_begun,))


def _begun(flag: Event) -> None:
    """What a process does first, which has imported what the user started by then."""
    # Ctrl-C goes to all processes: a worker hears of it from the first, once, and keeps its state.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    flag.set()


def _ended(run: Run, future: Future[Trial], has_begun: bool) -> Trial:
    """What a process came to.

    Args:
        has_begun: whether any has.

    Raises:
        FcptsError: none can.
    """
    if not isinstance(future.exception(), BrokenProcessPool):
        return future.result()
    if not has_begun:
        raise FcptsError(_NEVER_BEGUN)
    return Trial(run.method, run.target, run.seed, error=_KILLED)


def _timed(
    setting: Setting, folder: Path, run: Run, report: Callable[[Progress], None] = silent
) -> Trial:
    start = time.monotonic()
    try:
        return _trial(setting, folder, run, report)
    except (FcptsError, RuntimeError, MemoryError) as error:
        reason, seconds = str(error) or type(error).__name__, time.monotonic() - start
        return Trial(run.method, run.target, run.seed, seconds=seconds, error=reason)


def _trial(setting: Setting, folder: Path, run: Run, report: Callable[[Progress], None]) -> Trial:
    method = METHODS[run.method]
    output = folder / run.output
    pruned = partial(
        prune, setting.model, output, target=run.target, calib=setting.calib, seed=run.seed,
        preprocess=setting.preprocess, recipe=run.recipe, allocate=method.allocate,
        reconstruct=method.reconstruct, samples=setting.samples, threads=setting.threads,
        include=setting.include, exclude=setting.exclude, keep_dense=setting.keep_dense,
        report=report,
        # What a former run left may have hardly a zero; the input alone is to stay.
        overwrite=not (output.exists() and output.samefile(setting.model)),
    )  # fmt: skip
    try:
        result = pruned(resume=True)
    except CheckpointError:  # of other settings, or another version
        result = pruned()
    compared = next((o for o in result.validation.outputs if o.kl is not None), None)
    found = evaluated(setting, output)
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


def evaluated(setting: Setting, model: Path) -> Evaluation | None:
    if setting.data is None:
        return None
    return evaluate(
        model, data=setting.data, labels=setting.labels, label_offset=setting.label_offset,
        boxes=setting.boxes, detector=setting.detector, preprocess=setting.preprocess,
        threads=setting.threads,
    )  # fmt: skip
