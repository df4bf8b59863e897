"""CHECK: a saved file held against its dense origin: zeros, what changed, how outputs differ."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from heapq import nlargest

import torch
from PIL import Image
from torch import Tensor

from fcpts_onnx.calibration import Calibration
from fcpts_onnx.difference import differing_parts, differing_tensors
from fcpts_onnx.errors import OutputError
from fcpts_onnx.model import Model
from fcpts_onnx.parity import written_error
from fcpts_onnx.quantization import Coded, coded_outputs
from fcpts_onnx.results import Departure, Output, Sparsity, Validation
from fcpts_onnx.runtime import Runtime, as_arrays, check_finite
from fcpts_onnx.sparsity.losses import (
    Head,
    as_float,
    class_scores,
    find_heads,
    kl_divergences,
    log_probabilities,
)
from fcpts_onnx.twin import Twin
from fcpts_onnx.weights import Weight, count_zeros, find_weights

__all__ = [
    "COMPARED",
    "recount",
    "validate_models",
]

COMPARED = 1000
"""On how many samples the outputs of two models are compared, unless said otherwise."""

_BATCH = 16  # onnxruntime keeps the memory that a large one took
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
    compared = _compared(dense, sparse, calibration, samples, threads)
    return Validation(
        model=str(sparse.path),
        samples=min(samples, len(calibration)),
        weights=tuple(recount(sparse, weights)),
        changed=differing_tensors(dense, sparse),
        same_graph=not differing_parts(dense, sparse),
        outputs=tuple(one.result() for one in compared),
        twin_error=(
            None if twin is None else written_error(twin, sparse, replaced, calibration, threads)
        ),
        furthest=_furthest(compared, calibration),
    )


def recount(model: Model, weights: Sequence[Weight]) -> list[Sparsity]:
    """Count the zeros of weights, as a file stores them.

    Raises:
        OutputError: it has none of such a name, or one of another shape.
    """
    own = {weight.name: weight for weight in find_weights(model)} if weights else {}
    counted = []
    for weight in weights:
        if weight.name not in model.tensors:
            raise OutputError(
                f"{model.path}: has no constant tensor {weight.name!r}. Give a float model of the "
                "same weights; what 8 bits do, quantize and eval say."
            )
        shape = tuple(model.tensors[weight.name].dims)
        if shape != weight.shape:
            raise OutputError(
                f"{model.path}: {weight.name!r} has shape {list(shape)} instead of "
                f"{list(weight.shape)}. Give a model of the same weights."
            )
        # Which number stands for zero is the file's own matter.
        zeros = count_zeros(model, own.get(weight.name, weight))
        counted.append(Sparsity(weight.name, weight.shape, weight.count, zeros))
    return counted


class _Mean:
    """The mean of values that come in batches."""

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, values: Tensor) -> None:
        self._sum += float(values.sum(dtype=torch.float64))
        self._count += values.numel()

    def value(self) -> float:
        return self._sum / max(1, self._count)


class _Comparison:
    """How far apart two files are in one output, batch by batch: all rows may fill the memory.

    Attributes:
        furthest: the samples whose classes are furthest apart, the worst first, where it is an
            output of classes.
    """

    def __init__(self, head: Head) -> None:
        self.furthest: list[Departure] = []
        self._head, self._seen = head, 0
        self._cosine, self._kl, self._agreement = _Mean(), _Mean(), _Mean()

    def add(self, first: Tensor, second: Tensor) -> None:
        """Take in the rows of a few samples more."""
        head, rows = self._head, (len(first), -1)
        one, two = (values.double().reshape(rows) for values in (first, second))
        self._cosine.add(torch.cosine_similarity(one, two))  # squares are beyond float32
        if head.loss == "kl":
            kl = kl_divergences(first, second, head)
            self._kl.add(kl)
            self._agreement.add((first.argmax(head.axis) == second.argmax(head.axis)).float())
            if head.axis == 1 and class_scores(first) is not None:
                found = self.furthest + _departures(head, first, second, kl, self._seen)
                self.furthest = nlargest(_FURTHEST, found, key=lambda sample: sample.kl)
        self._seen += len(first)

    def result(self) -> Output:
        """What was found on all of them."""
        if self._head.loss != "kl":
            return Output(self._head.name, self._cosine.value(), None, None)
        values = (self._cosine, self._kl, self._agreement)
        return Output(self._head.name, *(mean.value() for mean in values))


def _compared(
    dense: Model, sparse: Model, calibration: Calibration, samples: int, threads: int
) -> list[_Comparison]:
    """Both files run on all samples, and compared in each output that has a row for each."""
    runtimes = [
        (Runtime(model, threads=threads), coded_outputs(model)) for model in (dense, sparse)
    ]
    found: dict[str, _Comparison] = {}
    for place, batch in enumerate(calibration.batches(_BATCH, samples)):
        one, two = (_rows(runtime, coded, batch) for runtime, coded in runtimes)
        if not place:
            heads = find_heads({name: one[name] for name in one if name in two}, batch)
            found = {head.name: _Comparison(head) for head in heads}
        found = {name: found[name] for name in found if name in one and name in two}
        for name, comparison in found.items():
            _check_shape(name, one[name], two[name], sparse, dense)
            comparison.add(one[name].float(), two[name].float())
    return [*found.values()]


def _rows(
    runtime: Runtime, coded: Mapping[str, Coded], batch: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The outputs on a batch that have a row for each of its samples, in the units of the model."""
    results, count = runtime.run(as_arrays(batch)), len(next(iter(batch.values())))
    check_finite(runtime.path, results)
    return {
        name: as_float(torch.from_numpy(coded[name].values(values) if name in coded else values))
        for name, values in results.items()
        if values.shape[:1] == (count,)
    }


def _check_shape(name: str, one: Tensor, two: Tensor, sparse: Model, dense: Model) -> None:
    if one.shape != two.shape:
        raise OutputError(
            f"{sparse.path}: output {name!r} has shape {list(two.shape)}, in {dense.path} "
            f"{list(one.shape)}; the two cannot be compared."
        )


def _departures(
    head: Head, first: Tensor, second: Tensor, kl: Tensor, start: int
) -> list[Departure]:
    """Samples of a batch and what both models take them for, without their images."""
    dense, sparse = (log_probabilities(values, head).exp().flatten(1) for values in (first, second))
    return [
        Departure(start + row, apart, _likeliest(dense[row]), _likeliest(sparse[row]))
        for row, apart in enumerate(kl.flatten().tolist())
    ]


def _furthest(compared: Sequence[_Comparison], calibration: Calibration) -> tuple[Departure, ...]:
    """The samples that are furthest apart, by the first output of classes, with their images."""
    found = next((one.furthest for one in compared if one.furthest), [])
    return tuple(
        replace(
            sample,
            file=calibration.file(sample.place),
            picture=_encoded(calibration.picture(sample.place)),
        )
        for sample in found
    )


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
