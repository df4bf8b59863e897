"""What a run would come to: a few steps of it, the pace and the memory that they take."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fcpts_onnx.errors import FcptsError
from fcpts_onnx.machine import peak_bytes
from fcpts_onnx.methods import NETWISE
from fcpts_onnx.model import PathLike
from fcpts_onnx.pipeline import prune
from fcpts_onnx.recipe import Recipe
from fcpts_onnx.results import Rehearsal, silent
from fcpts_onnx.sparsity.run import steps_of

__all__ = ["rehearse"]

_TRIED = 12  # steps
_WARM = 4  # of these; the first ones set things up


def rehearse(
    model: PathLike,
    *,
    recipe: Recipe | str = "default",
    time_budget: float | None = None,
    say: Callable[[str], None] = silent,
    **options: Any,
) -> Rehearsal:
    """Run a few steps of what `prune` would do with these options, and throw them away.

    Args:
        options: as for `prune`.

    Raises:
        FcptsError: as `prune`; or the way to reconstruct takes no steps.
    """
    if options.get("reconstruct", NETWISE) != NETWISE:
        raise FcptsError(
            f"--dry-run counts steps, and --reconstruct {options['reconstruct']} takes none."
        )
    chosen = Recipe.of(recipe)
    tried = replace(chosen, epochs=0, min_steps=_TRIED, epochs_to_mix=0.0)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "rehearsal.onnx"
        once = {**options, "checkpoint_every": None, "resume": False}
        found = prune(model, output, recipe=tried, say=say, **once)
    warm, last = found.history[_WARM - 1], found.history[-1]
    pace = (last.seconds - warm.seconds) / (last.step - warm.step)
    steps = steps_of(found.samples, chosen)
    around = sum(seconds for name, seconds in found.seconds.items() if name != "learn")
    if time_budget is not None:
        steps = round((time_budget - around) / pace)
        if steps < 1:
            raise FcptsError(
                f"The time budget of {time_budget:g} s leaves nothing to learn in: the rest takes "
                f"{around:.0f} s. Give it more."
            )
    zeros = found.zeros if found.holds_target else None
    return Rehearsal(
        found.source, found.target, found.count, zeros, steps, pace,
        around + steps * pace, peak_bytes(),
    )  # fmt: skip
