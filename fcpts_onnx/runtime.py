"""RUN: onnxruntime sessions, the oracle, fed with any number of samples."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
import onnxruntime as ort
from onnx.external_data_helper import uses_external_data
from torch import Tensor

from fcpts_onnx.errors import ModelError
from fcpts_onnx.model import Model, stored_tensors, take_in
from fcpts_onnx.texts import shortened

__all__ = [
    "IS_OLD",
    "Array",
    "Arrays",
    "Runtime",
    "as_arrays",
    "check_finite",
    "converted",
]

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]

# Without this, onnxruntime refuses opsets that the installed onnx knows but has not released.
os.environ.setdefault("ALLOW_RELEASED_ONNX_OPSET_ONLY", "0")
# onnxruntime for training ended with 1.19; newer models are converted for it.
IS_OLD = tuple(map(int, ort.__version__.split(".")[:2])) < (1, 20)
_OLD_OPSET, _OLD_IR = 21, 10
# What it logs is in its exceptions too; there, names of the model are shown with care.
_FATAL_ONLY = 4
_LARGEST_BATCH = 2**16


class Runtime:
    """A model in onnxruntime, on the CPU.

    Args:
        outputs: names of values to return, also of such inside the graph; its outputs if None.
        threads: how many threads it may use, 0 for onnxruntime's choice.
        fused: compute quantised layers in 8-bit kernels, as it does for its other users, instead
            of as the graph says it: faster, and not exact enough to hold others against.

    Attributes:
        path: the model's file.

    Raises:
        ModelError: onnxruntime cannot load the model.
    """

    def __init__(
        self,
        model: Model,
        outputs: Sequence[str] | None = None,
        threads: int = 0,
        *,
        fused: bool = False,
    ) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = _FATAL_ONLY
        options.intra_op_num_threads = threads
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", model.folder
        )
        # 8-bit kernels in place of quantised layers saturate on processors without VNNI (0.27 of
        # the scale was seen).
        options.add_session_config_entry("session.disable_quant_qdq", "0" if fused else "1")
        self.outputs = model.outputs if outputs is None else tuple(outputs)
        inner = set(self.outputs) - set(model.outputs)
        is_newer = model.opsets[""] > _OLD_OPSET or model.proto.ir_version > _OLD_IR
        # A file that is a link says where its data lies beside the link, not where that leads.
        if inner or (IS_OLD and is_newer) or (model.files[1:] and model.path.is_symlink()):
            source: str | bytes = _with_outputs(model, sorted(inner))
        else:
            source = str(model.path)
        try:
            self._session = ort.InferenceSession(
                source, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors share no base class
            raise ModelError(
                f"{model.path}: onnxruntime cannot load it: {shortened(error)}"
            ) from error
        self.path = model.path
        sizes = [spec.shape[0] for spec in model.inputs if spec.shape]
        self._fixed = next((size for size in sizes if size is not None), None)
        if self._fixed is not None and self._fixed > _LARGEST_BATCH:
            raise ModelError(
                f"{model.path}: takes batches of {self._fixed:,} samples; more than "
                f"{_LARGEST_BATCH:,} are not made. Export it with a dynamic batch size."
            )

    @property
    def batch(self) -> int | None:
        """How many samples the graph takes at once; None for any, as far as was seen until now."""
        return self._fixed

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """The outputs by name, for any number of samples along axis 0.

        What is no tensor of numbers, as the names of classes are none, is left out. A graph with a
        fixed batch size is run as often as it takes, and so is one that says any, and fails on all
        but 1; an output whose size differs from run to run, as of detections, is left out then.

        Raises:
            ModelError: onnxruntime fails on these inputs.
        """
        count = len(next(iter(inputs.values()))) if inputs else 0
        if self._fixed is None:
            try:
                return self._once(inputs)
            except ModelError:
                if count < 2 or not self._takes_one(inputs):
                    raise
            self._fixed = 1
        if count == self._fixed:
            return self._once(inputs)
        parts = []
        for start in range(0, count, self._fixed):
            chosen = np.arange(start, start + self._fixed).clip(max=count - 1)
            parts.append(self._once({name: value[chosen] for name, value in inputs.items()}))
        joined = {name: self._join([part[name] for part in parts], count) for name in parts[0]}
        return {name: values for name, values in joined.items() if values is not None}

    def _takes_one(self, inputs: Arrays) -> bool:
        """Whether a single sample can be run: a batch of one may be written into the graph."""
        try:
            self._once({name: value[:1] for name, value in inputs.items()})
        except ModelError:
            return False
        return True

    def _once(self, inputs: Arrays) -> dict[str, Array]:
        try:
            results = self._session.run(list(self.outputs), dict(inputs))
        except Exception as error:  # onnxruntime's errors share no base class
            raise ModelError(
                f"{self.path}: onnxruntime cannot run it: {shortened(error)}"
            ) from error
        found = dict(zip(self.outputs, results, strict=True))
        return {name: values for name, values in found.items() if _is_numeric(values)}

    def _join(self, parts: Sequence[Array], count: int) -> Array | None:
        """Results of single runs as one: along their batch axis, or a new one if they have none."""
        if len({part.shape for part in parts}) > 1:
            return None
        if parts[0].ndim and parts[0].shape[0] == self._fixed:
            return np.concatenate(parts)[:count]
        return np.stack(parts)


def as_arrays(batch: Mapping[str, Tensor]) -> dict[str, Array]:
    """What onnxruntime takes, from tensors on the CPU."""
    return {name: np.ascontiguousarray(value.numpy()) for name, value in batch.items()}


def check_finite(path: Path, outputs: Arrays) -> None:
    """See that a network's outputs are numbers.

    Raises:
        ModelError: one has NaN or Inf.
    """
    for name, values in outputs.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ModelError(
                f"{path}: output {name!r} has NaN or Inf on this data. "
                "Check the weights and the preprocessing."
            )


def converted(model: Model, proto: onnx.ModelProto, oldest: int = 1) -> onnx.ModelProto:
    """What was made of a model, in an opset and IR version that onnxruntime 1.19 takes.

    Args:
        oldest: the least opset it may have.

    Raises:
        ModelError: it cannot be converted.
    """
    opset = model.opsets[""]
    target = min(max(opset, oldest), _OLD_OPSET)
    proto.ir_version = min(proto.ir_version, _OLD_IR)
    if target == opset:
        return proto
    try:
        proto = onnx.version_converter.convert_version(proto, target)
    except Exception as error:  # the converter's errors share no base class
        raise ModelError(
            f"{model.path}: opset {opset} cannot be converted to {target}, as onnxruntime for "
            f"training needs it: {shortened(error)}. Export it with opset {target}, or use "
            "--engine torch, with the usual onnxruntime."
        ) from error
    proto.ir_version = min(proto.ir_version, _OLD_IR)
    return proto


def _is_numeric(values: object) -> bool:
    """Whether a result is a tensor of numbers: neither of texts, nor a sequence, nor a map."""
    return isinstance(values, np.ndarray) and values.dtype.kind not in "OSU"


def _with_outputs(model: Model, names: Sequence[str]) -> bytes:
    """The model with more of its values as outputs."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    if IS_OLD:  # it looks for data beside files alone
        for _, tensor in stored_tensors(proto.graph):
            if uses_external_data(tensor):
                take_in(tensor, model.folder)
    known = {value.name for value in proto.graph.output}
    for name in names:
        if name not in known:
            proto.graph.output.add(name=name)
    return (converted(model, proto) if IS_OLD else proto).SerializeToString()
