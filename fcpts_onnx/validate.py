"""CHECK: onnxruntime parity, zeros recounted from the saved file, nothing else changed."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import torch
from google.protobuf.message import Message
from onnx import TensorProto
from onnx.external_data_helper import uses_external_data
from torch import Tensor

from fcpts_onnx.calibration import Calibration
from fcpts_onnx.errors import ModelError, OutputError, ParityError
from fcpts_onnx.model import Model, external_bytes, stored_tensors
from fcpts_onnx.ops import implemented
from fcpts_onnx.ops.dtypes import to_numpy
from fcpts_onnx.results import Output, Parity, Sparsity, Validation
from fcpts_onnx.runtime import Runtime, check_finite
from fcpts_onnx.sparsity.losses import Head, as_float, find_heads, kl_divergence
from fcpts_onnx.twin import Twin
from fcpts_onnx.weights import Weight, count_zeros, node_label

__all__ = [
    "COMPARED",
    "TOLERANCE",
    "check_parity",
    "differences",
    "recount",
    "tolerance",
    "validate_models",
]

TOLERANCE = 1e-4
"""Worst accepted difference between twin and onnxruntime, relative to the output's scale."""

COMPARED = 1000
"""On how many samples the outputs of two models are compared, unless said otherwise."""

_COARSE: dict[int, float] = {TensorProto.FLOAT16: 1e-2, TensorProto.BFLOAT16: 8e-2}
# A difference in the last digit flips roundings: 0.13 was measured on noise, an operator that is
# wrong gives 1 and more.
_QUANTISED = 0.25
_QUANTISED_PRODUCT = 2e-2  # 5e-3 was measured
# onnxruntime approximates some functions up to some 1e-7: outputs that small are all noise.
_LEAST_SCALE = 1e-2

_PARITY_SAMPLES = 13  # no batch size that someone writes into a graph divides it
_BATCH = 64

Arrays = Mapping[str, np.ndarray[Any, Any]]


def check_parity(twin: Twin, model: Model, calibration: Calibration, threads: int = 0) -> Parity:
    """Hold the dense twin against onnxruntime before it learns anything.

    A graph that has a batch size written into it gives wrong results, or none, on whole batches;
    the twin then runs it sample by sample from here on.

    Raises:
        ModelError: the dense network's outputs have NaN or Inf, or not the shapes it declares.
        ParityError: they differ by more than `TOLERANCE`; the first node that does is named.
    """
    batch = next(calibration.batches(_PARITY_SAMPLES))
    oracle = Runtime(_with_values(model, twin.output_names), twin.output_names, threads)
    start = time.monotonic()
    expected = oracle.run(_as_arrays(batch))
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
    )


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


def tolerance(model: Model) -> float:
    """The worst accepted difference for a model; more where onnxruntime rounds each value."""
    if any("QuantizeLinear" in node.op or "QLinear" in node.op for node in model.graph.nodes):
        return _QUANTISED
    kinds = {tensor.data_type for tensor in model.tensors.values()}
    found = max((_COARSE[kind] for kind in kinds & _COARSE.keys()), default=TOLERANCE)
    return max(found, _QUANTISED_PRODUCT) if any(map(_is_dequantised, model.graph.nodes)) else found


def _is_dequantised(node: gs.Node) -> bool:
    """Whether a MatMul reads what DequantizeLinear gives: onnxruntime rounds the other factor."""
    producers = [producer.op for tensor in node.inputs for producer in tensor.inputs]
    return node.op == "MatMul" and "DequantizeLinear" in producers


def validate_models(
    dense: Model,
    sparse: Model,
    calibration: Calibration,
    weights: Sequence[Weight],
    *,
    samples: int = COMPARED,
    twin: Twin | None = None,
    replaced: Mapping[str, Tensor] | None = None,
    threads: int = 0,
) -> Validation:
    """Hold a saved file against its dense origin.

    Args:
        sparse: the saved file, loaded anew.
        weights: whose zeros are counted.
        samples: how many calibration samples to compare outputs on.
        twin, replaced: the twin and the tensors the file was written from, if there is one; its
            outputs are then compared with onnxruntime's.

    Raises:
        ModelError: the file cannot be run, or gives NaN or Inf.
        OutputError: the two files have different outputs.
    """
    changed, same_graph = differences(dense, sparse)
    if dense.outputs != sparse.outputs:
        raise OutputError(
            f"{sparse.path}: has outputs {list(sparse.outputs)}, {dense.path} has "
            f"{list(dense.outputs)}; the two cannot be compared."
        )
    outputs = _run_both(dense, sparse, calibration, samples, threads)
    inputs = next(calibration.batches(_BATCH, samples))
    heads = find_heads({name: one for name, (one, _) in outputs.items()}, inputs)
    return Validation(
        model=str(sparse.path),
        samples=min(samples, len(calibration)),
        weights=tuple(recount(sparse, weights)),
        changed=tuple(changed),
        same_graph=same_graph,
        outputs=tuple(_compare(head, *outputs[head.name]) for head in heads),
        twin_error=None
        if twin is None
        else _sparse_error(twin, sparse, replaced, calibration, threads),
    )


def recount(model: Model, weights: Sequence[Weight]) -> list[Sparsity]:
    """Count the zeros of weights, as they are stored."""
    counted = []
    for weight in weights:
        if weight.name not in model.tensors:
            raise OutputError(f"{model.path}: has no constant tensor {weight.name!r}.")
        zeros = count_zeros(model, weight)
        counted.append(Sparsity(weight.name, weight.shape, weight.count, zeros))
    return counted


def differences(first: Model, second: Model) -> tuple[list[str], bool]:
    """The constant tensors of the main graph whose values differ, and whether all else is equal.

    Where and how values are stored (inline or external) does not count; their type does.
    """
    bare, changed = [_bare(first), _bare(second)], []
    for name in first.tensors.keys() & second.tensors.keys():
        here, there = first.array(name), second.array(name)
        if here.dtype != there.dtype or here.tobytes() != there.tobytes():
            changed.append(name)
    return sorted(changed), bare[0] == bare[1]


def _bare(model: Model) -> onnx.ModelProto:
    """A model without the values of its constants; only their names, types and shapes.

    Tensors inside the graphs of nodes keep their values, wherever these are stored.
    """
    bare = onnx.ModelProto()
    _copy_fields(model.proto, bare, but="graph")
    _copy_fields(model.proto.graph, bare.graph, but="initializer")  # it may be gigabytes
    for tensor in model.proto.graph.initializer:
        # What an If may go by says which of its branches is a part of the graph.
        is_condition = tensor.data_type == TensorProto.BOOL
        bare.graph.initializer.append(tensor if is_condition else _stripped(tensor))
    for name, tensor in list(stored_tensors(bare.graph)):
        if name is not None:
            tensor.CopyFrom(_stripped(tensor))
        elif uses_external_data(tensor):
            content = external_bytes(tensor, model.folder)
            tensor.CopyFrom(_stripped(tensor))
            tensor.raw_data = content
    return bare


def _copy_fields(source: Message, target: Message, *, but: str) -> None:
    for field, value in source.ListFields():
        if field.name == but:
            continue
        if hasattr(value, "extend"):  # repeated, whatever the version of protobuf calls it
            getattr(target, field.name).extend(value)
        elif isinstance(value, Message):
            getattr(target, field.name).CopyFrom(value)
        else:
            setattr(target, field.name, value)


def _stripped(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """A tensor's name, type and shape."""
    return onnx.TensorProto(
        name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, doc_string=tensor.doc_string
    )


def _with_values(model: Model, names: Collection[str]) -> Model:
    """The model to fetch a twin's values from: as in its file where they are all outputs."""
    if set(names) <= set(model.outputs):
        return model
    return model.inlined(implemented(model.opsets))


def _as_arrays(batch: Mapping[str, Tensor]) -> dict[str, np.ndarray[Any, Any]]:
    return {name: np.ascontiguousarray(value.numpy()) for name, value in batch.items()}


def _relative_error(found: Tensor, expected: np.ndarray[Any, Any]) -> float:
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
    expected = Runtime(_with_values(model, inner), inner).run(_as_arrays(one))
    try:
        with torch.no_grad():
            values = twin(one, fetch=inner)
    except RuntimeError as error:
        return f"It fails at the {error}"
    for step in twin.steps:
        for name in step.outputs:
            if name and _relative_error(values[name], expected[name]) > most:
                wanted, found = expected[name], to_numpy(values[name])
                return (
                    f"The first node to depart is {step.op} {step.label!r}: onnxruntime gives "
                    f"{wanted.min():.4g} to {wanted.max():.4g} for {name!r}, the twin "
                    f"{found.min():.4g} to {found.max():.4g}."
                )
    return "On a single sample no node departs: the graph mixes the samples of a batch."


def _run_both(
    dense: Model, sparse: Model, calibration: Calibration, samples: int, threads: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """Each output of both files over all samples, if it has a row for each."""
    parts: dict[str, tuple[list[Tensor], list[Tensor]]] = {k: ([], []) for k in dense.outputs}
    for place, model in enumerate((dense, sparse)):
        runtime = Runtime(model, threads=threads)
        for batch in calibration.batches(_BATCH, samples):
            results = runtime.run(_as_arrays(batch))
            check_finite(model.path, results)
            count = len(next(iter(batch.values())))
            for name, values in results.items():
                if values.shape[:1] == (count,):
                    parts[name][place].append(as_float(torch.from_numpy(values)))
    joined = {}
    for name, (one, two) in parts.items():
        if sum(map(len, one)) == sum(map(len, two)) == min(samples, len(calibration)):
            joined[name] = _same_shape(name, torch.cat(one), torch.cat(two), sparse, dense)
    return joined


def _same_shape(
    name: str, one: Tensor, two: Tensor, sparse: Model, dense: Model
) -> tuple[Tensor, Tensor]:
    if one.shape != two.shape:
        raise OutputError(
            f"{sparse.path}: output {name!r} has shape {list(two.shape)}, in {dense.path} "
            f"{list(one.shape)}; the two cannot be compared."
        )
    return one, two


def _sparse_error(
    twin: Twin,
    sparse: Model,
    replaced: Mapping[str, Tensor] | None,
    calibration: Calibration,
    threads: int,
) -> float:
    """How far the saved file is from the twin it was written from."""
    batch = next(calibration.batches(_BATCH))
    names = twin.output_names
    expected = Runtime(_with_values(sparse, names), names, threads).run(_as_arrays(batch))
    return _twin_error(twin, batch, expected, replaced)


def _compare(head: Head, first: Tensor, second: Tensor) -> Output:
    """Compare one output over all samples."""
    first, second = first.float(), second.float()
    cosine = torch.cosine_similarity(first.reshape(len(first), -1), second.reshape(len(second), -1))
    if head.loss != "kl":
        return Output(head.name, float(cosine.mean()), None, None)
    agreement = (first.argmax(head.axis) == second.argmax(head.axis)).float().mean()
    return Output(
        head.name,
        float(cosine.mean()),
        float(kl_divergence(first, second, head)),
        float(agreement),
    )
