"""WRITE: a float model in 8 bits by onnxruntime's static quantizer, with zeros that stay zeros."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

from fcpts_onnx.calibration import Calibration, Data, load_calibration
from fcpts_onnx.errors import ModelError, OutputError
from fcpts_onnx.model import Model, PathLike, load
from fcpts_onnx.preprocess import Preprocess
from fcpts_onnx.results import Quantization, Sparsity
from fcpts_onnx.runtime import as_arrays
from fcpts_onnx.validate import validate_models
from fcpts_onnx.weights import Weight, count_zeros, find_weights
from fcpts_onnx.write import check_target, staged

__all__ = ["quantize"]

_SUFFIX = "_quantized"  # of the names that onnxruntime gives


def quantize(
    model: PathLike,
    output: PathLike,
    *,
    calib: Data,
    preprocess: Preprocess | str = "imagenet",
    against: PathLike | None = None,
    samples: int = 500,
    seed: int = 0,
    threads: int = 0,
) -> Quantization:
    """Write a float model in 8 bits by onnxruntime's static quantizer; zeros stay zeros.

    Args:
        model: a float model, sparse or not.
        output: the file to write, with QuantizeLinear and DequantizeLinear around each layer.
        calib, preprocess: as for `prune`.
        against: the model whose outputs it is held against; `model` itself if None.
        samples: how many to take ranges from, and to compare on.

    Raises:
        FcptsError: a file cannot be read or written, or onnxruntime cannot quantize the model.
    """
    loaded, target = load(model), Path(output)
    origin = loaded if against is None else load(against)
    check_target(target, loaded.path, reads=[*loaded.files, *origin.files])
    calibration = load_calibration(
        calib, loaded, Preprocess.of(preprocess), samples=samples, seed=seed
    )
    weights = [weight for weight in find_weights(loaded) if weight.excluded is None]
    return _quantized(loaded, target, weights, calibration, against=origin, threads=threads)


class _Samples:
    """The calibration set as onnxruntime asks for it, a sample at a time."""

    def __init__(self, calibration: Calibration) -> None:
        self._batches = calibration.batches(1)

    def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
        batch = next(self._batches, None)
        return None if batch is None else as_arrays(batch)


def _quantized(
    model: Model,
    target: Path,
    weights: Sequence[Weight],
    calibration: Calibration,
    *,
    against: Model,
    threads: int = 0,
) -> Quantization:
    """Write a float model with 8-bit weights and activations (QuantizeLinear and DequantizeLinear).

    Weights get a scale an output channel and no zero point, so that what was zero is zero;
    activations get both, from their least and largest value on the calibration set.

    Args:
        weights: whose zeros are counted, before and after.
        against: the model whose outputs it is held against.

    Raises:
        ModelError: onnxruntime cannot quantize the model.
        OutputError: a zero did not stay one, or the file cannot be written.
    """
    with staged(target) as stage:
        try:
            with _hushed():
                quantize_static(
                    str(model.path),
                    str(stage),
                    _Samples(calibration),
                    quant_format=QuantFormat.QDQ,
                    per_channel=True,
                    weight_type=QuantType.QInt8,
                    activation_type=QuantType.QUInt8,
                    use_external_data_format=len(model.files) > 1,
                    extra_options={"WeightSymmetric": True},
                )
        except Exception as error:  # its errors share no base class
            reason = " ".join(str(error).split())
            raise ModelError(f"{model.path}: onnxruntime cannot quantize it: {reason}") from error
        saved = load(stage)
        counted = tuple(_recounted(model, saved, weights))
        found = validate_models(against, saved, calibration, (), threads=threads)
        sizes = [sum(os.path.getsize(file) for file in one.files) for one in (model, saved)]
    return Quantization(
        str(model.path),
        str(target),
        found.samples,
        sum(count_zeros(model, weight) for weight in weights),
        counted,
        str(against.path),
        found.outputs,
        (sizes[0], sizes[1]),
    )


def _recounted(model: Model, saved: Model, weights: Sequence[Weight]) -> Iterator[Sparsity]:
    """The zeros of each weight as it is now; those left in float are counted as such."""
    for weight in weights:
        name = weight.name + _SUFFIX
        name = name if name in saved.tensors else weight.name
        if name not in saved.tensors:
            raise OutputError(f"{saved.path}: onnxruntime left nothing named {weight.name!r}.")
        before, after = model.array(weight.name), saved.array(name)
        if np.any(after[before == 0]):
            raise OutputError(
                f"{saved.path}: onnxruntime gave zeros of {weight.name!r} other values. Nothing "
                "was written."
            )
        yield Sparsity(
            weight.name, weight.shape, weight.count, after.size - int(np.count_nonzero(after))
        )


@contextmanager
def _hushed() -> Iterator[None]:
    """Without the quantizer's advice, which is for those who call it by hand."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
