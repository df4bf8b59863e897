"""MEASURE: a model on an engine in a process of its own, to be timed in turns with others."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import fcpts_onnx
from fcpts_onnx.errors import FcptsError
from fcpts_onnx.model import InputSpec, image_axes
from fcpts_onnx.runtime import Arrays

__all__ = ["Runner", "random_input"]

_OPEN_BATCH = 1


class Runner:
    """One model on one engine, in a process of its own: a crash there is an error here.

    Attributes:
        which: of the models it is, for whoever asks.
        outputs: of a first run; None if there was none.
        bytes: what the engine's own form of the model takes.
        loading: the least seconds of making that form ready to run.
        seconds: of each run so far.
        error: what went wrong, if something did; nothing is asked of it from then on.
    """

    def __init__(
        self, stack: ExitStack, engine: str, which: str, path: Path, inputs: Arrays, threads: int
    ) -> None:
        self.engine, self.which = engine, which
        self.outputs: Arrays | None = None
        self.bytes, self.loading = 0, 0.0
        self.seconds: list[float] = []
        self.error: str | None = None
        # Here, since the process is killed: what it made itself would stay.
        folder = Path(stack.enter_context(TemporaryDirectory()))
        self._process = _started()
        stack.callback(self._end)
        made = self._ask("prepare", engine, path, inputs, threads, folder)
        if made is not None:
            self.outputs, self.bytes, self.loading = made

    def take_turn(self) -> None:
        """Time some runs, after one that is not counted."""
        self.seconds += self._ask("burst") or []

    def layers(self) -> dict[str, float]:
        """Milliseconds of each layer, where the engine tells: the median of some runs."""
        found: dict[str, float] = self._ask("layers") or {}
        return found

    def _end(self) -> None:
        self._process.kill()
        with suppress(OSError):  # of what was never read
            self._process.communicate()

    def _ask(self, task: str, *arguments: Any) -> Any:
        """What the process makes of a task; nothing once something has gone wrong there."""
        if self.error is not None:
            return None
        tasks, answers = self._process.stdin, self._process.stdout
        assert tasks is not None
        assert answers is not None
        try:
            pickle.dump((task, arguments), tasks)
            tasks.flush()
            went_well, result = pickle.load(answers)
        except (EOFError, BrokenPipeError):
            self.error = f"{self.engine} ended its process without a word"
            return None
        if not went_well:
            self.error = result
            return None
        return result


def _started() -> subprocess.Popen[bytes]:
    """A process of `worker`, which finds this package wherever this one did."""
    places = [str(Path(fcpts_onnx.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, "-m", "fcpts_onnx.evaluate.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))},
    )


def random_input(spec: InputSpec, size: tuple[int, int] | None) -> np.ndarray[Any, Any]:
    """Values of an input's type; the same ones each time."""
    shape = list((None,) * 4 if spec.shape is None else spec.shape)
    shape[:1] = [length or _OPEN_BATCH for length in shape[:1]]
    for place, length in zip(image_axes(shape), size or (), strict=False):
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
