"""What a run takes of the machine: a device, threads, seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fcpts_onnx.errors import FcptsError
from fcpts_onnx.results import Parity
from fcpts_onnx.team import Team, local_place, local_size
from fcpts_onnx.validate import COMPARED

__all__ = ["Clock", "device_of", "limited_threads"]

logger = logging.getLogger(__name__)

_MARGIN = 1.3  # of the time that writing is thought to take
_LEAST_WRITING = 0.5  # seconds


class Clock:
    """Seconds by step of the data flow."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = time.monotonic()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - start
        logger.info("%s: %.2f s", name, self.seconds[name])

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """What is done meanwhile is not counted."""
        start = time.monotonic()
        yield
        self._start += time.monotonic() - start

    def at_least(self, name: str, seconds: float) -> None:
        """Count what a step took before it was interrupted."""
        self.seconds[name] = max(self.seconds[name], seconds)

    def left(self, budget: float | None, parity: Parity, samples: int, team: Team) -> float | None:
        """Seconds of a budget that are left to learn in, what writing will take put aside.

        Raises:
            FcptsError: there are none.
        """
        if budget is None:
            return None
        # The file is loaded again, and both models run on what they are compared on.
        compared = 2 * min(samples, COMPARED) / parity.samples * parity.seconds
        writing = _MARGIN * (compared + 2 * self.seconds["load"] + _LEAST_WRITING)
        (spent,) = team.mean([time.monotonic() - self._start])
        (left,) = team.mean([budget - spent - writing])
        if left <= 0:
            raise FcptsError(
                f"The time budget of {budget:g} s leaves nothing to learn in: until here it took "
                f"{spent:.0f} s, and to write and check the result will take {writing:.0f} s. "
                "Give it more."
            )
        return left


@contextmanager
def limited_threads(count: int) -> Iterator[None]:
    """Limit torch's threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def device_of(name: str, engine: str) -> torch.device:
    """The device that --device and --engine name, one for each process where there are several.

    Raises:
        FcptsError: there is no such device or engine, or fewer devices than processes.
    """
    if engine not in ("torch", "ort"):
        raise FcptsError(f"The engine is {engine!r}; expected torch or ort.")
    if engine == "ort" and name == "auto":
        name = "cpu"
    if engine == "ort" and name == "cuda":
        raise FcptsError("--engine ort runs on the processor, not on cuda. Use --device cpu.")
    if name not in ("auto", "cpu", "cuda"):
        raise FcptsError(f"The device is {name!r}; expected auto, cpu or cuda.")
    if name == "cuda" and not torch.cuda.is_available():
        raise FcptsError("--device cuda: this machine has no usable CUDA device. Use cpu or auto.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device(name)
    if local_size() > torch.cuda.device_count():
        raise FcptsError(
            f"{torch.cuda.device_count()} CUDA device(s) for {local_size()} processes. Start as "
            "many processes as there are, or use --device cpu."
        )
    return torch.device(name, local_place())
