"""LOAD: path -> Model, the ModelProto with its graph view, its constants and its external data."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from google.protobuf.message import DecodeError
from onnx.external_data_helper import ExternalDataInfo, uses_external_data
from onnx_graphsurgeon.logger import G_LOGGER

from fcpts_onnx.branches import bodies, branches_taken, with_branches_inlined
from fcpts_onnx.checks import check, follow_links
from fcpts_onnx.errors import ModelError
from fcpts_onnx.functions import domain_of, with_functions_inlined
from fcpts_onnx.sequences import with_sequences_cut
from fcpts_onnx.sparse_initializers import densified

__all__ = [
    "STAMP",
    "InputSpec",
    "Model",
    "PathLike",
    "external_bytes",
    "image_axes",
    "load",
    "stored_tensors",
    "take_in",
]

logger = logging.getLogger(__name__)

_DIGEST_BYTES = 16
_TRAINING_MODE = 14  # the opset from which on it is an attribute of batch norms
PathLike = str | os.PathLike[str]

STAMP = "fcpts-onnx"
"""The entry of a file's metadata that says how it was made sparse."""


@dataclass(frozen=True)
class InputSpec:
    """What the graph states of one input.

    Attributes:
        name: the input's name.
        dtype: its numpy dtype.
        shape: one entry a dimension, None where the graph leaves it open; None when the graph
            states no shape at all.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...] | None


def image_axes(shape: Sequence[int | None]) -> tuple[int, ...]:
    """The axes of height and width of images; none where the shape is not that of any."""
    if len(shape) != 4:
        return ()
    return (1, 2) if shape[3] in (1, 3) and shape[1] not in (1, 3) else (2, 3)


@dataclass(frozen=True, eq=False)
class Model:
    """A loaded ONNX model. External data stays on disk until `array` asks for it.

    Attributes:
        path: the file it came from.
        proto: the model as stored, but for sparse initializers, which are dense here, and links to
            external data, which are followed; nothing in the package changes it.
    """

    path: Path
    proto: onnx.ModelProto

    @property
    def folder(self) -> str:
        """The folder that external data is relative to."""
        return str(self.path.resolve().parent)

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """The model's file and those of its external data."""
        locations = dict.fromkeys(
            ExternalDataInfo(tensor).location
            for _, tensor in stored_tensors(self.proto.graph)
            if uses_external_data(tensor)
        )
        return (self.path, *(Path(self.folder) / location for location in locations))

    @property
    def file_bytes(self) -> int:
        """What its files take."""
        return sum(file.stat().st_size for file in self.files)

    def digest(self) -> str:
        """What stands for the content of its files, as it is now.

        Raises:
            ModelError: one cannot be read.
        """
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        for file in self.files:
            try:
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "blake2b").digest())
            except OSError as error:
                raise ModelError(f"{file}: cannot be read: {error.strerror}.") from error
        return digest.hexdigest()

    @cached_property
    def opsets(self) -> dict[str, int]:
        """Opset version by domain; the default domain is the empty string."""
        return {domain_of(entry.domain): entry.version for entry in self.proto.opset_import}

    @cached_property
    def graph(self) -> gs.Graph:
        """The onnx-graphsurgeon view: nodes and tensors linked both ways, in the file's order."""
        # graphsurgeon writes its remarks (bfloat16, empty names) to the terminal of the user.
        G_LOGGER.severity = G_LOGGER.CRITICAL
        proto = _with_inner_data(self)
        try:
            graph = gs.import_onnx(proto)
        except Exception as error:  # it takes a graph's attributes and types to be right
            reason = f"{type(error).__name__}: {error}"
            raise ModelError(f"{self.path}: its graph cannot be read, {reason}") from error
        return _normalised(graph, self.opsets.get("", 1))

    @cached_property
    def tensors(self) -> dict[str, onnx.TensorProto]:
        """Constant tensors of the main graph by name: initializers and Constant nodes' values."""
        return _constant_tensors(self.proto.graph)

    @cached_property
    def inputs(self) -> tuple[InputSpec, ...]:
        """The graph's inputs, less those that are initializers too (IR version 3)."""
        initializers = {tensor.name for tensor in self.proto.graph.initializer}
        return tuple(
            _input_spec(value) for value in self.proto.graph.input if value.name not in initializers
        )

    def inlined(self, implemented: Collection[tuple[str, str]] = ()) -> Model:
        """The same model as one graph: functions, and branches that always run, in their place.

        Functions are the model's own, and operators that ONNX defines by functions. Where parts of
        a sequence are read, these are cut out of what it is made of.

        Args:
            implemented: (domain, name) of the operators that stay although ONNX defines them by a
                function.
        """
        proto = with_branches_inlined(with_functions_inlined(self.proto, implemented))
        proto = with_sequences_cut(proto)
        return self if proto is self.proto else Model(self.path, proto)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the graph's outputs."""
        return tuple(value.name for value in self.proto.graph.output)

    def array(self, name: str) -> np.ndarray[Any, Any]:
        """The value of a constant tensor of the main graph, read from its file if it is external.

        Raises:
            ModelError: its stored bytes do not fit its shape.
        """
        return _tensor_array(self.tensors[name], self.folder)


def load(path: str | os.PathLike[str]) -> Model:
    """Read an ONNX file and check it.

    Raises:
        ModelError: the file cannot be read, is not an ONNX model or is cut short, or `check`
            refuses it.
    """
    path = Path(path)
    try:
        # Without a format, onnx goes by the suffix and reads other things than binary models too.
        proto = onnx.load_model(str(path), format="protobuf", load_external_data=False)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}. Name an ONNX file.") from error
    except DecodeError as error:
        raise ModelError(
            f"{path}: not an ONNX model, or cut short ({path.stat().st_size} bytes), or with "
            "graphs inside graphs more than 30 deep. Export or copy it again."
        ) from error
    follow_links(path, proto)
    check(path, proto)
    model = Model(path, densified(path, proto))
    logger.info("read %s: %d nodes, opsets %s", path, len(proto.graph.node), model.opsets)
    return model


def _tensor_array(tensor: onnx.TensorProto, folder: str) -> np.ndarray[Any, Any]:
    """The value of a TensorProto; its own bytes stay as they are (`folder`: of external data).

    Raises:
        ModelError: the stored bytes do not fit the shape, or cannot be read.
    """
    if uses_external_data(tensor):
        # Reading fills in the proto it is given; a copy of the small stub keeps the model small.
        stub = onnx.TensorProto()
        stub.CopyFrom(tensor)
        tensor = stub
    try:
        return onnx.numpy_helper.to_array(tensor, folder)
    except (ValueError, TypeError, OSError, onnx.checker.ValidationError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"Tensor {tensor.name!r} cannot be read: {reason}") from error


def external_bytes(tensor: onnx.TensorProto, folder: str) -> bytes:
    """The stored bytes of a tensor with external data, as they are.

    Raises:
        ModelError: the file is shorter than the tensor says.
    """
    info = ExternalDataInfo(tensor)
    try:
        with (Path(folder) / info.location).open("rb") as file:
            file.seek(info.offset or 0)
            content = file.read(info.length if info.length is not None else -1)
    except OSError as error:
        raise ModelError(f"Tensor {tensor.name!r} cannot be read: {error.strerror}.") from error
    if info.length is not None and len(content) != info.length:
        raise ModelError(
            f"Tensor {tensor.name!r} has {len(content)} of {info.length} bytes in "
            f"{info.location}. Copy the file again."
        )
    return content


def _constant_tensors(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Constant tensors of one graph by name: initializers and Constant nodes' values."""
    return {name: tensor for name, tensor in stored_tensors(graph) if name is not None}


def stored_tensors(graph: onnx.GraphProto) -> Iterator[tuple[str | None, onnx.TensorProto]]:
    """Every stored dense tensor of a graph and of the graphs inside it.

    The constants of the graph itself, and of branches that always run, come with the name they
    have in it, all others with None.
    """
    yield from _stored(graph, branches_taken(graph), named=True)


def _stored(
    graph: onnx.GraphProto, taken: Mapping[int, onnx.GraphProto], *, named: bool
) -> Iterator[tuple[str | None, onnx.TensorProto]]:
    for tensor in graph.initializer:
        yield tensor.name if named else None, tensor
    for place, node in enumerate(graph.node):
        is_constant = named and node.op_type == "Constant" and not domain_of(node.domain)
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield node.output[0] if is_constant else None, attribute.t
            yield from ((None, tensor) for tensor in attribute.tensors)
        for body in bodies(node):
            yield from _stored(body, {}, named=body is taken.get(place))


def take_in(tensor: onnx.TensorProto, folder: str) -> None:
    """Bring the external data of a tensor into itself.

    Raises:
        ModelError: the file is shorter than the tensor says.
    """
    content = external_bytes(tensor, folder)
    tensor.ClearField("data_location")
    tensor.ClearField("external_data")
    tensor.raw_data = content


def _with_inner_data(model: Model) -> onnx.ModelProto:
    """The model with the external data of tensors inside nodes, which have no name to ask for."""
    if not any(n is None and uses_external_data(t) for n, t in stored_tensors(model.proto.graph)):
        return model.proto
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for name, tensor in list(stored_tensors(proto.graph)):
        if name is None and uses_external_data(tensor):
            take_in(tensor, model.folder)
    return proto


def _normalised(graph: gs.Graph, opset: int) -> gs.Graph:
    """The graph with one name for the default domain, in the graphs inside it too.

    That a batch norm computes as in training is an attribute of it, as from opset 14 on; before,
    its further outputs say so.
    """
    for node in graph.nodes:
        node.domain = domain_of(node.domain or "")
        is_norm = node.op == "BatchNormalization" and not node.domain
        if is_norm and opset < _TRAINING_MODE and len(node.outputs) > 1:
            node.attrs["training_mode"] = 1
        for value in node.attrs.values():
            if isinstance(value, gs.Graph):
                _normalised(value, opset)
    return graph


def _input_spec(value: onnx.ValueInfoProto) -> InputSpec:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        raise ModelError(f"Input {value.name!r} is not a tensor; only tensors can be calibrated.")
    shape = None
    if tensor.HasField("shape"):
        # A size of 0 or below is what some exporters write for an open dimension.
        shape = tuple(
            dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None
            for dim in tensor.shape.dim
        )
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    if dtype.kind not in "fiub" and dtype.name != "bfloat16":
        raise ModelError(
            f"Input {value.name!r} is of type {dtype}; only numbers can be calibrated."
        )
    return InputSpec(value.name, dtype, shape)
