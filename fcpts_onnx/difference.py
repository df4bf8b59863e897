"""CHECK: what differs between two files: values of constant tensors, and parts of the rest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import Message
from onnx import TensorProto
from onnx.external_data_helper import uses_external_data

from fcpts_onnx.model import STAMP, Model, stored_tensors, take_in
from fcpts_onnx.results import Difference, TensorDifference
from fcpts_onnx.weights import find_weights

Array = np.ndarray[Any, Any]

__all__ = ["difference", "differing_parts", "differing_tensors"]


def difference(first: Model, second: Model) -> Difference:
    """All that differs between two files."""
    one, two = first.tensors.keys(), second.tensors.keys()
    return Difference(
        str(first.path),
        str(second.path),
        tuple(_tensors(first, second)),
        tuple(name for name in first.tensors if name not in two),
        tuple(name for name in second.tensors if name not in one),
        differing_parts(first, second),
    )


def differing_tensors(first: Model, second: Model) -> tuple[str, ...]:
    """The constant tensors of both main graphs whose types, shapes or values differ, in order.

    Where and how values are stored (inline or external) does not count.
    """
    changed = []
    for name in (name for name in first.tensors if name in second.tensors):
        here, there = first.array(name), second.array(name)
        if not _are_same(here, there):
            changed.append(name)
    return tuple(changed)


def _are_same(here: Array, there: Array) -> bool:
    if here.dtype != there.dtype or here.shape != there.shape:
        return False
    if here.dtype.hasobject:  # texts, whose bytes lie elsewhere
        return here.tolist() == there.tolist()
    return here.tobytes() == there.tobytes()


def differing_parts(first: Model, second: Model) -> tuple[str, ...]:
    """The fields of the files that differ, but for the values of tensors and a stamp of ours."""
    one, two = _bare(first), _bare(second)
    found = tuple(sorted(_fields_apart(one, two)))
    return found or (() if one == two else ("fields of a newer ONNX",))


def _tensors(first: Model, second: Model) -> Iterator[TensorDifference]:
    points = [_zero_points(model) for model in (first, second)]
    for name in differing_tensors(first, second):
        here, there = first.array(name), second.array(name)
        same_shape = here.shape == there.shape
        changed, largest = _values_apart(here, there) if same_shape else (None, None)
        yield TensorDifference(
            name,
            (f"{here.dtype}{list(here.shape)}", f"{there.dtype}{list(there.shape)}"),
            (here.size, there.size),
            (_zeros(here, points[0].get(name)), _zeros(there, points[1].get(name))),
            changed,
            largest,
        )


def _zero_points(model: Model) -> dict[str, Array]:
    """What is stored for a zero, by weight that is stored as integers."""
    return {w.name: w.grid.zero_point for w in find_weights(model) if w.grid is not None}


def _zeros(values: Array, point: Array | None) -> int:
    return int(np.sum(values == (0 if point is None else point)))


def _values_apart(here: Array, there: Array) -> tuple[int, float | None]:
    """How many values differ, and the largest difference of two that are finite."""
    apart = np.atleast_1d(here != there)
    if "O" in (here.dtype.kind, there.dtype.kind):  # texts
        return int(apart.sum()), None
    one, two = (np.atleast_1d(values.astype(np.float64)) for values in (here, there))
    apart &= ~(np.isnan(one) & np.isnan(two))
    finite = apart & np.isfinite(one) & np.isfinite(two)
    if apart.any() and not finite.any():
        return int(apart.sum()), None
    return int(apart.sum()), float(np.abs(one[finite] - two[finite]).max(initial=0.0))


def _fields_apart(first: Message, second: Message) -> Iterator[str]:
    one, two = ({field.name: value for field, value in m.ListFields()} for m in (first, second))
    for name in one.keys() | two.keys():
        if name == "graph":
            yield from (f"graph.{part}" for part in _fields_apart(one[name], two[name]))
        elif one.get(name) != two.get(name):
            yield name


def _bare(model: Model) -> onnx.ModelProto:
    """A model without the values of its constants; only their names, types, shapes and texts.

    Tensors inside the graphs of nodes keep their values, wherever these are stored.
    """
    bare = onnx.ModelProto()
    _copy_fields(model.proto, bare, but="graph")
    unstamped = [entry for entry in model.proto.metadata_props if entry.key != STAMP]
    del bare.metadata_props[:]
    bare.metadata_props.extend(unstamped)
    _copy_fields(model.proto.graph, bare.graph, but="initializer")  # it may be gigabytes
    # Their order says nothing, and is another where some are stored sparse.
    for tensor in sorted(model.proto.graph.initializer, key=lambda tensor: tensor.name):
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
    """A tensor's name, type and shape, and what is said of it."""
    return onnx.TensorProto(
        name=tensor.name,
        data_type=tensor.data_type,
        dims=tensor.dims,
        doc_string=tensor.doc_string,
        metadata_props=tensor.metadata_props,
    )
