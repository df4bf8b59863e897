"""FIND: weights that somebody wrote down and nobody trained: bins, grids, masks, filters."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

__all__ = ["why_never_trained"]

Array = np.ndarray[Any, Any]

# A sum over bins weighs them with 0, 1, 2 and on; of two that could be chance.
_FEWEST_BINS = 3
# Of values that are evenly spaced in some other way, or are zeros and ones.
_FEWEST = 8
_LOOKED_AT = 64  # values, before all of a large layer are
_MOST_COORDINATES = 4  # of a point, homogeneous ones too
_PRECISION = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
_SPACING = 0.25  # of a step, that rounding may shift a value by


def why_never_trained(
    values: Array, kind: str | None, node: gs.Node, axes: tuple[int | None, int | None]
) -> str | None:
    """Why the values of a weight are those that somebody wrote down, if they are.

    Args:
        kind: numpy's name of the type they are stored in, None of integers that stand for them.
        node: the first that uses it.
        axes: of output channels and of input channels, None where there is none.
    """
    if _counts_bins(values if kind else np.round(values)):
        return "counts bins: 0, 1, 2, ... (DFL)"
    if kind and _is_evenly_spaced(values, _PRECISION[kind]):
        return "evenly spaced: bins or places"
    if kind and _are_marks(values):
        return "only zeros and ones"
    if _has_one_filter(values, node, axes):
        return "the same filter in each channel"
    return None


def _counts_bins(values: Array) -> bool:
    is_line = max(values.shape) == values.size >= _FEWEST_BINS
    return is_line and np.array_equal(values.ravel(), np.arange(values.size))


def _are_marks(values: Array) -> bool:
    """Whether they are a mask, neighbours in a graph or another order of channels."""
    for part in (values.ravel()[:_LOOKED_AT], values):
        if not ((part == 0) | (part == 1)).all():
            return False
    return values.size >= _FEWEST and bool((values == 1).any())


def _is_evenly_spaced(values: Array, precision: float) -> bool:
    """Whether they are a line of places, or coordinates of a grid, a row or a column each."""
    rows = values.reshape([size for size in values.shape if size > 1] or [1])
    if rows.ndim == 1:
        return rows.size >= _FEWEST and _steps(rows.astype(np.float64), precision)
    if rows.ndim != 2 or min(rows.shape) > _MOST_COORDINATES or max(rows.shape) < _FEWEST:
        return False
    if rows.shape[0] > rows.shape[1]:
        rows = rows.T
    rows = rows.astype(np.float64)
    # Homogeneous coordinates have a row of ones.
    places = [row for row in rows if row[0] == 0 or (row != row[0]).any()]
    return bool(places) and all(_repeats_steps(row, precision) for row in places)


def _repeats_steps(row: Array, precision: float) -> bool:
    """Whether values of even steps come equally often, as along one side of a grid."""
    different, counts = np.unique(row, return_counts=True)
    if len(different) < _FEWEST_BINS or (counts != counts[0]).any():
        return False
    return _steps(row if len(different) == len(row) else different, precision)


def _steps(values: Array, precision: float) -> bool:
    """Whether values go on from first to last in steps of one size."""
    even = np.linspace(values[0], values[-1], len(values))
    step = abs(values[-1] - values[0]) / (len(values) - 1)
    off = min(4 * precision * np.abs(values).max(), _SPACING * step)
    return step > 0 and bool((np.abs(values - even) <= off).all())


def _has_one_filter(values: Array, node: gs.Node, axes: tuple[int | None, int | None]) -> bool:
    """Whether a convolution that filters each channel alone does it in the same way for all.

    A channel may have several filters; those of one number are none.
    """
    groups, (channels, inputs) = node.attrs.get("group", 1), axes
    if groups == 1 or node.op not in ("Conv", "ConvTranspose"):
        return False
    if node.op == "ConvTranspose":
        is_depthwise = len(values) == groups or values.shape[1] == 1
    elif is_depthwise := channels is not None and inputs is not None and values.shape[inputs] == 1:
        values = np.moveaxis(values, channels, 0)
    if not is_depthwise or len(values) % groups or values.size == len(values):
        return False
    filters = values.reshape(groups, -1)
    # Where all are zero they were pruned.
    return bool((filters == filters[:1]).all() and filters.any())
