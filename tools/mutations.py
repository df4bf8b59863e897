"""Broken copies of a model, for `tools/fuzz.py`: its bytes changed, or fields of its protobuf."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

__all__ = ["mutated"]

Generator = np.random.Generator

_MOST_CHANGES = 3
_SHARE_OF_BYTES = 0.15  # of cases whose bytes are changed; fields are in the others
_INTEGERS = (0, 1, 2, 3, 7, 16, 64, 1000, 2**16, 2**20, 2**31 - 1, 2**40, 2**62, -1, -2, -(2**31))
_FLOATS = (0.0, 1.0, -1.0, 0.5, 1e30, -1e30, float("nan"), float("inf"))
_TEXTS = (
    "", " ", "a", "\x1b[31m", "\n", "[red]x[/red]", "<script>", "../weights.bin", "/etc/hostname",
    "weights.bin", "ai.onnx", "com.microsoft", "x" * 3000, "\u202e", "0", "-1", "EXTERNAL",
    "offset", "length", "location", "SAME_UPPER", "NOTSET", "linear", "cubic", "reflect", "wrap",
)  # fmt: skip
_OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas()})
_DEEPER = 0.85  # how often a change goes into a message instead of to it


def mutated(content: bytes, generator: Generator) -> bytes:
    """A copy with one to three changes, all drawn from the generator."""
    if generator.random() < _SHARE_OF_BYTES:
        return _bytes_changed(content, generator)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError:
        return _bytes_changed(content, generator)
    for _ in range(generator.integers(1, _MOST_CHANGES + 1)):
        kind = generator.random()
        if kind < 0.25:
            _rewire(proto.graph, generator)
        elif kind < 0.5:
            _change_values(proto.graph, generator)
        else:
            start = proto.graph if generator.random() < _DEEPER else proto
            # Enumerations take some numbers only, and 32 bits not all of 64.
            with suppress(ValueError):
                _change(start, _names(proto.graph), generator)
    return proto.SerializeToString()


def _bytes_changed(content: bytes, generator: Generator) -> bytes:
    changed = bytearray(content)
    for _ in range(generator.integers(1, _MOST_CHANGES + 1)):
        # The structure is at the beginning and the end; weights take most of the rest.
        size = len(changed) or 1
        near = int(size * generator.random() ** 4)
        place = near if generator.random() < 0.5 else size - 1 - near
        length = int(generator.integers(1, 16))
        kind = generator.integers(5)
        if kind == 0:
            changed[place : place + length] = generator.bytes(length)
        elif kind == 1:
            del changed[place : place + length]
        elif kind == 2:
            changed[place:place] = generator.bytes(length)
        elif kind == 3:
            del changed[place:]
        else:
            changed[place:place] = changed[place : place + 16 * length]
    return bytes(changed)


def _names(graph: onnx.GraphProto) -> list[str]:
    """Every name of a value in a graph."""
    names = [value.name for value in (*graph.input, *graph.output, *graph.initializer)]
    return names + [name for node in graph.node for name in (*node.input, *node.output)]


def _rewire(graph: onnx.GraphProto, generator: Generator) -> None:
    """Let a node read something else that is made before it, or be another operator."""
    if not graph.node:
        return
    place = generator.integers(len(graph.node))
    node = graph.node[place]
    if not node.input or generator.random() < 0.2:
        node.op_type = _drawn(node.DESCRIPTOR.fields_by_name["op_type"], [], generator)
        return
    known = [value.name for value in (*graph.input, *graph.initializer)]
    known += [name for earlier in graph.node[:place] for name in earlier.output]
    if known:
        node.input[generator.integers(len(node.input))] = known[generator.integers(len(known))]


def _change_values(graph: onnx.GraphProto, generator: Generator) -> None:
    """Change a value of a small tensor of integers: sizes, axes, and the like."""
    constants = [entry.t for node in graph.node for entry in node.attribute if entry.HasField("t")]
    small = [
        tensor
        for tensor in (*graph.initializer, *constants)
        if tensor.data_type == onnx.TensorProto.INT64 and len(tensor.raw_data) in range(8, 129, 8)
    ]
    if small:
        tensor = small[generator.integers(len(small))]
        values = np.frombuffer(tensor.raw_data, "<i8").copy()
        values[generator.integers(len(values))] = _whole(generator)
        tensor.raw_data = values.tobytes()


def _change(message: Any, names: list[str], generator: Generator) -> None:
    """Change a field of a message, or of one inside it."""
    present = [descriptor for descriptor, _ in message.ListFields()]
    every = list(message.DESCRIPTOR.fields)
    # Sometimes one that is not there yet.
    fields = present if present and generator.random() < 0.9 else every
    chosen: FieldDescriptor = fields[generator.integers(len(fields))]
    value = getattr(message, chosen.name)
    if chosen.is_repeated:
        _change_list(value, chosen, names, generator)
    elif isinstance(value, Message):
        if generator.random() < _DEEPER:
            _change(value, names, generator)
        else:
            message.ClearField(chosen.name)
    else:
        setattr(message, chosen.name, _drawn(chosen, names, generator))


def _change_list(
    values: Any, descriptor: FieldDescriptor, names: list[str], generator: Generator
) -> None:
    """Change an entry, or leave one out, double it, put it elsewhere, or cut the list."""
    holds_messages = descriptor.message_type is not None
    if not values:
        values.add() if holds_messages else values.append(_drawn(descriptor, names, generator))
        return
    place, other = generator.integers(len(values), size=2).tolist()
    if generator.random() < (_DEEPER if holds_messages else 0.5):
        if holds_messages:
            _change(values[place], names, generator)
        else:
            values[place] = _drawn(descriptor, names, generator)
        return
    entries = [copy.deepcopy(value) for value in values]
    kind = generator.integers(4)
    if kind == 0:
        del entries[place]
    elif kind == 1:
        entries.insert(other, entries[place])
    elif kind == 2:
        entries[place], entries[other] = entries[other], entries[place]
    else:
        del entries[place:]
    del values[:]
    values.extend(entries)


def _drawn(descriptor: FieldDescriptor, names: list[str], generator: Generator) -> Any:
    """A value for a field: one that often breaks something."""
    if descriptor.type == descriptor.TYPE_BYTES:
        return generator.bytes(generator.choice((0, 1, 4, 64, 4096)))
    if descriptor.cpp_type in (descriptor.CPPTYPE_FLOAT, descriptor.CPPTYPE_DOUBLE):
        return _FLOATS[generator.integers(len(_FLOATS))]
    if descriptor.cpp_type == descriptor.CPPTYPE_STRING:
        known = _OPERATORS if descriptor.name == "op_type" else names
        pool = known if known and generator.random() < 0.7 else _TEXTS
        return pool[generator.integers(len(pool))]
    return _whole(generator)


def _whole(generator: Generator) -> int:
    if generator.random() < 0.5:  # types, and sizes that may fit
        return int(generator.integers(30))
    return _INTEGERS[generator.integers(len(_INTEGERS))]
