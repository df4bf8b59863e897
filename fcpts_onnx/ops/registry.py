"""TWIN: the table of operators, looked up by domain, name and opset.

An operator is a plain function on tensors whose signature is its ONNX specification: positional
arguments are the inputs in order (None where one is left out), keyword-only arguments are the
attributes under their ONNX names, with the schema's defaults. Two annotations steer the caller:

* an input annotated `Ints` or `Floats` (or `| None`) arrives as a tuple of Python numbers;
* a keyword named `outputs` receives the number of outputs the node asks for.
"""

from __future__ import annotations

import bisect
import inspect
import typing
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

__all__ = ["Floats", "Ints", "Op", "find_op", "implemented", "op", "supported_ops"]

Ints = tuple[int, ...]
Floats = tuple[float, ...]
Gradient = Literal["through", "first", "values", "masks", "ends", "shapes"]
Function = TypeVar("Function", bound=Callable[..., Any])

_NUMBERS = (Ints, Ints | None, Floats, Floats | None)
_VARIADIC = inspect.Parameter.VAR_POSITIONAL


@dataclass(frozen=True)
class Op:
    """One registered implementation of an operator.

    Attributes:
        since: the first opset version it is right for; a later registration takes over from it.
        attributes: the attribute names it knows; a node that has any other is unsupported.
        required: those of them that a node has to have.
        only: attributes that are supported with these values alone.
        gradient: what becomes of a gradient, see `op`.
        max_inputs: how many inputs it takes, None for any number.
        max_outputs: how many outputs it gives.
        numbers: the positions of inputs that arrive as Python numbers.
    """

    domain: str
    name: str
    since: int
    function: Callable[..., Any]
    attributes: frozenset[str]
    required: frozenset[str]
    max_inputs: int | None
    numbers: frozenset[int]
    wants_outputs: bool
    max_outputs: int = 1
    only: Mapping[str, Container[object]] = field(default_factory=dict)
    gradient: Gradient = "through"


_table: dict[tuple[str, str], list[Op]] = {}


def op(
    name: str,
    since: int = 1,
    *,
    domain: str = "",
    outputs: int = 1,
    only: Mapping[str, Container[object]] | None = None,
    gradient: Gradient = "through",
) -> Callable[[Function], Function]:
    """Register a function as the operator `name` from opset `since` on.

    Args:
        since: a semantic break point; versions that only add types need no registration.
        outputs: how many of the operator's outputs the function can give.
        only: the values of an attribute that the function is right for.
        gradient: what becomes of one: "through", it passes to all outputs; "first", to the first
            one alone; "values", from the first input alone, as the others say where; "masks", the
            outputs are constant but for jumps, place by place; "ends", the outputs choose or count,
            and what follows belongs to other places for other inputs; "shapes", the outputs depend
            on the shapes of the inputs alone.

    Raises:
        ValueError: that operator has an implementation for that version already.
    """

    def register(function: Function) -> Function:
        versions = _table.setdefault((domain, name), [])
        if any(known.since == since for known in versions):
            raise ValueError(f"{name} since {since} is registered twice.")
        found = _describe(function, domain, name, since)
        found = replace(found, max_outputs=outputs, only=only or {}, gradient=gradient)
        bisect.insort(versions, found, key=lambda entry: entry.since)
        return function

    return register


def find_op(domain: str, name: str, opset: int) -> Op | None:
    """The implementation with the greatest `since` not above `opset`, or None."""
    known = [entry for entry in _table.get((domain, name), []) if entry.since <= opset]
    return known[-1] if known else None


def implemented(opsets: Mapping[str, int]) -> list[tuple[str, str]]:
    """(domain, name) of every operator with an implementation at these opsets."""
    return [key for key in sorted(_table) if find_op(*key, opsets.get(key[0], 1))]


def supported_ops() -> list[Op]:
    """Every registered implementation, by domain, name and version."""
    return [entry for key in sorted(_table) for entry in _table[key]]


def _describe(function: Callable[..., Any], domain: str, name: str, since: int) -> Op:
    """Read an implementation off the signature of its function."""
    hints = typing.get_type_hints(function)
    parameters = inspect.signature(function).parameters.values()
    inputs = [p for p in parameters if p.kind is not p.KEYWORD_ONLY]
    keywords = {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}
    wants_outputs = keywords.pop("outputs", None) is not None
    return Op(
        domain=domain,
        name=name,
        since=since,
        function=function,
        attributes=frozenset(keywords),
        required=frozenset(key for key, p in keywords.items() if p.default is p.empty),
        max_inputs=None if any(p.kind is _VARIADIC for p in inputs) else len(inputs),
        numbers=frozenset(place for place, p in enumerate(inputs) if hints.get(p.name) in _NUMBERS),
        wants_outputs=wants_outputs,
    )
