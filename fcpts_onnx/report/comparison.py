"""SHOW: methods side by side, as a Markdown table and as a page of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from fcpts_onnx.report.html import rendered
from fcpts_onnx.report.plots import scores_over_zeros
from fcpts_onnx.results import Comparison, Trial
from fcpts_onnx.texts import in_share, in_words, printable

__all__ = ["markdown", "page"]

_WORDS = ("method", "note")  # titles of columns of text


def markdown(found: Comparison) -> str:
    """A line a run: what it reached, and how long it took."""
    lines = [f"# {Path(found.source).name}", ""]
    if found.dense is not None:
        lines += [f"Dense: {in_words(found.dense.scores)} on {found.dense.samples:,} images.", ""]
    if found.selection:
        lines += [f"Pruned with `{printable(found.selection)}`: shares of zeros are of those.", ""]
    titles, rows = _table(found)
    lines += [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in rows:
        lines.append(f"| {' | '.join(_cell(cell) for cell in row)} |")
    return "\n".join(lines) + "\n"


def page(found: Comparison) -> str:
    """One HTML file that needs no network: a chart of accuracy over zeros, and the table."""
    titles, rows = _table(found)
    return rendered(
        "comparison.html",
        name=Path(found.source).name,
        dense=found.dense,
        selection=found.selection,
        dense_scores="" if found.dense is None else in_words(found.dense.scores),
        chart=scores_over_zeros(found),
        words=_WORDS,
        titles=titles,
        rows=rows,
    )


def _cell(text: str) -> str:
    return printable(" ".join(text.replace("|", "/").split()))


def _table(found: Comparison) -> tuple[list[str], list[list[str]]]:
    """Titles and cells, the best method of each target first, by accuracy or else by divergence."""
    names = list(found.dense.scores) if found.dense is not None else []
    best_first = sorted(found.trials, key=_rank)
    titles = ["zeros", "method", *names, "KL on calib", "same top-1 on calib", "seconds"]
    if any(trial.note for trial in best_first):
        titles.append("note")
    return titles, [list(_cells(trial, names))[: len(titles)] for trial in best_first]


def _rank(trial: Trial) -> tuple[float, float, float]:
    divergence = math.inf if trial.kl is None else trial.kl
    return trial.target, -next(iter(trial.scores.values()), 0.0), divergence


def _cells(trial: Trial, names: Sequence[str]) -> Iterator[str]:
    yield in_share(trial.target)
    yield f"{trial.label}{f', seed {trial.seed}' if trial.seed else ''}"
    for name in names:
        yield f"{trial.scores[name]:.2%}" if name in trial.scores else ""
    yield "" if trial.kl is None else f"{trial.kl:.3f}"
    yield "" if trial.agreement is None else f"{trial.agreement:.2%}"
    yield f"{trial.seconds:.0f}"
    yield trial.note
