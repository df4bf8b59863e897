"""RUN: onnxruntime sessions, the oracle, fed with any number of samples."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from fcpts_onnx.errors import ModelError
from fcpts_onnx.model import Model

__all__ = ["Runtime", "check_finite"]

# Without this, onnxruntime refuses opsets that the installed onnx knows but has not released.
os.environ.setdefault("ALLOW_RELEASED_ONNX_OPSET_ONLY", "0")
_ERRORS_ONLY = 3
_LONGEST_REASON = 400


class Runtime:
    """A model in onnxruntime, on the CPU.

    Args:
        inner: names of values inside the graph to return as well as its outputs.
        threads: how many threads it may use, 0 for onnxruntime's choice.

    Raises:
        ModelError: onnxruntime cannot load the model.
    """

    def __init__(self, model: Model, inner: Sequence[str] = (), threads: int = 0) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.intra_op_num_threads = threads
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", model.folder
        )
        source = _with_outputs(model, inner) if inner else str(model.path)
        try:
            self._session = ort.InferenceSession(
                source, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors share no base class
            raise ModelError(
                f"{model.path}: onnxruntime cannot load it: {_reason(error)}"
            ) from error
        self.outputs = tuple(value.name for value in self._session.get_outputs())
        self._path = model.path
        sizes = [spec.shape[0] for spec in model.inputs if spec.shape]
        self._fixed = next((size for size in sizes if size is not None), None)

    def run(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """The outputs by name, for any number of samples along axis 0.

        A graph with a fixed batch size is run as often as it takes.

        Raises:
            ModelError: onnxruntime fails on these inputs.
        """
        count = len(next(iter(inputs.values()))) if inputs else 0
        if self._fixed is None or count == self._fixed:
            return self._once(inputs)
        parts = []
        for start in range(0, count, self._fixed):
            chosen = np.arange(start, start + self._fixed).clip(max=count - 1)
            parts.append(self._once({name: value[chosen] for name, value in inputs.items()}))
        return {name: self._join([part[name] for part in parts], count) for name in self.outputs}

    def _once(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        try:
            results = self._session.run(None, dict(inputs))
        except Exception as error:  # onnxruntime's errors share no base class
            raise ModelError(
                f"{self._path}: onnxruntime cannot run it: {_reason(error)}"
            ) from error
        return dict(zip(self.outputs, results, strict=True))

    def _join(self, parts: Sequence[np.ndarray[Any, Any]], count: int) -> np.ndarray[Any, Any]:
        """Results of single runs as one: along their batch axis, or a new one if they have none."""
        if parts[0].ndim and parts[0].shape[0] == self._fixed:
            return np.concatenate(parts)[:count]
        return np.stack(parts)


def check_finite(path: Path, outputs: Mapping[str, np.ndarray[Any, Any]]) -> None:
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


def _reason(error: Exception) -> str:
    """onnxruntime's message on one line, without end."""
    text = " ".join(str(error).split())
    return text if len(text) <= _LONGEST_REASON else text[:_LONGEST_REASON] + " ..."


def _with_outputs(model: Model, names: Sequence[str]) -> bytes:
    """The model with more of its values as outputs."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    known = {value.name for value in proto.graph.output}
    for name in names:
        if name not in known:
            proto.graph.output.add(name=name)
    return proto.SerializeToString()
