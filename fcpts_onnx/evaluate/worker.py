"""MEASURE: the process that runs a model on an engine: tasks come in and answers go out as pickles.

Started by `runner` as a program of its own: multiprocessing would run the user's script anew.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from fcpts_onnx.evaluate.engines import ENGINES, Engine
from fcpts_onnx.runtime import Arrays

__all__ = ["BURST", "serve"]

BURST = 5
"""Runs timed one after another before it is another's turn."""

_LAYER_RUNS = 9
_LOADS = 3

_held: dict[str, Engine] = {}


def serve(tasks: IO[bytes], answers: IO[bytes]) -> None:
    """Answer (task, arguments) with (whether it went well, result or message) until they end."""
    while True:
        try:
            task, arguments = pickle.load(tasks)
        except EOFError:
            return
        try:
            answer = (True, _TASKS[task](*arguments))
        except Exception as error:  # engines raise what they like
            answer = (False, str(error) or type(error).__name__)
        pickle.dump(answer, answers)
        answers.flush()


def _prepare(
    engine: str, path: Path, inputs: Arrays, threads: int, folder: Path
) -> tuple[Arrays, int, float]:
    """Make a model ready and run it once; what the engine writes goes into a folder.

    Returns:
        Its outputs, the bytes of the engine's own form, and the least seconds of loading that.
    """
    _held["engine"] = made = ENGINES[engine](path, inputs, threads, folder)
    seconds = min(_timed(made.load) for _ in range(_LOADS))
    made.run()
    return made.outputs(), made.bytes, seconds


def _timed(action: Callable[[], None]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _burst() -> list[float]:
    """Seconds of some runs, after one that is not counted."""
    engine = _held["engine"]
    engine.run()
    return [_timed(engine.run) for _ in range(BURST)]


def _layers() -> dict[str, float]:
    """Milliseconds of each layer, where the engine tells: the median of some runs."""
    runs = [_held["engine"].layer_seconds() for _ in range(_LAYER_RUNS)]
    return {name: 1000 * float(np.median([run[name] for run in runs])) for name in runs[0]}


_TASKS: dict[str, Callable[..., Any]] = {"prepare": _prepare, "burst": _burst, "layers": _layers}


def _main() -> None:
    """Serve the process that started this one; what engines print goes nowhere."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that started it takes care of that
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    _main()
