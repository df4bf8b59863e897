"""SHOW: methods side by side, as a Markdown table and as a page of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import jinja2

from fcpts_onnx.results import Comparison, Trial, in_words

__all__ = ["markdown", "page"]

# Okabe and Ito's, told apart by those who see colours differently; then the same once more.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c00", "#7f7f7f")
_DASHES = ("", "7 4", "2 4")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _EDGE = 760, 380, 56, 40, 14  # of the chart, in pixels
_TICKS = 6
_STEPS = (1, 2, 2.5, 5, 10)


def markdown(found: Comparison) -> str:
    """A line a run: what it reached, and how long it took."""
    lines = [f"# {Path(found.source).name}", ""]
    if found.dense is not None:
        lines += [f"Dense: {in_words(found.dense.scores)} on {found.dense.samples:,} images.", ""]
    titles, rows = _table(found)
    lines += [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in rows:
        lines.append(f"| {' | '.join(' '.join(cell.replace('|', '/').split()) for cell in row)} |")
    return "\n".join(lines) + "\n"


def page(found: Comparison) -> str:
    """One HTML file that needs no network: a chart of accuracy over zeros, and the table."""
    titles, rows = _table(found)
    loader = jinja2.PackageLoader("fcpts_onnx", "report")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True)
    return environment.get_template("comparison.html").render(
        name=Path(found.source).name,
        dense=found.dense,
        dense_scores="" if found.dense is None else in_words(found.dense.scores),
        chart=_chart(found),
        titles=titles,
        rows=rows,
    )


def _table(found: Comparison) -> tuple[list[str], list[list[str]]]:
    """Titles and cells, the best method of each target first."""
    names = list(found.dense.scores) if found.dense is not None else []
    best_first = sorted(found.trials, key=lambda t: (t.target, -next(iter(t.scores.values()), 0.0)))
    titles = ["zeros", "method", *names, "KL", "same top-1", "seconds", "note"]
    return titles, [list(_cells(trial, names)) for trial in best_first]


def _cells(trial: Trial, names: Sequence[str]) -> Iterator[str]:
    yield f"{trial.target:.4g}"
    yield f"{trial.method}{f', seed {trial.seed}' if trial.seed else ''}"
    for name in names:
        yield f"{trial.scores[name]:.2%}" if name in trial.scores else ""
    yield "" if trial.kl is None else f"{trial.kl:.3f}"
    yield "" if trial.agreement is None else f"{trial.agreement:.2%}"
    yield f"{trial.seconds:.0f}"
    yield trial.note


@dataclass(frozen=True)
class _Line:
    """A method's way through the chart, in pixels."""

    name: str
    colour: str
    dash: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class _Chart:
    """The first score over the share of zeros; ticks are (pixel, label)."""

    score: str
    width: int
    height: int
    left: int
    right: int
    bottom: int
    across: tuple[tuple[float, str], ...]
    up: tuple[tuple[float, str], ...]
    dense: float | None
    lines: tuple[_Line, ...]


def _chart(found: Comparison) -> _Chart | None:
    """Nothing where there is nothing to draw; the mean where a method has several seeds."""
    score = next(iter(found.dense.scores), None) if found.dense is not None else None
    if score is None or found.dense is None:
        return None
    reached: dict[str, dict[float, list[float]]] = {}
    for trial in found.trials:
        if score in trial.scores and trial.count:
            zeros = trial.target if not trial.note else trial.zeros / trial.count
            reached.setdefault(trial.method, {}).setdefault(zeros, []).append(trial.scores[score])
    if not reached:
        return None
    shares = [zeros for method in reached.values() for zeros in method]
    values = [mean(runs) for method in reached.values() for runs in method.values()]
    ticks = _ticks(min(values), max(*values, found.dense.scores[score]))
    left, right = min(shares), max(shares)

    def x(zeros: float) -> float:
        inner = _WIDTH - _LEFT - 3 * _EDGE
        return _LEFT + _EDGE + inner * ((zeros - left) / (right - left) if right > left else 0.5)

    def y(value: float) -> float:
        inner = _HEIGHT - _BOTTOM - _EDGE
        return _HEIGHT - _BOTTOM - inner * (value - ticks[0]) / (ticks[-1] - ticks[0])

    targets = sorted({trial.target for trial in found.trials})
    return _Chart(
        score, _WIDTH, _HEIGHT, _LEFT, _WIDTH - _EDGE, _HEIGHT - _BOTTOM,
        tuple((x(target), f"{target:.4g}") for target in targets if left <= target <= right),
        tuple((y(tick), f"{tick:.4g}") for tick in ticks),
        y(found.dense.scores[score]),
        tuple(
            _Line(name, *_look(place), tuple((x(z), y(mean(of[z]))) for z in sorted(of)))
            for place, (name, of) in enumerate(reached.items())
        ),
    )  # fmt: skip


def _look(place: int) -> tuple[str, str]:
    """Colour and dashes of a line."""
    round_, colour = divmod(place, len(_COLOURS))
    return _COLOURS[colour], _DASHES[round_ % len(_DASHES)]


def _ticks(low: float, high: float) -> list[float]:
    """Round values from below to above, some `_TICKS` of them."""
    rough = max(high - low, 1e-3) / (_TICKS - 1)
    power = 10.0
    while power > rough:
        power /= 10
    step = next(power * factor for factor in _STEPS if power * factor >= rough)
    first = int(low // step)
    count = max(1, math.ceil(high / step - first - 1e-9))
    return [step * (first + place) for place in range(count + 1)]
