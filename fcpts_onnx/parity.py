"""CHECK: the twin held against onnxruntime, on the same samples."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx_graphsurgeon as gs
import torch
from onnx import TensorProto
from torch import Tensor

from fcpts_onnx.calibration import Calibration
from fcpts_onnx.errors import ModelError, ParityError
from fcpts_onnx.model import Model
from fcpts_onnx.ops import implemented
from fcpts_onnx.ops.dtypes import to_numpy
from fcpts_onnx.results import Parity
from fcpts_onnx.runtime import Array, Arrays, Runtime, as_arrays, check_finite
from fcpts_onnx.twin import Twin
from fcpts_onnx.weights import node_label

__all__ = ["TOLERANCE", "check_parity", "oracle_of", "tolerance", "written_error"]

TOLERANCE = 1e-4
"""Worst accepted difference between twin and onnxruntime, relative to the output's scale."""

_COARSE: dict[int, float] = {TensorProto.FLOAT16: 1e-2, TensorProto.BFLOAT16: 8e-2}
# A difference in the last digit flips roundings: 0.13 was measured on noise, an operator that is
# wrong gives 1 and more.
_QUANTISED = 0.25
_QUANTISED_PRODUCT = 2e-2  # 5e-3 was measured
# onnxruntime approximates some functions up to some 1e-7: outputs that small are all noise.
_LEAST_SCALE = 1e-2

_PARITY_SAMPLES = 13  # no batch size that someone writes into a graph divides it
_WRITTEN_SAMPLES, _WRITTEN_BATCH = 64, 16


def oracle_of(twin: Twin, model: Model, threads: int = 0) -> Runtime:
    """The dense model in onnxruntime, giving what its twin gives.

    Raises:
        ModelError: onnxruntime cannot load it.
    """
    return Runtime(_with_values(model, twin.output_names), twin.output_names, threads)


def check_parity(twin: Twin, model: Model, calibration: Calibration, oracle: Runtime) -> Parity:
    """Hold the dense twin against onnxruntime before it learns anything.

    A graph that has a batch size written into it gives wrong results, or none, on whole batches;
    the twin then runs it sample by sample from here on.

    Args:
        oracle: of `oracle_of`.

    Raises:
        ModelError: the dense network's outputs have NaN or Inf, or not the shapes it declares.
        ParityError: they differ by more than `TOLERANCE`; the first node that does is named.
    """
    batch = next(calibration.batches(_PARITY_SAMPLES))
    start = time.monotonic()
    expected = oracle.run(as_arrays(batch))
    seconds = time.monotonic() - start
    check_finite(model.path, expected)
    count = len(next(iter(batch.values())))
    _check_shapes(model, expected, twin.output_names, count)
    errors, most = {}, tolerance(model)
    for per_sample in (False, True):
        twin.per_sample = per_sample
        errors[per_sample] = _twin_error(twin, batch, expected)
        if errors[per_sample] <= most:
            return Parity(count, errors[per_sample], per_sample, seconds)
    twin.per_sample = errors[True] < errors[False]
    raise ParityError(
        f"{model.path}: the twin differs from onnxruntime by {min(errors.values()):.2g} of the "
        f"output's scale, more than {most:g}. {_first_departure(twin, model, batch, most)}"
        + ("" if math.isfinite(min(errors.values())) else _remedy(model))
    )


def _remedy(model: Model) -> str:
    """What a graph that cannot be computed on these samples may lack."""
    shapes = [spec.shape for spec in model.inputs if spec.shape]
    if any((shape[0] or 1) > 1 for shape in shapes):
        return " The graph has a fixed batch size: export it with a dynamic one."
    if any(None in shape[1:] for shape in shapes):
        return " The graph leaves sizes open: give samples of one that it takes, or --size."
    return ""


def written_error(
    twin: Twin,
    sparse: Model,
    replaced: Mapping[str, Tensor] | None,
    calibration: Calibration,
    threads: int = 0,
) -> float:
    """How far a saved file is from the twin and the tensors that it was written from."""
    names = twin.output_names
    runtime = Runtime(_with_values(sparse, names), names, threads)
    return max(
        _twin_error(twin, batch, runtime.run(as_arrays(batch)), replaced)
        for batch in calibration.batches(_WRITTEN_BATCH, _WRITTEN_SAMPLES)
    )


def tolerance(model: Model) -> float:
    """The worst accepted difference for a model; more where onnxruntime rounds each value."""
    if any("QuantizeLinear" in node.op or "QLinear" in node.op for node in model.graph.nodes):
        return _QUANTISED
    kinds = {tensor.data_type for tensor in model.tensors.values()}
    found = max((_COARSE[kind] for kind in kinds & _COARSE.keys()), default=TOLERANCE)
    return max(found, _QUANTISED_PRODUCT) if any(map(_is_dequantised, model.graph.nodes)) else found


def _is_dequantised(node: gs.Node) -> bool:
    """Whether a product reads what DequantizeLinear gives: onnxruntime rounds the other factor."""
    producers = [producer.op for tensor in node.inputs for producer in tensor.inputs]
    return node.op in ("MatMul", "Gemm") and "DequantizeLinear" in producers


def _check_shapes(model: Model, found: Arrays, names: Sequence[str], count: int) -> None:
    """See that outputs have a row for each sample, and the shape that the graph declares."""
    for name in names:
        shape = found[name].shape if name in found else ()
        if shape[:1] != (count,):
            raise ParityError(
                f"{model.path}: output {name!r} has shape {list(shape)} for {count} samples; its "
                "first axis must be that of the samples. Export the model so."
            )
    for value in model.proto.graph.output:
        declared = [
            dim.dim_value if dim.dim_value > 0 else "?" for dim in value.type.tensor_type.shape.dim
        ]
        shape = found[value.name].shape if value.name in found else ()
        # What is said of the first axis is often left from an export with another batch size.
        pairs = zip(declared[1:], shape[1:], strict=True) if len(declared) == len(shape) else ()
        if any(size not in ("?", there) for size, there in pairs):
            node = model.graph.tensors()[value.name].inputs[0]
            raise ModelError(
                f"{model.path}: output {value.name!r} of the {node.op} node {node_label(node)!r} "
                f"is declared as {declared} and has shape {list(shape)}. Correct what is declared, "
                "or export the model again."
            )


def _with_values(model: Model, names: Collection[str]) -> Model:
    """The model to fetch a twin's values from: as in its file where they are all outputs."""
    if set(names) <= set(model.outputs):
        return model
    return model.inlined(implemented(model.opsets))


def _relative_error(found: Tensor, expected: Array) -> float:
    """Largest difference over the largest expected value; infinite where the shapes differ."""
    if tuple(found.shape) != expected.shape:
        return float("inf")
    if not expected.size:
        return 0.0
    wanted = expected.astype(np.float64)
    scale = max(float(np.abs(wanted).max()), _LEAST_SCALE)
    worst = float(np.abs(to_numpy(found).astype(np.float64) - wanted).max())
    return worst / scale if np.isfinite(worst) else float("inf")


def _twin_error(
    twin: Twin,
    batch: Mapping[str, Tensor],
    expected: Arrays,
    replaced: Mapping[str, Tensor] | None = None,
) -> float:
    try:
        with torch.no_grad():
            found = twin(batch, replaced)
    except RuntimeError:
        return float("inf")  # a written-in batch size that this batch does not fit
    return max(_relative_error(found[name], expected[name]) for name in twin.output_names)


def _first_departure(twin: Twin, model: Model, batch: Mapping[str, Tensor], most: float) -> str:
    """Name the first node whose output departs from onnxruntime's."""
    one = {name: value[:1] for name, value in batch.items()}
    inner = [name for step in twin.steps for name in step.outputs if name]
    expected = Runtime(_with_values(model, inner), inner).run(as_arrays(one))
    try:
        with torch.no_grad():
            values = twin(one, fetch=inner)
    except RuntimeError as error:
        return f"It fails at the {error}"
    for step in twin.steps:
        for name in step.outputs:
            if name and _relative_error(values[name], expected[name]) > most:
                wanted, found = expected[name], to_numpy(values[name])
                node = next(part for part in step.nodes() if name in part.outputs)
                others = ", ".join(repr(part.label) for part in step.nodes() if part is not node)
                joined = f", computed in one step with {others}" if others else ""
                return (
                    f"The first node to depart is {node.op} {node.label!r}{joined}: onnxruntime "
                    f"gives {wanted.min():.4g} to {wanted.max():.4g} for {name!r}, the twin "
                    f"{found.min():.4g} to {found.max():.4g}."
                )
    return "On a single sample no node departs: the graph mixes the samples of a batch."
