"""SHOW: one run of pruning as a page of its own, and read back from its JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cattrs

from fcpts_onnx.errors import FcptsError
from fcpts_onnx.files import read_text
from fcpts_onnx.report.html import rendered
from fcpts_onnx.report.plots import course, densities, layer_rates, rates_over_steps
from fcpts_onnx.results import PruneResult
from fcpts_onnx.texts import dense_time, in_aim, in_bytes

__all__ = ["page", "read_run"]

_MOST_DISTRIBUTIONS = 24


def read_run(file: Path) -> PruneResult:
    """The result that `prune --json` wrote.

    Raises:
        FcptsError: the file cannot be read, or holds something else.
    """
    try:
        entries = json.loads(read_text(file))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise FcptsError(f"{file}: cannot be read as JSON: {error}") from error
    try:
        return cattrs.structure(entries, PruneResult)
    except (cattrs.BaseValidationError, ValueError, TypeError, KeyError) as error:
        raise FcptsError(
            f"{file}: is no result of this version's prune --json. Prune again with --json."
        ) from error


def page(run: PruneResult) -> str:
    """One HTML file that needs no network: what was asked, what came of it, and how."""
    counts = {weight.name: weight.count for weight in run.validation.weights}
    largest = sorted(counts, key=lambda name: -counts[name])[:_MOST_DISTRIBUTIONS]
    shown = [entry for entry in run.weight_values.distributions if entry.name in set(largest)]
    learned = run.history if len(run.history) > 1 else ()
    dense_bytes, sparse_bytes = run.weight_values.file_bytes
    return rendered(
        "run.html",
        run=run,
        name=Path(run.source).name,
        cards=list(_cards(run)),
        rates=layer_rates(run.validation.weights),
        course=course(learned) if learned else None,
        rates_over_steps=rates_over_steps(learned) if learned else None,
        densities=[(entry.name, densities(entry)) for entry in shown],
        dense_bytes=in_bytes(dense_bytes),
        sparse_bytes=in_bytes(sparse_bytes),
        sizes=[
            (size.name, *map(in_bytes, (size.float32, size.float16, size.int8)))
            for size in run.weight_values.sizes
        ],
        settings="\n".join(f"{key} = {json.dumps(value)}" for key, value in run.settings.items()),
    )


def _cards(run: PruneResult) -> Iterator[tuple[str, str, str]]:
    """The figures at the top: what, how much, and what it is of."""
    asked = in_aim(run.objective, run.goal, run.target)
    yield (
        "Zeros",
        f"{run.zeros / run.count:.2%}",
        f"{run.zeros:,} of {run.count:,} weights; asked for {asked}",
    )
    if run.accuracy and run.accuracy[1].scores:
        dense, sparse = run.accuracy
        name, score = next(iter(sparse.scores.items()))
        below = f"of {sparse.samples:,} labelled images; dense {dense.scores[name]:.2%}"
        yield name if name.startswith("mAP") else name.capitalize(), f"{score:.2%}", below
    agreement = next((o for o in run.validation.outputs if o.agreement is not None), None)
    if agreement is not None:
        below = f"of {run.validation.samples:,} samples have the dense model's class"
        yield "Same top-1", f"{agreement.agreement:.2%}", below
    elif run.validation.outputs:
        worst = min(run.validation.outputs, key=lambda output: output.cosine)
        yield "Cosine", f"{worst.cosine:.4f}", f"to the dense model, output {worst.name}"
    how = run.recipe if run.allocate == "learned" else f"{run.allocate}, {run.reconstruct}"
    yield "Time", f"{sum(run.seconds.values()) / 60:.1f} min", f"recipe {how}"
    if run.estimate is not None:
        found = run.estimate
        below = f"of {dense_time(found.known, found.layers)} on {found.chip}, an estimate, at best"
        yield "Chip", f"{found.time:.2f}", below
