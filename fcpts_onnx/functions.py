"""LOAD: functions in the place of their calls: the model's own, and those that ONNX defines."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress

import onnx
import onnx.inliner
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto

from fcpts_onnx.branches import bodies

__all__ = ["all_nodes", "domain_of", "with_functions_inlined"]

_Key = tuple[str, str]


def domain_of(name: str) -> str:
    """One name for the default domain, which may be stored in two ways."""
    return "" if name == "ai.onnx" else name


def with_functions_inlined(proto: ModelProto, implemented: Collection[_Key]) -> ModelProto:
    """The model with functions in the place of their calls; itself if it calls none.

    Args:
        implemented: (domain, name) of the operators that stay although ONNX defines them by a
            function; all of them where it is empty.
    """
    calls = {_key(node) for node in all_nodes(proto.graph)}
    own = {(domain_of(entry.domain), entry.name) for entry in proto.functions}
    apart = calls - set(implemented) if implemented else set()
    if not apart and own.isdisjoint(calls):
        return proto
    ids = [*implemented, *(("ai.onnx", name) for domain, name in implemented if not domain)]
    # It may need types that it does not know; the operators stay then.
    with suppress(RuntimeError):
        return onnx.inliner.inline_selected_functions(
            _spelt_out(proto, implemented), ids, exclude=True,
            inline_schema_functions=bool(implemented),
        )  # fmt: skip
    return proto


def all_nodes(scope: GraphProto | FunctionProto) -> Iterator[NodeProto]:
    """The nodes of a graph or function and of the graphs inside it."""
    for node in scope.node:
        yield node
        for body in bodies(node):
            yield from all_nodes(body)


def _spelt_out(proto: ModelProto, implemented: Collection[_Key]) -> ModelProto:
    """A copy that says what the inliner does not look up: types of constants, and defaults."""
    spelt = ModelProto()
    spelt.CopyFrom(proto)
    graph = spelt.graph
    typed = {value.name for value in (*graph.value_info, *graph.input, *graph.output)}
    graph.value_info.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in graph.initializer
        if tensor.name not in typed
    )
    own = {(domain_of(entry.domain), entry.name): entry for entry in spelt.functions}
    for scope, imports in (
        (graph, spelt.opset_import),
        *((function, function.opset_import) for function in spelt.functions),
    ):
        versions = {domain_of(entry.domain): entry.version for entry in imports}
        for node in all_nodes(scope):
            key = _key(node)
            if key in own:
                defaults = list(own[key].attribute_proto)
            else:
                stays = not implemented or key in implemented
                defaults = [] if stays else _defaults(key, versions)
            given = {attribute.name for attribute in node.attribute}
            node.attribute.extend(entry for entry in defaults if entry.name not in given)
    return spelt


def _defaults(key: _Key, versions: Mapping[str, int]) -> list[AttributeProto]:
    """The default attributes of an operator."""
    domain, name = key
    try:
        schema = onnx.defs.get_schema(name, versions.get(domain, 1), domain)
    except onnx.defs.SchemaError:
        return []
    values = (attribute.default_value for attribute in schema.attributes.values())
    return [value for value in values if value.type]


def _key(node: NodeProto) -> _Key:
    return domain_of(node.domain), node.op_type
