"""MEASURE: a model on an engine in a process of its own, to be timed in turns with others."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from fcpts_onnx.errors import FcptsError
from fcpts_onnx.evaluate.engines import ENGINES, Engine
from fcpts_onnx.model import InputSpec
from fcpts_onnx.runtime import Arrays

__all__ = ["BURST", "Runner", "random_input"]

BURST = 5
"""Runs timed one after another before it is another's turn."""

_LAYER_RUNS = 9
_OPEN_BATCH = 1


class Runner:
    """One model on one engine, in a process of its own: a crash there is an error here.

    Attributes:
        which: of the models it is, for whoever asks.
        outputs: of a first run; None if there was none.
        bytes: what the engine's own form of the model takes.
        seconds: of each run so far.
        error: what went wrong, if something did; nothing is asked of it from then on.
    """

    def __init__(
        self, stack: ExitStack, engine: str, which: str, path: Path, inputs: Arrays, threads: int
    ) -> None:
        self.engine, self.which = engine, which
        self.outputs: Arrays | None = None
        self.bytes = 0
        self.seconds: list[float] = []
        self.error: str | None = None
        self._pool = stack.enter_context(
            ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_hushed)
        )
        made = self._ask(_prepare, engine, path, inputs, threads)
        if made is not None:
            self.outputs, self.bytes = made

    def take_turn(self) -> None:
        """Time some runs, after one that is not counted."""
        self.seconds += self._ask(_burst) or []

    def layers(self) -> dict[str, float]:
        """Milliseconds of each layer, where the engine tells: the median of some runs."""
        found: dict[str, float] = self._ask(_layers) or {}
        return found

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function gives in the process; nothing once something has gone wrong there."""
        if self.error is not None:
            return None
        try:
            return self._pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            self.error = f"{self.engine} ended its process without a word"
        except Exception as error:  # engines raise what they like
            self.error = str(error) or type(error).__name__
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
    for _ in range(BURST):
        start = time.perf_counter()
        engine.run()
        seconds.append(time.perf_counter() - start)
    return seconds


def _layers() -> dict[str, float]:
    runs = [_held["engine"].layer_seconds() for _ in range(_LAYER_RUNS)]
    return {name: 1000 * float(np.median([run[name] for run in runs])) for name in runs[0]}


def random_input(spec: InputSpec, size: tuple[int, int] | None) -> np.ndarray[Any, Any]:
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
