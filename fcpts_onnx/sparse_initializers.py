"""LOAD, WRITE: initializers of which a file stores only the values that are not zero."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Set
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.external_data_helper import uses_external_data

from fcpts_onnx.errors import ModelError, OutputError

__all__ = ["check_storage", "densified", "store_sparse"]

_OLDEST_IR = 6  # that has sparse initializers
# Of which onnxruntime reads sparse ones.
_NUMBERS = {
    onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16, onnx.TensorProto.INT8, onnx.TensorProto.UINT8,
}  # fmt: skip
_MOST_BYTES = 2**31  # of one tensor: no more fits into a file when it is dense


def densified(path: Path, proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its sparse initializers stored dense; itself where it has none.

    Raises:
        ModelError: one is too large, or its places are not in its shape.
    """
    if not proto.graph.sparse_initializer:
        return proto
    dense = onnx.ModelProto()
    dense.CopyFrom(proto)
    try:
        dense.graph.initializer.extend(map(_as_dense, proto.graph.sparse_initializer))
    except (ValueError, IndexError) as error:
        raise ModelError(f"{path}: a sparse initializer cannot be read: {error}") from error
    dense.graph.ClearField("sparse_initializer")
    return dense


def check_storage(storage: str, path: Path, proto: onnx.ModelProto) -> None:
    """See that a model may be stored "dense" or "sparse".

    Raises:
        OutputError: it is neither, the model's IR version knows no sparse initializers, or it has
            most of its weights where these cannot be.
    """
    if storage not in ("dense", "sparse"):
        raise OutputError(f"The storage is {storage!r}; expected dense or sparse.")
    if storage == "dense":
        return
    if proto.ir_version < _OLDEST_IR:
        raise OutputError(
            f"{path}: IR version {proto.ir_version} has no sparse initializers, {_OLDEST_IR} is "
            "the first. Export it with a newer onnx, or use --storage dense."
        )
    dense, count = _values_that_stay_dense(proto.graph)
    if 2 * dense > count:
        raise OutputError(
            f"{path}: {dense:,} of {count:,} values of weights lie in external data, in Constant "
            "nodes or in inputs of the graph, where they stay dense. Save it with initializers "
            "inside the file, or use --storage dense."
        )


def store_sparse(graph: onnx.GraphProto, names: Collection[str]) -> None:
    """Store those of some initializers sparse that take fewer bytes so.

    Each value takes 8 bytes more for its place (ONNX has them as int64). Left dense is what has
    external data, is an input too, or lies in a Constant node.
    """
    inputs = {value.name for value in graph.input}
    kept = []
    for tensor in graph.initializer:
        asked = tensor.name in names and _may_be_sparse(tensor, inputs)
        sparse = _as_sparse(tensor) if asked else None
        if sparse is not None and sparse.ByteSize() < tensor.ByteSize():
            graph.sparse_initializer.append(sparse)
        else:
            kept.append(tensor)
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _may_be_sparse(tensor: onnx.TensorProto, inputs: Set[str]) -> bool:
    """Whether an initializer may be stored sparse, beside inputs of these names."""
    inside = tensor.name not in inputs and not uses_external_data(tensor)
    return inside and tensor.data_type in _NUMBERS


def _values_that_stay_dense(graph: onnx.GraphProto) -> tuple[int, int]:
    """Of tensors of two axes or more: values that may not be stored sparse, and all values."""
    inputs = {value.name for value in graph.input}
    sparse = [tensor for tensor in graph.initializer if _may_be_sparse(tensor, inputs)]
    constants = (
        attribute.t
        for node in graph.node
        for attribute in node.attribute
        if node.op_type == "Constant" and attribute.name == "value"
    )
    count = _count((*graph.initializer, *constants))
    return count - _count(sparse), count


def _count(tensors: Iterable[onnx.TensorProto]) -> int:
    """The values of those that are weights by their type and shape."""
    return sum(
        math.prod(tensor.dims)
        for tensor in tensors
        if len(tensor.dims) > 1 and tensor.data_type in _NUMBERS
    )


def _as_sparse(tensor: onnx.TensorProto) -> onnx.SparseTensorProto:
    """Values that are not zero, with their places in the flattened tensor."""
    values = numpy_helper.to_array(tensor).reshape(-1)
    places = np.flatnonzero(values)
    return onnx.SparseTensorProto(
        values=_renewed(tensor, values[places]),
        indices=numpy_helper.from_array(places.astype(np.int64)),
        dims=tensor.dims,
    )


def _as_dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    name, shape = sparse.values.name, tuple(sparse.dims)
    if sparse.indices.data_type != onnx.TensorProto.INT64:
        raise ValueError(f"{name!r} has places that are not of type int64.")
    values, places = (numpy_helper.to_array(part) for part in (sparse.values, sparse.indices))
    size = math.prod(shape) * values.itemsize
    if not 0 <= size <= _MOST_BYTES:
        raise ValueError(f"{name!r} states the shape {list(shape)}, {size:,} bytes when dense.")
    dense = np.zeros(shape, values.dtype)
    if places.ndim == 1:
        dense.reshape(-1)[places] = values
    else:
        dense[tuple(places.T)] = values
    return _renewed(sparse.values, dense)


def _renewed(tensor: onnx.TensorProto, values: np.ndarray[Any, Any]) -> onnx.TensorProto:
    """A tensor with other values; its name and what is said of it stay."""
    renewed = numpy_helper.from_array(values, tensor.name)
    if tensor.HasField("doc_string"):
        renewed.doc_string = tensor.doc_string
    renewed.metadata_props.extend(tensor.metadata_props)
    return renewed
