"""WRITE: a float model in 8 bits by onnxruntime's static quantizer, with zeros that stay zeros."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
import onnxruntime as ort
from onnx import TensorProto, numpy_helper
from onnx.external_data_helper import uses_external_data
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

from fcpts_onnx.calibration import Calibration, Data, load_calibration, paths_of
from fcpts_onnx.errors import FcptsError, ModelError, OutputError
from fcpts_onnx.files import staged
from fcpts_onnx.model import Model, PathLike, load, stored_tensors, take_in
from fcpts_onnx.preprocess import Preprocess
from fcpts_onnx.results import Quantization, Sparsity
from fcpts_onnx.runtime import IS_OLD, as_arrays
from fcpts_onnx.texts import shortened
from fcpts_onnx.validate import validate_models
from fcpts_onnx.weights import Weight, count_zeros, find_weights
from fcpts_onnx.write import check_target, stale_data

__all__ = ["check_quantizable", "quantize"]

_SUFFIX = "_quantized"  # of the names that onnxruntime gives
_OPSET = 13
_LARGEST_FILE = 2**30
_FLOAT_BYTES = 4
_WARNINGS, _ERRORS = 2, 3  # levels of onnxruntime's own log
_HALVES = {TensorProto.FLOAT16, TensorProto.BFLOAT16}
_BYTES = {TensorProto.INT8, TensorProto.UINT8}


def check_quantizable(model: Model, target: Path) -> None:
    """See that a model can be quantized into a file, as far as that is known before.

    Raises:
        FcptsError: the installed onnxruntime is that for training.
        ModelError: the model is not one in float32.
        OutputError: the file is a float model, which nobody wants replaced by its kin in 8 bits,
            or its external data would replace another's.
    """
    _check_no_float_model(target)
    _check_no_data_of_others(model, target)
    if IS_OLD:
        raise FcptsError(
            f"onnxruntime {ort.__version__}, which --engine ort takes, cannot quantize the sparse "
            "model. Quantize it where the usual onnxruntime, 1.21 or newer, is installed."
        )
    if any(node.op in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.nodes):
        raise ModelError(
            f"{model.path}: has 8-bit values already (QuantizeLinear). Quantize the float model."
        )
    kinds = {tensor.data_type for tensor in model.tensors.values()} & _HALVES
    # Of double, only weights: a float32 model may have a constant of it.
    weights = {weight.name for weight in find_weights(model)} & model.tensors.keys()
    kinds |= {model.tensors[name].data_type for name in weights} & {TensorProto.DOUBLE}
    if kinds:
        names = ", ".join(sorted(TensorProto.DataType.Name(kind).lower() for kind in kinds))
        raise ModelError(
            f"{model.path}: has weights in {names}; the quantizer takes float32 only. Export it so."
        )


def _check_no_float_model(target: Path) -> None:
    try:
        there = load(target)
    except FcptsError:  # there is none, or it is of no use
        return
    if {tensor.data_type for tensor in there.tensors.values()}.isdisjoint(_BYTES):
        raise OutputError(f"{target}: is a model in float. Name another file, or remove it.")


def _check_no_data_of_others(model: Model, target: Path) -> None:
    data = target.with_name(f"{target.name}.data")  # as onnxruntime calls it
    if _is_large(model) and data.exists() and data not in stale_data(target, model):
        raise OutputError(
            f"{data}: exists and is not of {target} alone; external data would be written there. "
            "Give the model in 8 bits another name, or move that file."
        )


def _is_large(model: Model) -> bool:
    """Whether external data is written: weights in float, before they are in 8 bits."""
    values = sum(math.prod(tensor.dims) for _, tensor in stored_tensors(model.proto.graph))
    return _FLOAT_BYTES * values > _LARGEST_FILE


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
    reads = [*loaded.files, *origin.files, *paths_of(calib)]
    check_target(target, loaded.path, reads=reads)
    check_quantizable(loaded, target)
    source = _prepared(loaded)
    calibration = load_calibration(
        calib, loaded, Preprocess.of(preprocess), samples=samples, seed=seed
    )
    weights = [weight for weight in find_weights(loaded) if weight.excluded is None]
    with staged(target) as stage:
        _write_quantized(loaded, source, stage, calibration)
        saved = load(stage)
        counted = tuple(_recounted(loaded, saved, weights))
        if not any(tensor.data_type == TensorProto.INT8 for tensor in saved.tensors.values()):
            raise ModelError(
                f"{loaded.path}: onnxruntime left all its weights in float, none is in 8 bits. "
                "Nothing was written."
            )
        found = validate_models(origin, saved, calibration, (), threads=threads)
        sizes = (loaded.file_bytes, saved.file_bytes)
    return Quantization(
        str(loaded.path),
        str(target),
        found.samples,
        sum(count_zeros(loaded, weight) for weight in weights),
        counted,
        str(origin.path),
        found.outputs,
        sizes,
    )


class _Samples:
    """The calibration set as onnxruntime asks for it, a sample at a time."""

    def __init__(self, calibration: Calibration) -> None:
        self._batches = calibration.batches(1)

    def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
        batch = next(self._batches, None)
        return None if batch is None else as_arrays(batch)


def _prepared(model: Model) -> onnx.ModelProto:
    """The model as the quantizer takes it: weights as initializers, opset 13 at least.

    Raises:
        ModelError: it cannot be converted.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for _, tensor in list(stored_tensors(proto.graph)):
        if uses_external_data(tensor):
            take_in(tensor, model.folder)
    for node in [node for node in proto.graph.node if node.op_type == "Constant"]:
        if node.output[0] in model.tensors:
            tensor = numpy_helper.from_array(model.array(node.output[0]), node.output[0])
            proto.graph.initializer.append(tensor)
            proto.graph.node.remove(node)
    proto.ir_version = max(4, proto.ir_version)  # below, initializers have to be inputs too
    if model.opsets[""] >= _OPSET:
        return proto
    try:
        return onnx.version_converter.convert_version(proto, _OPSET)
    except Exception as error:  # the converter's errors share no base class
        raise ModelError(
            f"{model.path}: opset {model.opsets['']} cannot be converted to {_OPSET}, from which "
            f"on each output channel has a scale of its own: {shortened(error)}. Export it anew."
        ) from error


def _write_quantized(
    model: Model, source: onnx.ModelProto, stage: Path, calibration: Calibration
) -> None:
    """Weights get a scale an output channel and no zero point, so that what was zero is zero.

    Activations get both, from their least and largest value on the calibration set.

    Raises:
        ModelError: onnxruntime cannot quantize the model.
    """
    try:
        with _hushed():
            # A path would have it write beside the user's file.
            quantize_static(
                source,
                str(stage),
                _Samples(calibration),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                weight_type=QuantType.QInt8,
                activation_type=QuantType.QUInt8,
                use_external_data_format=_is_large(model),
                extra_options={"WeightSymmetric": True},
            )
    except Exception as error:  # its errors share no base class
        raise ModelError(
            f"{model.path}: onnxruntime cannot quantize it: {shortened(error)}"
        ) from error


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
    """Without the quantizer's advice, which is for those who call it by hand.

    It speaks through the root logger, which would get a handler for good if it had none.
    """
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    root.addFilter(_nothing)
    ort.set_default_logger_severity(_ERRORS)
    try:
        yield
    finally:
        ort.set_default_logger_severity(_WARNINGS)
        root.removeFilter(_nothing)
        root.removeHandler(handler)


def _nothing(_: logging.LogRecord) -> bool:
    """A filter that lets nothing through."""
    return False
