"""CHECK: a saved file held against its dense origin: zeros, what changed, how outputs differ."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import torch
from PIL import Image
from torch import Tensor

from fcpts_onnx.calibration import Calibration
from fcpts_onnx.difference import differing_parts, differing_tensors
from fcpts_onnx.errors import OutputError
from fcpts_onnx.model import Model
from fcpts_onnx.parity import written_error
from fcpts_onnx.results import Departure, Output, Sparsity, Validation
from fcpts_onnx.runtime import Runtime, as_arrays, check_finite
from fcpts_onnx.sparsity.losses import (
    Head,
    as_float,
    class_scores,
    find_heads,
    kl_divergence,
    kl_divergences,
    log_probabilities,
)
from fcpts_onnx.twin import Twin
from fcpts_onnx.weights import Weight, count_zeros

__all__ = [
    "COMPARED",
    "recount",
    "validate_models",
]

COMPARED = 1000
"""On how many samples the outputs of two models are compared, unless said otherwise."""

_BATCH = 16  # onnxruntime keeps the memory that a large one took
_TRIED = 64
_FURTHEST = 8  # samples to be shown
_LIKELIEST = 3  # classes of each
_PICTURE = 128  # pixels of the longer side at most


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
    if dense.outputs != sparse.outputs:
        raise OutputError(
            f"{sparse.path}: has outputs {list(sparse.outputs)}, {dense.path} has "
            f"{list(dense.outputs)}; the two cannot be compared."
        )
    outputs = _run_both(dense, sparse, calibration, samples, threads)
    inputs = next(calibration.batches(_TRIED, samples))
    heads = find_heads({name: one for name, (one, _) in outputs.items()}, inputs)
    return Validation(
        model=str(sparse.path),
        samples=min(samples, len(calibration)),
        weights=tuple(recount(sparse, weights)),
        changed=differing_tensors(dense, sparse),
        same_graph=not differing_parts(dense, sparse),
        outputs=tuple(_compare(head, *outputs[head.name]) for head in heads),
        twin_error=(
            None if twin is None else written_error(twin, sparse, replaced, calibration, threads)
        ),
        furthest=_furthest(heads, outputs, calibration),
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


def _furthest(
    heads: Sequence[Head],
    outputs: Mapping[str, tuple[Tensor, Tensor]],
    calibration: Calibration,
) -> tuple[Departure, ...]:
    """The samples whose classes are furthest apart, by the first output that is one of classes."""
    for head in heads:
        first, second = (as_float(values).float() for values in outputs[head.name])
        if head.loss != "kl" or head.axis != 1 or class_scores(first) is None:
            continue
        kl = kl_divergences(first, second, head).flatten()
        dense, sparse = (
            log_probabilities(values, head).exp().flatten(1) for values in (first, second)
        )
        return tuple(
            Departure(
                place,
                float(kl[place]),
                _likeliest(dense[place]),
                _likeliest(sparse[place]),
                _encoded(calibration.picture(place)),
            )
            for place in kl.topk(min(_FURTHEST, len(kl))).indices.tolist()
        )
    return ()


def _likeliest(probabilities: Tensor) -> tuple[tuple[int, float], ...]:
    found = probabilities.topk(min(_LIKELIEST, len(probabilities)))
    return tuple(zip(found.indices.tolist(), found.values.tolist(), strict=True))


def _encoded(picture: Image.Image | None) -> str | None:
    """As WebP in base64, small enough for a page."""
    if picture is None:
        return None
    small, buffer = picture.copy(), io.BytesIO()
    small.thumbnail((_PICTURE, _PICTURE))
    small.save(buffer, "WEBP", quality=90)
    return base64.b64encode(buffer.getvalue()).decode()
