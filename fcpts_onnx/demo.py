"""The demo: prune the small network in models/ and compare it with the dense one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from fcpts_onnx.errors import FcptsError
from fcpts_onnx.examine import evaluate
from fcpts_onnx.pipeline import prune
from fcpts_onnx.recipe import Recipe
from fcpts_onnx.results import Evaluation, Progress, PruneResult, silent
from fcpts_onnx.team import started_processes

__all__ = ["DemoResult", "demo_folder", "run"]


@dataclass(frozen=True)
class DemoResult:
    """What the demo shows: the pruning, and the accuracy before and after it."""

    pruning: PruneResult
    dense: Evaluation
    sparse: Evaluation


def run(
    *,
    target: float = 0.9,
    seed: int = 0,
    threads: int = 0,
    report: Callable[[Progress], None] = silent,
) -> DemoResult:
    """Prune the digits network and measure it on digits it has not seen.

    Raises:
        FcptsError: the demo's files are missing, or the target cannot be reached.
    """
    if started_processes() > 1:
        raise FcptsError("The demo runs in one process. Start it without torchrun.")
    folder = demo_folder()
    model = folder / "digits.onnx"
    with tempfile.TemporaryDirectory() as scratch:
        sparse = Path(scratch) / "digits-sparse.onnx"
        pruning = prune(
            model,
            sparse,
            target=target,
            calib=folder / "calib",
            preprocess="unit",
            recipe=replace(Recipe.load("default"), min_steps=1),  # the epochs are enough here
            seed=seed,
            threads=threads,
            checkpoint_every=None,  # nothing is left that could be gone on with
            report=report,
        )
        labelled = folder / "labelled"
        before = evaluate(model, data=labelled, preprocess="unit", threads=threads)
        after = evaluate(sparse, data=labelled, preprocess="unit", threads=threads)
    # The sparse file is gone by now; its name alone is left to be shown.
    return DemoResult(replace(pruning, output=sparse.name), before, after)


def demo_folder() -> Path:
    """Where the demo's files lie: in the installed package, or in models/ of a checkout.

    Raises:
        FcptsError: they are in neither.
    """
    package = Path(__file__).parent
    for folder in (package / "models", package.parent / "models"):
        if (folder / "digits.onnx").is_file():
            return folder
    raise FcptsError(f"The demo's files are missing from {package}. Install fcpts-onnx again.")
