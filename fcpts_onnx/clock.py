"""What a run takes of the user's time, by step of the data flow, and what is left of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fcpts_onnx.errors import FcptsError
from fcpts_onnx.results import Parity
from fcpts_onnx.team import Team
from fcpts_onnx.validate import COMPARED

__all__ = ["Clock"]

logger = logging.getLogger(__name__)

_MARGIN = 1.3  # of the time that writing is thought to take
_LEAST_WRITING = 0.5  # seconds


class Clock:
    """Seconds by step of the data flow."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = time.monotonic()
        self._earlier = 0.0

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

    @property
    def spent(self) -> float:
        """Seconds until now, those before an interruption among them."""
        return self._earlier + time.monotonic() - self._start

    def go_on(self, seconds: float) -> None:
        """Count what the run spent outside of learning before it was interrupted."""
        self._earlier = seconds

    def at_least(self, name: str, seconds: float) -> None:
        """Count what a step took before it was interrupted."""
        self.seconds[name] = max(self.seconds[name], seconds)

    def left(self, budget: float | None, parity: Parity, samples: int, team: Team) -> float | None:
        """Seconds of a budget that are left to learn in, what writing will take put aside.

        Raises:
            FcptsError: there are none, and nothing was learned before an interruption either.
        """
        if budget is None:
            return None
        # The file is loaded again, and both models run on what they are compared on.
        compared = 2 * min(samples, COMPARED) / parity.samples * parity.seconds
        writing = _MARGIN * (compared + 2 * self.seconds["load"] + _LEAST_WRITING)
        (spent,) = team.mean([self.spent])
        (left,) = team.mean([budget - spent - writing])
        if left <= 0 and not self._earlier:
            raise FcptsError(
                f"The time budget of {budget:g} s leaves nothing to learn in: until here it took "
                f"{spent:.0f} s, and to write and check the result will take {writing:.0f} s. "
                "Give it more."
            )
        return left
