"""MEASURE: what runs a model: onnxruntime, and MNN without and with kernels that skip zeros."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fcpts_onnx.errors import FcptsError, ModelError
from fcpts_onnx.model import load
from fcpts_onnx.runtime import Arrays, Runtime

__all__ = ["ENGINES", "Engine", "check_installed"]

_CONVERT = "import sys, _tools; _tools.mnnconvert(sys.argv)"
_LONGEST_REASON = 300


class Engine(Protocol):
    """A model on one engine, in the engine's own form.

    Attributes:
        bytes: what that form takes.
    """

    bytes: int

    def load(self) -> None:
        """Make the model ready, with its inputs in place; anew, if it was."""

    def run(self) -> None:
        """Run the model once."""

    def outputs(self) -> dict[str, np.ndarray[Any, Any]]:
        """What a run gives, by name."""

    def layer_seconds(self) -> dict[str, float]:
        """One run, layer by layer, where the engine tells; else nothing."""


class _OnnxRuntime:
    """The ONNX file as it is, timed as applications run it; its outputs are the oracle."""

    def __init__(self, path: Path, inputs: Arrays, threads: int, folder: Path) -> None:
        del folder  # it needs no file
        self._model, self._inputs, self._threads = load(path), inputs, threads
        self.bytes = self._model.file_bytes

    def load(self) -> None:
        self._runtime = Runtime(self._model, threads=self._threads, fused=True)

    def run(self) -> None:
        self._runtime.run(self._inputs)

    def outputs(self) -> dict[str, np.ndarray[Any, Any]]:
        return Runtime(self._model, threads=self._threads).run(self._inputs)

    def layer_seconds(self) -> dict[str, float]:
        return {}


class _Mnn:
    """The file converted for MNN.

    Its converter is called as such: the program that comes with it, mnnconvert, installs packages
    for its authors' statistics into the environment and changes others there.
    """

    def __init__(self, path: Path, inputs: Arrays, threads: int, folder: Path, *flags: str) -> None:
        import MNN

        self._mnn, self._inputs, self._threads = MNN, inputs, threads
        self._kinds = {
            "float32": MNN.Halide_Type_Float,
            "uint8": MNN.Halide_Type_Uint8,
            "int32": MNN.Halide_Type_Int,
        }
        self._file = folder / "model.mnn"
        self._convert(path, self._file, flags)
        self.bytes = self._file.stat().st_size

    def load(self) -> None:
        self._model = self._mnn.Interpreter(str(self._file))
        settings = {"backend": "CPU", "numThread": self._threads}
        self._session = self._model.createSession(settings)
        for name, tensor in self._model.getSessionInputAll(self._session).items():
            self._model.resizeTensor(tensor, self._inputs[name].shape)
        self._model.resizeSession(self._session)
        for name, tensor in self._model.getSessionInputAll(self._session).items():
            tensor.copyFrom(self._on_host(self._inputs[name]))

    def run(self) -> None:
        self._model.runSession(self._session)

    def outputs(self) -> dict[str, np.ndarray[Any, Any]]:
        found = {}
        for name, tensor in self._model.getSessionOutputAll(self._session).items():
            kind = tensor.getDataType()
            dtype = next((name for name, own in self._kinds.items() if own == kind), "float32")
            host = self._on_host(np.zeros(tensor.getShape(), dtype))
            tensor.copyToHostTensor(host)
            found[name] = np.array(host.getNumpyData()).reshape(tensor.getShape())
        return found

    def layer_seconds(self) -> dict[str, float]:
        spent: dict[str, float] = {}
        started = 0.0

        def before(_: Any, __: Any) -> bool:
            nonlocal started
            started = time.perf_counter()
            return True

        def after(_: Any, layer: Any) -> bool:
            spent[layer.getName()] = time.perf_counter() - started
            return True

        self._model.runSessionWithCallBackInfo(self._session, before, after)
        return spent

    @staticmethod
    def _convert(path: Path, file: Path, flags: tuple[str, ...]) -> None:
        command = [
            sys.executable, "-c", _CONVERT, "-f", "ONNX", "--modelFile", str(path),
            "--MNNModel", str(file), "--bizCode", "fcpts", *flags,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
        if not file.exists():
            said = " ".join((done.stdout + done.stderr).split())[-_LONGEST_REASON:]
            raise ModelError(f"{path}: MNN cannot convert it: {said}")

    def _on_host(self, values: np.ndarray[Any, Any]) -> Any:
        if values.dtype.name not in self._kinds:
            raise ModelError(f"MNN takes no inputs of type {values.dtype}.")
        layout = self._mnn.Tensor_DimensionType_Caffe
        return self._mnn.Tensor(values.shape, self._kinds[values.dtype.name], values, layout)


def _mnn_sparse(path: Path, inputs: Arrays, threads: int, folder: Path) -> _Mnn:
    return _Mnn(path, inputs, threads, folder, "--detectSparseSpeedUp")


ENGINES: dict[str, Callable[[Path, Arrays, int, Path], Engine]] = {
    "ort": _OnnxRuntime,
    "mnn": _Mnn,
    "mnn-sparse": _mnn_sparse,
}
"""By name; mnn-sparse is MNN told to look for layers that its sparse kernels run faster.

Each takes a file, inputs by name, threads, and a folder for what it writes itself.
"""

_PACKAGES = {"ort": "onnxruntime", "mnn": "MNN", "mnn-sparse": "MNN"}


def check_installed(engine: str) -> None:
    """See that an engine is there.

    Raises:
        FcptsError: it is unknown, or its package is not installed; how to install it is said.
    """
    if engine not in ENGINES:
        raise FcptsError(f"The engine {engine!r} is unknown; expected {', '.join(ENGINES)}.")
    package = _PACKAGES[engine]
    if find_spec(package) is None:
        extra = f"fcpts-onnx[{package.lower()}]"
        raise FcptsError(
            f"The engine {engine} is not installed. Install it with: pip install '{extra}'"
        )
