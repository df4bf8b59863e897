"""LEARN: what an interrupted run goes on from, in a folder beside its output."""

from __future__ import annotations

import glob
import json
import math
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from fcpts_onnx.errors import Interrupted, OutputError
from fcpts_onnx.results import silent
from fcpts_onnx.team import Team
from fcpts_onnx.write import staged

__all__ = ["NO_CHECKPOINT", "Checkpoint", "moved", "opened"]

State = dict[str, Any]
"""Tensors, numbers, booleans and None, in mappings and lists; no texts."""

_SUFFIX = ".fcpts"
_LEAST_PAUSE = 20  # times what saving took, before it is done again
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Checkpoint:
    """The states of one run, of which the last is kept.

    Args:
        file: where it is kept; None for a run that keeps none.
        every: seconds between two states.
        keep: whether the last one stays when the run is over.
        say: told what goes wrong.

    Attributes:
        found: the state to go on from, if there is one.
        origin: what was said of the run that it is of.
    """

    def __init__(
        self, file: Path | None, every: float, keep: bool, say: Callable[[str], None]
    ) -> None:
        self._file, self._every, self._keep, self._say = file, every, keep, say
        self._due = time.monotonic() + every
        self._signal: int | None = None
        self._describe: Callable[[], State] = dict
        self.found: State | None = None
        self.origin: State = {}

    def read(self) -> None:
        """Find the state to go on from.

        Raises:
            OutputError: it cannot be read.
        """
        if self._file is None or not self._file.exists():
            self._say("There is no checkpoint to resume: starting from the beginning")
            return
        try:
            with safe_open(self._file, "pt") as stored:
                texts = stored.metadata()
            self.origin = json.loads(texts["origin"])
            self.found = _unpacked(json.loads(texts["state"]), load_file(self._file))
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise OutputError(
                f"{self._file}: cannot be read as a checkpoint: {error}. Start without --resume."
            ) from error

    def belongs_to(self, describe: Callable[[], State]) -> None:
        """Say what run this is; called for when a state is saved, or found.

        Args:
            describe: the model, the data and the settings, in mappings of plain values.

        Raises:
            OutputError: the state that was found is of another run.
        """
        self._describe = describe
        if self.found is None:
            return
        here, there = _flat(_plain(describe())), _flat(self.origin)
        names = dict.fromkeys((*here, *there))
        if apart := [name for name in names if here.get(name) != there.get(name)]:
            raise OutputError(
                f"{self._file} is the checkpoint of another run: {', '.join(apart)} differ. Give "
                "what it was started with, or start anew without --resume."
            )

    def keep(self, state: Callable[[], State], *, is_last: bool = False) -> None:
        """Save a state if it is time to.

        Raises:
            Interrupted: a signal asked to stop, which is done now that it is saved.
        """
        stops = self._signal is not None
        if self._file is None or not (stops or is_last or time.monotonic() >= self._due):
            return
        if is_last and not self._keep:
            return
        start = time.monotonic()
        is_saved = self._save(state())
        taken = time.monotonic() - start
        self._due = time.monotonic() + max(self._every, _LEAST_PAUSE * taken)
        if self._signal is not None:
            raise Interrupted(
                self._signal, "go on with --resume" if is_saved else "nothing was written"
            )

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Signals wait until a state can be saved; a second one does not."""
        if self._file is None or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._heard) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._signal is not None:
            raise Interrupted(number, "nothing more was saved")
        self._signal = number

    def _save(self, state: State) -> bool:
        """Whether it went well: a full disk shall not end a run that has the memory it needs."""
        assert self._file is not None, "nothing is kept without a file"
        tensors: dict[str, Tensor] = {}
        texts = {"state": json.dumps(_packed(state, tensors, {}))}
        texts["origin"] = json.dumps(self._describe())
        try:
            with staged(self._file) as stage:
                save_file(tensors, stage, texts)
        except (OutputError, SafetensorError) as error:
            self._say(f"Warning: no checkpoint could be kept: {error}")
            return False
        return True


NO_CHECKPOINT = Checkpoint(None, math.inf, False, silent)
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
        team: the processes that learn; more than one keep no states.
        every: seconds between two states; None keeps none.

    Raises:
        OutputError: another run writes the same output, or the state cannot be read.
    """
    if team.size > 1:
        if resume:
            raise OutputError("--resume is for one process. Start it without torchrun.")
        yield NO_CHECKPOINT
        return
    folder = output.with_name(output.name + _SUFFIX)
    with _locked(folder, output):
        for stale in output.parent.glob(f".{glob.escape(output.name)}.????????"):
            shutil.rmtree(stale, ignore_errors=True)  # of a run that was killed as it wrote
        file = None if every is None else folder / "state.safetensors"
        checkpoint = Checkpoint(file, every or math.inf, keep, say)
        if resume:
            checkpoint.read()
        elif file is not None and file.exists():
            say(f"{folder}: of an interrupted run, which --resume would go on with. Starting anew")
        try:
            yield checkpoint
        except BaseException:
            if file is None or not file.exists():
                shutil.rmtree(folder, ignore_errors=True)
            raise
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path, output: Path) -> Iterator[None]:
    try:
        folder.mkdir(exist_ok=True)
        lock = FileLock(folder / "run.lock", timeout=0)
        lock.acquire()
    except Timeout as error:
        raise OutputError(
            f"{output}: another run is writing it. Wait for that, or name another file."
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{folder}: cannot be made: {reason}. Nothing was written.") from error
    try:
        yield
    finally:
        lock.release()


def moved(state: Any, device: torch.device) -> Any:
    """A state with its tensors on a device."""
    if isinstance(state, Tensor):
        return state.to(device)
    if isinstance(state, Mapping):
        return {name: moved(value, device) for name, value in state.items()}
    if isinstance(state, list):
        return [moved(value, device) for value in state]
    return state


def _packed(value: Any, tensors: dict[str, Tensor], seen: dict[Any, str]) -> Any:
    """A state as JSON has it, with a text for each tensor: its number, and its axes in memory.

    What is there twice is stored once. The order of axes is kept, as sums depend on it.
    """
    if isinstance(value, Tensor):
        value = value.detach()
        place = (value.data_ptr(), value.dtype, value.shape, value.stride())
        if place not in seen:
            axes = list(range(value.ndim))
            if not value.is_contiguous():
                axes = sorted(axes, key=lambda axis: -value.stride(axis))
            tensors[str(len(tensors))] = value.permute(axes).contiguous().cpu()
            seen[place] = " ".join(map(str, (len(tensors) - 1, *axes)))
        return seen[place]
    if isinstance(value, Mapping):
        return {name: _packed(entry, tensors, seen) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_packed(entry, tensors, seen) for entry in value]
    return value


def _unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, str):
        name, *axes = value.split()
        return tensors[name].permute([axes.index(str(axis)) for axis in range(len(axes))])
    if isinstance(value, dict):
        return {name: _unpacked(entry, tensors) for name, entry in value.items()}
    if isinstance(value, list):
        return [_unpacked(entry, tensors) for entry in value]
    return value


def _plain(value: State) -> State:
    """As it is when it comes back from JSON."""
    found: State = json.loads(json.dumps(value))
    return found


def _flat(value: Mapping[str, Any], prefix: str = "") -> State:
    """Values by a name with dots for each mapping inside another."""
    found: State = {}
    for name, entry in value.items():
        if isinstance(entry, Mapping):
            found |= _flat(entry, f"{prefix}{name}.")
        else:
            found[prefix + name] = entry
    return found
