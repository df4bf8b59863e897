"""WRITE: the sparse file, written, checked, and only then put in its place; what that may be."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fcpts_onnx.calibration import Calibration
from fcpts_onnx.errors import FcptsError, OutputError, ParityError
from fcpts_onnx.evidence import values_before_and_after
from fcpts_onnx.files import staged
from fcpts_onnx.model import Model, load
from fcpts_onnx.ops.dtypes import promoted, to_numpy, to_torch
from fcpts_onnx.parity import tolerance
from fcpts_onnx.results import Validation, WeightValues
from fcpts_onnx.twin import Twin
from fcpts_onnx.validate import validate_models
from fcpts_onnx.weights import Weight, find_weights
from fcpts_onnx.write import save, stale_data

__all__ = ["check_no_dense_model", "check_unchanged", "publish"]

_HARDLY_ANY = 0.02  # zeros of a model that nobody has pruned


def check_no_dense_model(
    dense: Model, target: Path, weights: Sequence[Weight], share: float | None
) -> None:
    """See that what would be replaced is no dense model, that of the one to be pruned or another.

    Args:
        weights: those that would be pruned; zeros in these alone are enough.
        share: of zeros, that is asked for.

    Raises:
        OutputError: it is one.
    """
    try:
        there = {w.name: (w.shape, w.zeros) for w in find_weights(load(target))}
    except FcptsError:  # there is none, or it is of no use
        return
    given = {w.name: (w.shape, w.zeros) for w in find_weights(dense)}
    zeros, more = (sum(n for _, n in found.values()) for found in (there, given))
    shapes, own = ({name: s for name, (s, _) in found.items()} for found in (there, given))
    if shapes == own and zeros < more:
        raise OutputError(
            f"{target}: is a model of the same weights with {zeros:,} zeros, {dense.path} has "
            f"{more:,}. Are the two swapped? Name another file, or pass --overwrite."
        )
    count = sum(math.prod(shape) for shape in shapes.values())
    # Of few weights, as by --include, that many zeros are few of all.
    few = {w.name for w in weights} & there.keys()
    most = max(_share_of_zeros(there, names) for names in (there, few))
    if count and most < min(_HARDLY_ANY, (share or 1) / 2):
        raise OutputError(
            f"{target}: is a dense model, with {zeros:,} zeros of {count:,} weights. Name another "
            "file, or pass --overwrite to replace it."
        )


def _share_of_zeros(
    found: Mapping[str, tuple[tuple[int, ...], int]], names: Collection[str]
) -> float:
    count = sum(math.prod(found[name][0]) for name in names)
    return sum(found[name][1] for name in names) / max(1, count)


def check_unchanged(dense: Model, digest: str) -> None:
    """See that what the sparse file is held against, and takes its rest from, is still there.

    Raises:
        OutputError: it is another one now.
    """
    if dense.digest() != digest:
        raise OutputError(
            f"{dense.path}: was changed while it was pruned. Nothing was written. Put it back as "
            "it was, and go on with --resume if there is a checkpoint."
        )


def publish(
    dense: Model,
    target: Path,
    twin: Twin,
    learned: Mapping[str, Tensor],
    calibration: Calibration,
    weights: Sequence[Weight],
    zeros: int,
    threads: int,
    stamp: str | None,
    storage: str,
) -> tuple[Validation, WeightValues]:
    """Write the sparse file, check that it has its zeros, and only then let it take its place."""
    stale = stale_data(target, dense)
    grids = {weight.value: weight for weight in weights if weight.grid is not None}
    with staged(target) as stage:
        arrays = dict(_as_stored(learned, grids))
        # Also what is not pruned now and may have zeros; not what is no weight, as zero points.
        sparse = [weight.name for weight in find_weights(dense)] if storage == "sparse" else []
        save(dense, arrays, stage, target.parent, stamp=stamp, sparse=sparse)
        saved = load(stage)
        found = validate_models(
            dense, saved, calibration, weights, twin=twin,
            replaced=dict(_as_read(saved, learned, grids)), threads=threads,
        )  # fmt: skip
        _accept(found, zeros, tolerance(dense))
        values = values_before_and_after(dense, saved, weights)
    for file in stale:
        with suppress(OSError):  # others may still read it
            file.unlink()
    return replace(found, model=str(target)), values


def _as_stored(
    learned: Mapping[str, Tensor], grids: Mapping[str, Weight]
) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Learned values as the file has them, by the names of the stored tensors."""
    for name, value in learned.items():
        weight = grids.get(name)
        if weight is not None and weight.grid is not None:
            yield weight.name, weight.grid.stored(to_numpy(value))
        else:
            yield name, to_numpy(value)


def _as_read(
    saved: Model, learned: Mapping[str, Tensor], grids: Mapping[str, Weight]
) -> Iterator[tuple[str, Tensor]]:
    """What the saved file has for each learned tensor, in float32: its type may have rounded it."""
    for name in learned:
        weight = grids.get(name)
        if weight is not None and weight.grid is not None:
            yield name, to_torch(weight.grid.values(saved.array(weight.name)))
        else:
            yield name, promoted(to_torch(saved.array(name)))


def _accept(validation: Validation, zeros: int, most: float) -> None:
    """The promises of the tool, checked on the file before it takes its place."""
    if validation.zeros != zeros:
        raise OutputError(
            f"The saved file has {validation.zeros} zeros instead of {zeros}; "
            "this is a fault of fcpts-onnx, please report it. Nothing was written."
        )
    if not validation.same_graph:
        raise OutputError(
            "The saved graph differs from the input; this is a fault of fcpts-onnx, please "
            "report it. Nothing was written."
        )
    if validation.twin_error is not None and validation.twin_error > most:
        raise ParityError(
            f"The sparse twin differs from onnxruntime by {validation.twin_error:.2g} of the "
            f"output's scale, more than {most:g}. Nothing was written."
        )
