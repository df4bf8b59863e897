"""SHOW: plots as SVG to stand in a page, in the page's own colours."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from statistics import mean
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from fcpts_onnx.results import Comparison, Distribution, Progress, Sparsity
from fcpts_onnx.texts import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["course", "densities", "layer_rates", "rates_over_steps", "scores_over_zeros"]

# Okabe and Ito's, told apart by those who see colours differently; then the same once more.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c00", "#7f7f7f")
_DASHES = ("-", "--", ":")
_BLUE, _RED, _GREEN = _COLOURS[:3]
_INK = "#123456"  # stands for the colour of the page's text
_FONT = "DejaVu Sans"  # what comes along, to measure text with
_MOST_NAMES = 48  # of layers below bars
_LONGEST_NAME = 28
_FEW = 100  # times the least value: so far 2 and 5 are marked beside powers of ten


def layer_rates(weights: Sequence[Sparsity]) -> Markup:
    """The share of zeros of each layer, in the order of the graph (FCPTS, Figure 5)."""
    total = sum(weight.count for weight in weights)
    places = range(len(weights))

    def draw(axes: Axes) -> None:
        axes.bar(places, [weight.rate for weight in weights], color=_BLUE, label="zeros")
        axes.step(
            [-0.5, *(place + 0.5 for place in places)],
            [weight.count / total for weight in (weights[0], *weights)],
            color=_RED,
            label="share of all weights",
        )
        axes.set_ylim(0, 1)
        axes.set_xlim(-0.5, len(weights) - 0.5)
        axes.yaxis.set_major_formatter(_percent)
        if len(weights) <= _MOST_NAMES:
            names = [_short(weight.name) for weight in weights]
            axes.set_xticks(places, names, rotation=90, fontsize=7)
        axes.legend(loc="upper left", bbox_to_anchor=(0, 1.14), ncols=2, frameon=False)

    return _svg(draw, 9, 3.6, "Share of zeros by layer, in the order of the graph")


def densities(found: Distribution) -> Markup:
    """One weight's values before and after, with threshold and kernel density (Figure 3)."""
    width = 2 * found.reach / len(found.dense)
    left = [-found.reach + width * place for place in range(len(found.dense))]
    centres = [place + width / 2 for place in left]

    def draw(axes: Axes) -> None:
        axes.bar(left, found.dense, width, align="edge", color=_INK, alpha=0.18)
        axes.step(left, found.sparse, where="post", color=_RED, linewidth=1.2)
        axes.plot(centres, found.curve, color=_BLUE, linewidth=1)
        for side in (-found.threshold, found.threshold):
            axes.axvline(side, color=_GREEN, linewidth=1, linestyle="--")
        axes.set_ylim(0, 1.15 * max((*found.dense, *found.sparse, *found.curve)))
        axes.set_xlim(-found.reach, found.reach)
        axes.set_yticks([])
        axes.locator_params(axis="x", nbins=5)

    return _svg(draw, 3.4, 1.9, f"Values of {one_line(found.name)}")


def course(history: Sequence[Progress]) -> Markup:
    """Loss and share of zeros over the steps of learning."""
    steps = [entry.step for entry in history]

    def draw(axes: Axes) -> None:
        axes.plot(steps, [entry.loss for entry in history], color=_BLUE, label="loss (left)")
        if all(entry.loss > 0 for entry in history):
            _set_log_scale(axes, [entry.loss for entry in history])
        axes.locator_params(axis="x", integer=True)
        zeros = axes.twinx()
        zeros.plot(steps, [entry.sparsity for entry in history], color=_RED, label="zeros (right)")
        zeros.set_ylim(0, 1)
        zeros.yaxis.set_major_formatter(_percent)
        zeros.spines["top"].set_visible(False)
        axes.set_xlabel("step")
        lines = [*axes.get_lines(), *zeros.get_lines()]
        axes.legend(
            handles=lines, loc="upper left", bbox_to_anchor=(0, 1.16), ncols=2, frameon=False
        )

    return _svg(draw, 9, 3, "Loss and share of zeros over the steps")


def rates_over_steps(history: Sequence[Progress]) -> Markup:
    """The share of zeros of each layer over the steps, a row a layer."""
    names = list(history[-1].rates)

    def draw(axes: Axes) -> None:
        image = axes.pcolormesh(
            [0, *(entry.step for entry in history)],
            [place - 0.5 for place in range(len(names) + 1)],
            [[entry.rates[name] for entry in history] for name in names],
            cmap="viridis",
            vmin=0,
            vmax=1,
            rasterized=True,
        )
        axes.invert_yaxis()
        axes.locator_params(axis="x", integer=True)
        axes.set_xlabel("step")
        if len(names) <= _MOST_NAMES:
            axes.set_yticks(range(len(names)), [_short(name) for name in names], fontsize=6)
        bar = axes.figure.colorbar(image, ax=axes, format=_percent, pad=0.02)
        bar.set_label("zeros")
        bar.outline.set_visible(False)

    height = 1 + 0.14 * min(len(names), _MOST_NAMES)
    return _svg(draw, 9, height, "Share of zeros of each layer over the steps")


def scores_over_zeros(found: Comparison) -> Markup | None:
    """The first score over the share of zeros, a line a method (FCPTS, Figure 1).

    None where there is nothing to draw; the mean where a method has several seeds.
    """
    if found.dense is None or not found.dense.scores:
        return None
    score, dense = next(iter(found.dense.scores.items()))
    reached: dict[str, dict[float, list[float]]] = {}
    for trial in found.trials:
        if score in trial.scores and trial.count:
            zeros = trial.target if not trial.note else trial.zeros / trial.count
            reached.setdefault(trial.label, {}).setdefault(zeros, []).append(trial.scores[score])
    if not reached:
        return None

    def draw(axes: Axes) -> None:
        axes.axhline(dense, color=_INK, linestyle=":", linewidth=1, label="dense")
        for (name, runs), look in zip(reached.items(), _looks(), strict=False):
            zeros = sorted(runs)
            axes.plot(zeros, [mean(runs[z]) for z in zeros], marker="o", label=name, **look)
        axes.xaxis.set_major_formatter(_percent)
        axes.yaxis.set_major_formatter(_percent)
        axes.set_xlabel("share of zeros")
        axes.set_ylabel(score)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)

    return _svg(draw, 9, 4, f"{score} over the share of zeros, a line a method")


def _looks() -> Iterator[dict[str, Any]]:
    """Colours and dashes of lines, all different for as long as there are any."""
    while True:
        for dash in _DASHES:
            for colour in _COLOURS:
                yield {"color": colour, "linestyle": dash}


def _short(name: str) -> str:
    """The end of a name, which tells it from others."""
    name = one_line(name)
    return name if len(name) <= _LONGEST_NAME else f"...{name[-_LONGEST_NAME:]}"


def _percent(value: float, _: object) -> str:
    return f"{100 * value:.4g}%"


def _set_log_scale(axes: Axes, values: Sequence[float]) -> None:
    """Marks as plain numbers, which matplotlib would write as mathematics."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    within = max(values) < _FEW * min(values)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if within else (1,)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _svg(draw: Callable[[Axes], None], width: float, height: float, label: str) -> Markup:
    """A figure of so many inches, its text the page's, as wide as its place there."""
    # Half a second, which only commands that make a page are to take.
    import matplotlib
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "text.parse_math": False,  # names of layers may have $ in them
        "svg.hashsalt": label,
        "font.family": _FONT,
        "font.size": 8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        **dict.fromkeys(
            ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK
        ),
    }
    buffer = io.StringIO()
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # Signs that its font lacks: the page's has them.
        warnings.simplefilter("ignore", UserWarning)
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(buffer, format="svg", transparent=True, metadata=_NO_METADATA)
    text = buffer.getvalue().replace(_INK, "currentColor").replace(f"'{_FONT}'", "inherit")
    # Its groups' names would stand in one page with those of other figures.
    inner = re.sub('<g id="[^"]*">', "<g>", text[text.index(">", text.index("<svg")) + 1 :])
    size = f"0 0 {72 * width:g} {72 * height:g}"
    head = Markup('<svg viewBox="{}" role="img" aria-label="{}">').format(size, label)
    return head + Markup(inner)


_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
