"""LOAD: what a file has to hold to before anything is made of it: it may be anybody's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from fcpts_onnx.branches import bodies
from fcpts_onnx.errors import ModelError
from fcpts_onnx.texts import shortened

__all__ = ["OLDEST_OPSET", "check", "follow_links"]

OLDEST_OPSET = 7

_MOST_NODES = 2**20  # with the functions of the model in their place
_DEEPEST = 30  # graphs and functions inside each other; protobuf reads little more


def check(path: Path, proto: ModelProto) -> None:
    """See that a model is valid and can be handled safely, whoever made it.

    Raises:
        ModelError: it is not a valid ONNX model, its opset is unknown, it has unknown types, its
            external data is missing or lies outside its folder, or its functions never end.
    """
    if not proto.graph.node:
        raise ModelError(f"{path}: not an ONNX model, or one without a single node.")
    _check_opset(path, proto)
    _check_types(path, proto)
    _check_external_data(path, proto)
    _check_functions(path, proto)
    try:
        onnx.checker.check_model(_checkable(path, proto))
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise ModelError(f"{path}: not a valid ONNX model: {shortened(error)}") from error


def follow_links(path: Path, proto: ModelProto) -> None:
    """Name external data by where it is, where the model's folder has a link to it.

    So it is in the cache of the Hugging Face hub, as the model itself is: onnx reads no links, and
    links out of the folder that the model's file is really in are not followed here either.
    """
    folder = path.resolve().parent
    for tensor in filter(uses_external_data, _tensors(proto.graph)):
        for entry in (entry for entry in tensor.external_data if entry.key == "location"):
            target = _link(path.parent, entry.value)
            if target is not None and target.is_relative_to(folder):
                entry.value = str(target.relative_to(folder))


def _link(folder: Path, location: str) -> Path | None:
    """Where a link inside a folder leads, if it is one."""
    place = Path(location)
    if place.is_absolute() or ".." in place.parts:
        return None
    try:
        return (folder / place).resolve() if (folder / place).is_symlink() else None
    except (OSError, ValueError):  # no name of a file, which `check` says
        return None


def _check_opset(path: Path, proto: ModelProto) -> None:
    newest = onnx.defs.onnx_opset_version()
    stated = {entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")}
    if len(stated) != 1 or not OLDEST_OPSET <= min(stated) <= newest:
        found = " and ".join(map(str, sorted(stated)))
        found = f"has opset {found}" if stated else "states no opset"
        raise ModelError(
            f"{path}: {found}; supported are {OLDEST_OPSET} to {newest} "
            f"(onnx {onnx.__version__}). Export it with one of these."
        )


def _check_types(path: Path, proto: ModelProto) -> None:
    """See that every element type is one that ONNX has."""
    known = set(TensorProto.DataType.values()) - {TensorProto.UNDEFINED}
    stated = [(value.name, value.type.tensor_type.elem_type) for value in _interface(proto.graph)]
    stated += [(tensor.name, tensor.data_type) for tensor in _tensors(proto.graph)]
    for name, kind in stated:
        if kind not in known:
            raise ModelError(
                f"{path}: {name!r} has element type {kind}, which ONNX does not have. "
                "Export the model again."
            )


def _check_external_data(path: Path, proto: ModelProto) -> None:
    """See that what is stored beside the file is there, in the folder of the file or below."""
    for tensor in filter(uses_external_data, _tensors(proto.graph)):
        try:
            location = ExternalDataInfo(tensor).location
        except ValueError as error:
            raise ModelError(
                f"{path}: the external data of {tensor.name!r} is not stated right: {error}."
            ) from error
        where = f"{path}: the external data of {tensor.name!r}, {location!r},"
        try:
            folder = path.resolve().parent
            target = folder / location
            inside = not Path(location).is_absolute() and target.resolve().is_relative_to(folder)
            present = inside and target.is_file()
        except (OSError, ValueError) as error:
            raise ModelError(f"{where} is no name of a file: {error}.") from error
        if not inside:
            raise ModelError(f"{where} lies outside the model's folder, which is not allowed.")
        if not present:
            raise ModelError(f"{where} is missing. Put the file beside the model.")
    in_functions = (tensor for entry in proto.functions for tensor in _inside(entry.node))
    for tensor in (*_sparse(proto.graph), *in_functions):
        if uses_external_data(tensor):
            raise ModelError(
                f"{path}: {tensor.name!r} has external data inside a function or a sparse "
                "tensor, which is not supported. Store it in the model."
            )


def _check_functions(path: Path, proto: ModelProto) -> None:
    """See that functions of the model, put in the place of their calls, come to an end.

    A few that call each other twice make more nodes than any memory holds.
    """
    functions = {(entry.domain, entry.name): entry for entry in proto.functions}
    sizes: dict[tuple[str, str], tuple[int, int]] = {}  # nodes, and how deep they lie

    def measured(nodes: Iterable[NodeProto], level: int) -> tuple[int, int]:
        count, deepest = 0, 0
        for node in nodes:
            key = node.domain, node.op_type
            inside = [measured(body.node, level + 1) for body in bodies(node)]
            if level <= _DEEPEST and key in functions:
                if key not in sizes:
                    sizes[key] = measured(functions[key].node, level + 1)
                inside.append(sizes[key])
            count += 1 + sum(nodes for nodes, _ in inside)
            deepest = max(deepest, *(1 + depth for _, depth in inside), 0)
            if level + deepest > _DEEPEST or count > _MOST_NODES:
                raise ModelError(
                    f"{path}: with functions in the place of their calls the graph has more than "
                    f"{_MOST_NODES:,} nodes, or lies more than {_DEEPEST} deep, or never ends "
                    f"({node.op_type!r}). Export it without functions."
                )
        return count, deepest

    if functions:
        measured(proto.graph.node, 0)


def _checkable(path: Path, proto: ModelProto) -> str | ModelProto:
    """What to give to the checker: the file, or a copy with all that it insists on.

    That is a shape for inputs and outputs, which no runtime needs, and data that is not external:
    it is checked already, and would be looked for beside a link to the model.
    """
    has_shapes = all(v.type.tensor_type.HasField("shape") for v in _interface(proto.graph))
    if has_shapes and not any(map(uses_external_data, _tensors(proto.graph))):
        return str(path)
    copy = ModelProto()
    copy.CopyFrom(proto)
    for value in _interface(copy.graph):
        value.type.tensor_type.shape.SetInParent()
    for tensor in _tensors(copy.graph):
        if uses_external_data(tensor):
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")
            del tensor.dims[:]
            tensor.dims.append(0)
    return copy


def _interface(graph: GraphProto) -> Iterator[ValueInfoProto]:
    """The graph's inputs and outputs that are tensors."""
    for value in (*graph.input, *graph.output):
        if value.type.HasField("tensor_type"):
            yield value


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Every dense tensor of a graph and of the graphs inside it."""
    yield from graph.initializer
    yield from _inside(graph.node)


def _inside(nodes: Iterable[NodeProto]) -> Iterator[TensorProto]:
    """Every dense tensor inside nodes."""
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for body in bodies(node):
            yield from _tensors(body)


def _sparse(graph: GraphProto) -> Iterator[TensorProto]:
    """The parts of every sparse tensor of a graph and of the graphs inside it."""
    sparse = [*graph.sparse_initializer]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("sparse_tensor"):
                sparse.append(attribute.sparse_tensor)
            sparse.extend(attribute.sparse_tensors)
        for body in bodies(node):
            yield from _sparse(body)
    for tensor in sparse:
        yield from (tensor.values, tensor.indices)
