"""CHECK: a saved file held against its dense origin: zeros, what changed, how outputs differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
import torch
from google.protobuf.message import Message
from onnx import TensorProto
from onnx.external_data_helper import uses_external_data
from torch import Tensor

from fcpts_onnx.calibration import Calibration
from fcpts_onnx.errors import OutputError
from fcpts_onnx.model import Model, stored_tensors, take_in
from fcpts_onnx.parity import written_error
from fcpts_onnx.results import Output, Sparsity, Validation
from fcpts_onnx.runtime import Runtime, as_arrays, check_finite
from fcpts_onnx.sparsity.losses import Head, as_float, find_heads, kl_divergence
from fcpts_onnx.twin import Twin
from fcpts_onnx.weights import Weight, count_zeros

__all__ = [
    "COMPARED",
    "differences",
    "recount",
    "validate_models",
]

COMPARED = 1000
"""On how many samples the outputs of two models are compared, unless said otherwise."""

_BATCH = 64


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
        twin_error=(
            None if twin is None else written_error(twin, sparse, replaced, calibration, threads)
        ),
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
            take_in(tensor, model.folder)
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


def _run_both(
    dense: Model, sparse: Model, calibration: Calibration, samples: int, threads: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """Each output of both files over all samples, if it has a row for each."""
    parts: dict[str, tuple[list[Tensor], list[Tensor]]] = {k: ([], []) for k in dense.outputs}
    for place, model in enumerate((dense, sparse)):
        runtime = Runtime(model, threads=threads)
        for batch in calibration.batches(_BATCH, samples):
            results = runtime.run(as_arrays(batch))
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
