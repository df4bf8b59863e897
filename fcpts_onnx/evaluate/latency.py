"""MEASURE: how long a dense and a sparse model take on the engines at hand."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from fcpts_onnx.errors import FcptsError, OutputError
from fcpts_onnx.evaluate.engines import ENGINES, Engine
from fcpts_onnx.model import InputSpec, Model
from fcpts_onnx.results import Latency, Timing
from fcpts_onnx.runtime import Arrays

__all__ = ["measure_latency"]

_BURST = 5  # runs timed one after another before it is another's turn
_LAYER_RUNS = 9
_OPEN_BATCH = 1


def measure_latency(
    dense: Model,
    sparse: Model,
    engines: Sequence[str],
    *,
    runs: int,
    threads: int,
    size: tuple[int, int] | None = None,
    report: Callable[[int, int], None],
) -> Latency:
    """Time two models on several engines, all in turns, each in a process of its own.

    In turns, what else the machine does falls on all alike. Each turn begins with a run that is
    not counted. Inputs are random, the same for all; outputs are held against onnxruntime's.

    Args:
        engines: names of `engines.ENGINES`.
        runs: how often each is timed.
        size: height and width of images, where the graph leaves them open.
        report: told how many turns of how many are over.

    Raises:
        FcptsError: the graph leaves an input's shape open.
        OutputError: the two models have different inputs.
    """
    shapes = [[(spec.name, spec.shape, spec.dtype) for spec in m.inputs] for m in (dense, sparse)]
    if shapes[0] != shapes[1]:
        raise OutputError(f"{sparse.path}: has other inputs than {dense.path}.")
    inputs = {spec.name: _random(spec, size) for spec in dense.inputs}
    with ExitStack() as stack:
        runners = [
            _Runner(stack, engine, which, model.path, inputs, threads)
            for engine in dict.fromkeys(("ort", *engines))
            for which, model in (("dense", dense), ("sparse", sparse))
        ]
        oracle = {r.which: r.outputs for r in runners if r.engine == "ort"}
        timed = [runner for runner in runners if runner.engine in engines]
        turns = -(-runs // _BURST)
        for turn in range(turns):
            for runner in timed:
                runner.take_turn()
            report(turn + 1, turns)
        timings = tuple(runner.timing(oracle[runner.which]) for runner in timed)
    return Latency(
        str(dense.path),
        str(sparse.path),
        {name: list(value.shape) for name, value in inputs.items()},
        threads,
        turns * _BURST,
        timings,
    )


class _Runner:
    """One model on one engine, in a process of its own: a crash there is an error here."""

    def __init__(
        self, stack: ExitStack, engine: str, which: str, path: Path, inputs: Arrays, threads: int
    ) -> None:
        self.engine, self.which = engine, which
        self.outputs: Arrays | None = None
        self._bytes = 0
        self._seconds: list[float] = []
        self._error: str | None = None
        self._pool = stack.enter_context(
            ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_hushed)
        )
        made = self._ask(_prepare, engine, path, inputs, threads)
        if made is not None:
            self.outputs, self._bytes = made

    def take_turn(self) -> None:
        self._seconds += self._ask(_burst) or []

    def timing(self, oracle: Arrays | None) -> Timing:
        layers = self._ask(_layers)
        if self._error is not None:
            return Timing(self.engine, self.which, error=self._error)
        low, middle, high = np.percentile([1000 * s for s in self._seconds], (25, 50, 75))
        apart = None if oracle is None or self.outputs is None else _apart(self.outputs, oracle)
        return Timing(
            self.engine, self.which, float(middle), (float(low), float(high)), self._bytes, apart,
            layers or {},
        )  # fmt: skip

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function gives in the process; nothing once something has gone wrong there."""
        if self._error is not None:
            return None
        try:
            return self._pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            self._error = f"{self.engine} ended its process without a word"
        except Exception as error:  # engines raise what they like
            self._error = str(error) or type(error).__name__
        return None


_held: dict[str, Engine] = {}  # in a runner's process: its engine


def _hushed() -> None:
    """What engines print belongs on no user's terminal."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


def _prepare(engine: str, path: Path, inputs: Arrays, threads: int) -> tuple[Arrays, int]:
    _held["engine"] = made = ENGINES[engine](path, inputs, threads)
    made.run()
    return made.outputs(), made.bytes


def _burst() -> list[float]:
    engine, seconds = _held["engine"], []
    engine.run()
    for _ in range(_BURST):
        start = time.perf_counter()
        engine.run()
        seconds.append(time.perf_counter() - start)
    return seconds


def _layers() -> dict[str, float]:
    """Milliseconds of each layer: the median of some runs."""
    runs = [_held["engine"].layer_seconds() for _ in range(_LAYER_RUNS)]
    return {name: 1000 * float(np.median([run[name] for run in runs])) for name in runs[0]}


def _apart(found: Arrays, oracle: Arrays) -> float:
    """The worst difference of any output, relative to the largest value of that output."""
    worst = 0.0
    for name, expected in oracle.items():
        if name not in found or found[name].size != expected.size:
            return float("inf")
        difference = np.abs(found[name].reshape(-1) - expected.reshape(-1).astype(np.float64))
        scale = float(np.abs(expected).max(initial=0.0)) or 1.0
        worst = max(worst, float(difference.max(initial=0.0)) / scale)
    return worst


def _random(spec: InputSpec, size: tuple[int, int] | None) -> np.ndarray[Any, Any]:
    """Values of an input's type; the same ones each time."""
    shape = list(spec.shape or (None,) * 4)
    shape[0] = shape[0] or _OPEN_BATCH
    if size is not None and len(shape) == 4:
        places = (1, 2) if shape[3] in (1, 3) and shape[1] not in (1, 3) else (2, 3)
        for place, length in zip(places, size, strict=True):
            shape[place] = shape[place] or length
    if None in shape:
        raise FcptsError(
            f"Input {spec.name!r} has shape {shape}, which leaves some lengths open. "
            "Give --size HEIGHTxWIDTH for images, or fix the shape in the file."
        )
    lengths = [length or 0 for length in shape]
    generator = np.random.default_rng(0)
    if spec.dtype.kind == "f":
        return generator.normal(size=lengths).astype(spec.dtype)
    return generator.integers(0, 2 if spec.dtype.kind == "b" else 100, lengths).astype(spec.dtype)
