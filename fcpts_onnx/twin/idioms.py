"""TWIN: what exporters spell out in several nodes as one step: norms, activations, attention."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fcpts_onnx.ops.devices import together
from fcpts_onnx.twin.matching import Graph, Match, Node
from fcpts_onnx.twin.steps import Step

__all__ = ["with_idioms_joined"]

Function = Callable[..., Tensor | None]


@dataclass(frozen=True)
class _Idiom:
    """Some nodes that are one function.

    Attributes:
        op: its name in ONNX.
        pattern: its last node.
        function: of what the names `arguments` stand for; None where it is not right for that.
        bound: the function for a match, where it depends on it; None if it is none.
    """

    op: str
    pattern: Node
    function: Function
    arguments: tuple[str, ...] = ("x",)
    bound: Callable[[Function, Match, Graph], Function | None] | None = None


@dataclass(frozen=True)
class _Joined:
    """A function in place of the steps that spell it out, wherever it comes to the same."""

    function: Function
    arguments: tuple[str, ...]
    inputs: tuple[str, ...]
    parts: tuple[Step, ...]

    def __call__(self, *values: Any) -> Any:
        known = dict(zip(self.inputs, values, strict=True))
        given = [known[name] for name in self.arguments]
        result = None if _rounds(given[0]) else self.function(*given)
        if result is not None:
            return result
        for part in self.parts:
            known.update(zip(part.outputs, part.run(known), strict=False))
        return known[self.parts[-1].outputs[0]]


def _rounds(x: Tensor) -> bool:
    """Whether a half-precision model rounds after each node; so does its twin."""
    is_half = x.dtype in (torch.float16, torch.bfloat16)
    return is_half and not torch.is_autocast_enabled(x.device.type)


def with_idioms_joined(
    steps: Sequence[Step], constants: Mapping[str, Tensor], outputs: Collection[str]
) -> list[Step]:
    """The steps with each idiom as one, if nothing else reads what lies between.

    One function passes over its data once, and keeps less of it for the gradient.

    Args:
        constants: values that are known by name, what is learned among them.
        outputs: names that have to stay.
    """
    graph = Graph(steps, constants, outputs)
    left: list[Step] = []
    taken: set[str] = set()
    for step in reversed(steps):  # of idioms within others the whole
        if taken.isdisjoint(step.outputs):
            found = _joined(step, graph)
            taken.update(name for part in found.parts for name in part.outputs)
            left.append(found)
    return _with_picks_joined(left[::-1], graph)


def _joined(last: Step, graph: Graph) -> Step:
    """The idiom that ends in a step, or the step."""
    for idiom in _IDIOMS:
        match = graph.find(idiom.pattern, last) if idiom.pattern.op == last.op else None
        if match is None:
            continue
        function = idiom.bound(idiom.function, match, graph) if idiom.bound else idiom.function
        if function is None:
            continue
        arguments = tuple(match.names[name] for name in idiom.arguments)
        parts = tuple(match.steps.values())
        whole = _Joined(function, arguments, match.inputs, parts)
        return _one(last, idiom.op, whole, match.inputs, last.outputs, parts)
    return last


def _with_picks_joined(steps: Sequence[Step], graph: Graph) -> list[Step]:
    """The steps with all that pick one place each along the same axis of a value as one.

    Exporters write so what came as one product: queries, keys and values. For each pick alone a
    gradient as large as all of them would be made, and added to the others.
    """
    found: dict[tuple[str | None, int], list[tuple[Step, int]]] = {}
    for step in steps:
        place = graph.constants.get(step.inputs[1] or "") if step.op == "Gather" else None
        if place is not None and not place.ndim and step.inputs[0] not in graph.constants:
            source = step.inputs[0], step.attributes.get("axis", 0)
            found.setdefault(source, []).append((step, int(place)))
    left = {step.outputs: step for step in steps}
    for (data, axis), several in found.items():
        if len(several) == 1:
            continue
        parts, places = zip(*several, strict=True)
        function = partial(_picked, places=places, axis=axis)
        outputs = tuple(name for part in parts for name in part.outputs)
        left[parts[0].outputs] = _one(parts[0], "Split", function, (data,), outputs, parts)
        for part in parts[1:]:
            del left[part.outputs]
    return list(left.values())


def _one(
    named: Step,
    op: str,
    function: Callable[..., Any],
    inputs: tuple[str | None, ...],
    outputs: tuple[str, ...],
    parts: tuple[Step, ...],
) -> Step:
    """A step in place of several, named as one of them."""
    return replace(
        named,
        op=op,
        function=function,
        inputs=inputs,
        outputs=outputs,
        numbers=frozenset(),
        attributes={},
        parts=parts,
    )


def _picked(x: Tensor, places: Sequence[int], axis: int) -> list[Tensor]:
    if x.shape[axis] > 2 * len(places):  # all the others would get a gradient too
        return [x.select(axis, place) for place in places]
    parts = x.unbind(axis)
    return [parts[place] for place in places]


def _layer_norm(
    x: Tensor, *scale_and_shift: Tensor, axes: Sequence[int], epsilon: float
) -> Tensor | None:
    x, *parameters = together(x, *scale_and_shift)
    first = x.ndim - len(axes)
    is_last = sorted(axis % x.ndim for axis in axes) == list(range(first, x.ndim))
    if not is_last or any(value.shape != x.shape[first:] for value in parameters):
        return None
    weight, bias = parameters or (None, None)
    return F.layer_norm(x, x.shape[first:], weight, bias, epsilon)


def _of_match(function: Function, match: Match, graph: Graph) -> Function | None:
    """A norm with the axes of both means, and what is added to the variance."""
    means = [step for step in match.steps.values() if step.op == "ReduceMean"]
    axes = {_axes(step, graph) for step in means}
    epsilon = graph.number(match.names["epsilon"])
    parameters = {match.names[name] for name in ("scale", "shift") if name in match.names}
    is_norm = len(axes) == 1 and all(mean.attributes.get("keepdims", 1) for mean in means)
    if None in axes or epsilon is None or not (is_norm and parameters <= graph.constants.keys()):
        return None
    return partial(function, axes=axes.pop(), epsilon=epsilon)


def _axes(mean: Step, graph: Graph) -> tuple[int, ...] | None:
    if len(mean.inputs) == 1:
        return tuple(mean.attributes.get("axes", ())) or None
    value = graph.constants.get(mean.inputs[1] or "")
    return None if value is None else tuple(value.reshape(-1).tolist()) or None


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor | None:
    if query.ndim != 4 or not query.shape[:2] == key.shape[:2] == value.shape[:2]:
        return None
    return F.scaled_dot_product_attention(query, key.mT, value, scale=1.0)


def _masked_softmax(x: Tensor) -> Tensor:
    # Softmax is NaN where the greatest is not finite: a row that sees nothing. Its gradient would
    # be NaN too, even times zero.
    if not x.shape[-1]:
        return F.softmax(x, -1)
    unseen = ~x.amax(-1, keepdim=True).isfinite()
    return F.softmax(x.masked_fill(unseen, 0.0), -1).masked_fill(unseen, 0.0)


def _of_activations(function: Function, match: Match, graph: Graph) -> Function | None:
    """Where none is a weight, whose layer has to stay one."""
    return None if graph.constants.keys() & match.names.values() else function


def _half_of(curve: Node) -> list[Node]:
    """0.5 x (1 + curve), in any order."""
    risen = Node("Add", (curve, 1.0))
    return [
        Node("Mul", (Node("Mul", ("x", risen)), 0.5)),
        Node("Mul", ("x", Node("Mul", (risen, 0.5)))),
        Node("Mul", (Node("Mul", ("x", 0.5)), risen)),
    ]


def _norms() -> list[_Idiom]:
    centred = Node("Sub", ("x", Node("ReduceMean", ("x",))))
    found = []
    for squares in (Node("Pow", (centred, 2.0)), Node("Mul", (centred, centred))):
        variance = Node("Add", (Node("ReduceMean", (squares,)), "epsilon"))
        normal = Node("Div", (centred, Node("Sqrt", (variance,))))
        scaled = Node("Add", (Node("Mul", (normal, "scale")), "shift"))
        for pattern, names in (scaled, ("x", "scale", "shift")), (normal, ("x",)):
            found.append(_Idiom("LayerNormalization", pattern, _layer_norm, names, _of_match))
    return found


def _gelus() -> list[_Idiom]:
    errors = Node("Div", ("x", math.sqrt(2))), Node("Mul", ("x", math.sqrt(0.5)))
    curves = [(Node("Erf", (inner,)), F.gelu) for inner in errors]
    for cube in Node("Pow", ("x", 3.0)), Node("Mul", ("x", Node("Mul", ("x", "x")))):
        bent = Node("Add", ("x", Node("Mul", (cube, 0.044715))))
        curve = Node("Tanh", (Node("Mul", (bent, math.sqrt(2 / math.pi))),))
        curves.append((curve, partial(F.gelu, approximate="tanh")))
    return [
        _Idiom("Gelu", half, function) for curve, function in curves for half in _half_of(curve)
    ]


def _swishes() -> list[_Idiom]:
    cut = Node("Clip", (Node("Add", ("x", 3.0)), 0.0, 6.0))
    hard = (
        Node("Mul", ("x", Node("HardSigmoid", ("x",), {"alpha": 1 / 6, "beta": 0.5}))),
        Node("Div", (Node("Mul", ("x", cut)), 6.0)),
        Node("Mul", ("x", Node("Div", (cut, 6.0)))),
        Node("Mul", (Node("Mul", ("x", cut)), 1 / 6)),
    )
    smooth = _Idiom("Swish", Node("Mul", ("x", Node("Sigmoid", ("x",)))), F.silu)
    return [smooth, *(_Idiom("HardSwish", pattern, F.hardswish) for pattern in hard)]


def _attentions() -> list[_Idiom]:
    weights = Node("Softmax", (Node("MatMul", ("query", "key")),), {"axis": -1})
    names = "query", "key", "value"
    pattern = Node("MatMul", (weights, "value"))
    return [_Idiom("Attention", pattern, _attention, names, _of_activations)]


def _masks() -> list[_Idiom]:
    weights = Node("Softmax", ("x",), {"axis": -1})
    pattern = Node("Where", (Node("IsNaN", (weights,)), 0.0, weights))
    return [_Idiom("MaskedSoftmax", pattern, _masked_softmax)]


_IDIOMS = (*_norms(), *_gelus(), *_swishes(), *_attentions(), *_masks())
