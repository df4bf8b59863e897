"""TWIN: a layer and what is right beside it as one step: padding, a bias, a batch norm."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from fcpts_onnx.twin.matching import Graph, Match, Node
from fcpts_onnx.twin.steps import Step

__all__ = ["with_layers_joined"]


@dataclass(frozen=True)
class _Linear:
    """x @ w + b, in one go where that is a linear layer."""

    product: Step
    total: Step

    def __call__(self, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        is_row = b.ndim <= x.ndim and b.shape[-1:] == w.shape[1:]
        if x.is_floating_point() and w.ndim == 2 and is_row:
            return F.linear(x, w.mT, b.flatten())
        total: Tensor = self.total.function(self.product.function(x, w), b)
        return total


@dataclass(frozen=True)
class _BiasedConvolution:
    """A convolution whose bias is added behind it, in whatever shape."""

    convolution: Step

    def __call__(self, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        attributes = self.convolution.attributes
        result: Tensor = self.convolution.function(x, w, b.flatten(), **attributes)
        return result


@dataclass(frozen=True)
class _NormedConvolution:
    """A convolution with the batch norm behind it multiplied into its weight and bias.

    That saves two passes over its output, and two more over the gradient.
    """

    convolution: Step
    epsilon: float

    def __call__(
        self,
        x: Tensor,
        w: Tensor,
        bias: Tensor | None,
        scale: Tensor,
        shift: Tensor,
        mean: Tensor,
        variance: Tensor,
    ) -> Tensor:
        gain = scale * torch.rsqrt(variance + self.epsilon)
        total = shift - (mean if bias is None else mean - bias) * gain
        weight = w * gain.reshape(-1, *[1] * (w.ndim - 1))
        result: Tensor = self.convolution.function(x, weight, total, **self.convolution.attributes)
        return result


def with_layers_joined(
    steps: Sequence[Step], constants: Mapping[str, Tensor], outputs: Collection[str]
) -> list[Step]:
    """The steps with each layer joined to what is right beside it, if nothing else reads between.

    A Conv takes in the zeros that a Pad puts around its input, and a BatchNormalization of
    constants behind it; a MatMul the Add of a constant vector, and a convolution without a bias
    that of one value a channel, as converters from Paddle and CNTK write it.

    Args:
        constants: values that are known by name, what is learned among them.
        outputs: names that have to stay.
    """
    for joins in _PADDINGS, _ENDS:  # a norm takes in a convolution that has its padding
        graph = Graph(steps, constants, outputs)
        left: dict[tuple[str, ...], Step] = {}
        for step in steps:
            found = _joined(step, graph, joins)
            if found is not step:
                del left[found.parts[0].outputs]
            left[step.outputs] = found
        steps = list(left.values())
    return list(steps)


def _joined(last: Step, graph: Graph, joins: Sequence[_Join]) -> Step:
    """A layer and what is beside it, of which a step is the last, or the step."""
    for pattern, join in joins:
        match = graph.find(pattern, last) if pattern.op == last.op else None
        found = None if match is None else join(match, graph.constants)
        if found is not None:
            return found
    return last


def _with_padding(match: Match, constants: Mapping[str, Tensor]) -> Step | None:
    padding, convolution = match.steps.values()
    sides = _zeros_around(padding, constants)
    own = _pads_of(convolution, len(sides))
    if own is None or any(before != after for before, after in sides):
        return None
    more = [before for before, _ in sides] * 2
    pads = tuple(size + extra for size, extra in zip(own, more, strict=True))
    return replace(
        convolution,
        attributes={**convolution.attributes, "auto_pad": "NOTSET", "pads": pads},
        inputs=(padding.inputs[0], *convolution.inputs[1:]),
        parts=(padding, convolution),
    )


def _pads_of(convolution: Step, rank: int) -> Sequence[int] | None:
    """The padding that a convolution states for so many axes; None if it depends on the input."""
    automatic = convolution.attributes.get("auto_pad", "NOTSET")
    stated = convolution.attributes.get("pads") if automatic == "NOTSET" else None
    pads = stated or (0,) * 2 * rank
    return pads if rank and len(pads) == 2 * rank and not automatic.startswith("SAME") else None


def _zeros_around(padding: Step, constants: Mapping[str, Tensor]) -> list[tuple[int, int]]:
    """How many zeros a Pad puts before and after along each axis behind the channels.

    None at all if it does anything else, or that is not known beforehand.
    """
    stated = [constants.get(name) for name in padding.inputs[1:] if name is not None]
    values = [value.flatten().tolist() for value in stated if value is not None]
    by_input = len(values) == len(stated) and len(padding.inputs) <= 3  # the fourth names axes
    pads = padding.attributes.get("pads") or (values[0] if values and by_input else ())
    filling = values[1] if len(values) > 1 else [padding.attributes.get("value", 0.0)]
    is_plain = padding.attributes.get("mode", "constant") == "constant" and not any(filling)
    if not is_plain or len(pads) % 2 or any(size < 0 for size in pads):
        return []
    sides = list(zip(pads[: len(pads) // 2], pads[len(pads) // 2 :], strict=True))
    return [] if any(map(any, sides[:2])) else sides[2:]


def _with_bias(match: Match, constants: Mapping[str, Tensor]) -> Step | None:
    (product, total), bias = match.steps.values(), match.names["bias"]
    if bias not in constants or constants[bias].shape[-1:].numel() != constants[bias].numel():
        return None
    return replace(
        total,
        function=_Linear(product, total),
        inputs=(*product.inputs, bias),
        parts=(product, total),
    )


def _with_channel_bias(match: Match, constants: Mapping[str, Tensor]) -> Step | None:
    (convolution, *reshaping, total), bias = match.steps.values(), match.names["bias"]
    x, w, *own = convolution.inputs
    weight = constants.get(w or "")
    if any(own) or weight is None or not constants.keys() >= set(match.names.values()):
        return None
    added: Tensor = reshaping[0].run(constants)[0] if reshaping else constants[bias]
    if not _is_one_a_channel(added, convolution, weight.shape):
        return None
    return replace(
        total,
        function=_BiasedConvolution(convolution),
        inputs=(x, w, bias),
        parts=(convolution, *reshaping, total),
    )


def _is_one_a_channel(added: Tensor, convolution: Step, weight: torch.Size) -> bool:
    """Whether what is added to a convolution has a value for each of its output channels."""
    group = convolution.attributes.get("group", 1)
    channels = weight[0] if convolution.op == "Conv" else weight[1] * group
    shape = (1, channels, *[1] * len(weight[2:]))
    # Half-precision models round each value; so does their twin.
    is_float = added.dtype == torch.float32
    return is_float and tuple(added.shape) in (shape, shape[1:])


def _with_norm(match: Match, constants: Mapping[str, Tensor]) -> Step | None:
    convolution, norm = match.steps.values()
    parameters = norm.inputs[1:]
    known = [constants[name] for name in parameters if name and name in constants]
    # Half-precision models round each value; so does their twin.
    if len(known) < len(parameters) or any(value.dtype != torch.float32 for value in known):
        return None
    if norm.attributes.get("training_mode", 0):
        return None
    x, w, *bias = convolution.inputs
    return replace(
        norm,
        function=_NormedConvolution(convolution, norm.attributes.get("epsilon", 1e-5)),
        attributes={},
        inputs=(x, w, *(bias or [None]), *parameters),
        parts=(convolution, norm),
    )


_Join = tuple[Node, Callable[[Match, Mapping[str, Tensor]], Step | None]]
_PADDINGS: tuple[_Join, ...] = ((Node("Conv", (Node("Pad", ()),)), _with_padding),)
_ENDS: tuple[_Join, ...] = (
    (Node("Add", (Node("MatMul", ()), "bias")), _with_bias),
    *(
        (Node("Add", (Node(convolution, ()), bias)), _with_channel_bias)
        for convolution in ("Conv", "ConvTranspose")
        for bias in ("bias", Node("Reshape", ("bias", "shape")))
    ),
    (Node("BatchNormalization", (Node("Conv", ()),)), _with_norm),
)
