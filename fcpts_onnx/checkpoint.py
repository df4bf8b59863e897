"""LEARN: what an interrupted run goes on from, in a folder beside its output."""

from __future__ import annotations

import glob
import json
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save_file
from torch import Tensor

from fcpts_onnx.errors import CheckpointError, Interrupted, OutputError
from fcpts_onnx.files import locked, staged
from fcpts_onnx.packing import flat, packed, unpacked
from fcpts_onnx.results import silent
from fcpts_onnx.team import Team

__all__ = ["NO_CHECKPOINT", "Checkpoint", "opened"]

State = dict[str, Any]
"""Tensors, numbers, booleans and None, in mappings and lists; no texts."""

_SUFFIX = ".fcpts"
_LEAST_PAUSE = 20  # times what saving took, before it is done again
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Checkpoint:
    """The states of one run, of which the last is kept.

    Args:
        file: where it is kept, if it is.
        every: seconds between two states; None keeps none.
        keep: whether the last one stays when the run is over.
        say: told what goes wrong.

    Attributes:
        found: the state to go on from, if there is one.
        decided: what its run had settled before it learned, to be kept to; then what this one has.
    """

    def __init__(
        self, file: Path | None, every: float | None, keep: bool, say: Callable[[str], None]
    ) -> None:
        self._file, self._every, self._keep, self._say = file, every, keep, say
        self._due = time.monotonic() + (every or 0.0)
        self._signal: int | None = None
        self._origin: State | None = None
        self._describe: Callable[[], State] = dict
        self.found: State | None = None
        self.decided: State = {}

    def read(self) -> None:
        """Find the state to go on from.

        Raises:
            CheckpointError: it cannot be read.
        """
        if self._file is None or not self._file.exists():
            self._say("There is no checkpoint to resume: starting from the beginning")
            return
        try:
            with safe_open(self._file, "pt") as stored:
                texts = {name: json.loads(text) for name, text in stored.metadata().items()}
            self._origin, self.decided = texts["origin"], texts["decided"]
            self.found = unpacked(texts["state"], load(self._file.read_bytes()))
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{self._file}: cannot be read as a checkpoint: {error}. Start without --resume."
            ) from error

    def belongs_to(self, describe: Callable[[], State]) -> None:
        """Say what run this is; called for once, when a state is saved or was found.

        Args:
            describe: the model, the data and the settings, in mappings of plain values.

        Raises:
            CheckpointError: the state that was found is of another run.
        """
        self._describe = describe
        if self._origin is None:
            return
        here, there = flat(json.loads(json.dumps(describe()))), flat(self._origin)
        names = dict.fromkeys((*here, *there))
        if apart := [name for name in names if here.get(name) != there.get(name)]:
            raise CheckpointError(
                f"{self._file} is the checkpoint of another run: {', '.join(apart)} differ. Give "
                "what it was started with, or start anew without --resume."
            )

    def keep(self, state: Callable[[], State]) -> None:
        """Save a state if it is time to.

        Raises:
            Interrupted: a signal asked to stop, which is done now that it is saved.
        """
        if self._file is None or self._every is None:
            return
        if self._signal is not None or time.monotonic() >= self._due:
            start = time.monotonic()
            self._save(state())
            taken = time.monotonic() - start
            self._due = time.monotonic() + max(self._every, _LEAST_PAUSE * taken)
        if self._signal is not None:
            raise Interrupted(self._signal)

    def keep_last(self, state: Callable[[], State]) -> None:
        """Save the state that a run ends with, if it is to stay."""
        if self._keep and self._every is not None:
            self._save(state())

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Signals wait until a state can be saved; a second one does not.

        Raises:
            Interrupted: one came after the last state.
        """
        if self._every is None or threading.current_thread() is not threading.main_thread():
            yield
            return
        # What the process was told to ignore, it goes on ignoring.
        handlers = {number: signal.getsignal(number) for number in _SIGNALS}
        before = {n: found for n, found in handlers.items() if found not in (signal.SIG_IGN, None)}
        for number in before:
            signal.signal(number, self._heard)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._signal is not None:
            raise Interrupted(self._signal)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._signal is not None:
            raise Interrupted(number)
        self._signal = number

    def _save(self, state: State) -> None:
        """A full disk is no reason to end a run that has the memory it needs."""
        assert self._file is not None, "nothing is kept without a file"
        if self._origin is None:
            self._origin = self._describe()
        tensors: dict[str, Tensor] = {}
        parts = {
            "state": packed(state, tensors, {}), "origin": self._origin, "decided": self.decided,
        }  # fmt: skip
        try:
            with staged(self._file) as stage:
                save_file(tensors, stage, {name: json.dumps(part) for name, part in parts.items()})
        except (OutputError, SafetensorError) as error:
            self._say(f"Warning: no checkpoint could be kept: {error}")


NO_CHECKPOINT = Checkpoint(None, None, False, silent)
"""Of a run that is neither kept nor gone on with."""


@contextmanager
def opened(
    output: Path,
    team: Team,
    *,
    every: float | None,
    resume: bool,
    keep: bool,
    say: Callable[[str], None],
) -> Iterator[Checkpoint]:
    """The checkpoint of a run, and nobody else's run on the same output meanwhile.

    Args:
        team: the processes that learn; more than one keep no states, and take no lock.
        every: seconds between two states; None keeps none.

    Raises:
        OutputError: another run writes the same output.
        CheckpointError: the state cannot be read.
        Interrupted: in place of any KeyboardInterrupt; says whether there is a state.
    """
    if team.size > 1:
        if resume:
            raise OutputError("--resume is for one process. Start it without torchrun.")
        yield Checkpoint(None, None, False, say)  # what is decided is this run's alone
        return
    folder = output.with_name(output.name + _SUFFIX)
    file = folder / "state.safetensors"
    with _locked(folder, output):
        for stale in output.parent.glob(f".{glob.escape(output.name)}.????????"):
            shutil.rmtree(stale, ignore_errors=True)  # of a run that was killed as it wrote
        checkpoint = Checkpoint(file, every, keep, say)
        if resume:
            checkpoint.read()
        elif file.exists():
            say(f"{folder}: of an interrupted run, which --resume would go on with. Starting anew")
        is_over = False
        try:
            yield checkpoint
            is_over = every is not None and not keep
        except KeyboardInterrupt as stop:
            number = stop.signal if isinstance(stop, Interrupted) else signal.SIGINT
            left = "go on with --resume" if file.exists() else "nothing was written"
            raise Interrupted(number, left) from stop
        finally:
            if is_over or not file.exists():
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path, output: Path) -> Iterator[None]:
    taken = f"{output}: another run is writing it. Wait for that, or name another file."
    try:
        with locked(folder / "run.lock", taken):
            yield
    finally:
        with suppress(OSError):  # what is kept is in it
            folder.rmdir()
