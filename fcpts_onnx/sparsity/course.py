"""LEARN: how far a run is, and how it goes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from fcpts_onnx.results import Progress
from fcpts_onnx.team import Team

__all__ = ["Course", "DivergedError", "Meter"]

logger = logging.getLogger(__name__)

_REPORTS = 200  # over a whole run
_CHECKS = 20  # looks at whether learning goes well, over a whole run
_ASTRAY = 100.0  # times the loss of a network that says nothing


class DivergedError(Exception):
    """The loss is no finite number, or far beyond what it can be."""


class Course:
    """How long a run is, by steps or by time, as (step, progress from 0 to 1).

    Attributes:
        length: the number of steps; by time, as many as the pace so far allows.
    """

    def __init__(self, steps: int, seconds: float | None, team: Team) -> None:
        self.length, self._team = steps, team
        self._end = None if seconds is None else time.monotonic() + seconds

    def skip(self, seconds: float) -> None:
        """Count so many seconds as spent before."""
        self._end = None if self._end is None else self._end - seconds

    def since(self, first: int, progress: float) -> Iterator[tuple[int, float]]:
        """What is left from a step on, and a progress by then."""
        if self._end is None:
            yield from ((step, step / self.length) for step in range(first, self.length))
            return
        start = time.monotonic()
        (seconds,) = self._team.mean([self._end - start])
        taken, elapsed = 0, 0.0
        # Another step has to fit; the first one is taken in any case.
        while not taken or elapsed * (taken + 1) <= seconds * taken:
            fit = round(taken * seconds / elapsed) if elapsed else 1
            self.length = first + max(taken + 1, fit)
            share = min(1.0, elapsed / seconds) if taken else 0.0
            yield first + taken, progress + (1 - progress) * share
            taken, (elapsed,) = taken + 1, self._team.mean([time.monotonic() - start])


class Meter:
    """Averages the loss and reports it some times during a run.

    Args:
        nothing: the loss of a network that says nothing, as large as it gets unless learning goes
            astray.

    Attributes:
        history: what was reported, without what was learned in vain.
    """

    def __init__(self, team: Team, nothing: float, report: Callable[[Progress], None]) -> None:
        self._team, self._nothing, self._report = team, nothing, report
        self._losses: list[Tensor] = []
        self.history: list[Progress] = []
        self._start = time.monotonic()
        self._checked = 0  # the step of the last look

    def state(self) -> dict[str, Any]:
        """What has been seen so far."""
        return {
            "losses": self._losses,
            "history": [asdict(progress) for progress in self.history],
            "checked": self._checked,
            "seconds": time.monotonic() - self._start,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._losses = state["losses"]
        self.history = [Progress(**entry) for entry in state["history"]]
        self._checked = state["checked"]
        self._start = time.monotonic() - state["seconds"]

    def add(self, step: int, steps: int, loss: Tensor, masked: dict[str, Tensor]) -> bool:
        """Count a step of so many; whether it is time to keep a state, which does well.

        Raises:
            DivergedError: the loss is not a finite number, or far too large.
        """
        self._losses.append(loss)
        if step % max(1, steps // _REPORTS) and step != steps:
            return False
        (mean,) = self._team.mean([torch.stack(self._losses).mean().item()])
        self._losses.clear()
        if not mean <= _ASTRAY * self._nothing:
            raise DivergedError(f"Learning diverged: the loss is {mean} at step {step} of {steps}")
        counts = [value.numel() for value in masked.values()]
        left = torch.stack([value.count_nonzero() for value in masked.values()]).tolist()
        sparsity = 1 - sum(left) / sum(counts)
        shares = zip(masked, left, counts, strict=True)
        rates = {name: 1 - kept / count for name, kept, count in shares}
        seconds = time.monotonic() - self._start
        earlier = [progress for progress in self.history if progress.step < step]
        self.history = [*earlier, Progress(step, steps, mean, sparsity, seconds, rates)]
        logger.debug("step %d of %d: loss %.6g, %.4f zero", step, steps, mean, sparsity)
        self._report(self.history[-1])
        due = abs(step - self._checked) >= steps / _CHECKS
        self._checked = step if due else self._checked
        return due and mean <= self._nothing
