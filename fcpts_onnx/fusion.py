"""TWIN: a layer and what is right beside it as one step: padding, a bias, a batch norm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import torch
import torch.nn.functional as F
from torch import Tensor

from fcpts_onnx.steps import Step

__all__ = ["with_layers_joined"]


@dataclass(frozen=True)
class _Linear:
    """x @ w + b, in one go where that is a linear layer."""

    product: Step
    total: Step

    def __call__(self, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        if x.is_floating_point() and w.ndim == 2 and b.shape == w.shape[1:]:
            return F.linear(x, w.mT, b)
        total: Tensor = self.total.function(self.product.function(x, w), b)
        return total


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
    constants behind it; a MatMul the Add of a constant vector.

    Args:
        constants: values that are known by name, what is learned among them.
        outputs: names that have to stay.
    """
    reads = Counter(name for step in steps for name in step.reads)
    alone: dict[str, Step] = {}
    left: dict[tuple[str, ...], Step] = {}
    for step in steps:
        join = _JOINS.get(step.op)
        found = None if join is None else join(step, alone, constants)
        if found is not None:
            del left[found.parts[0].outputs]
        left[step.outputs] = found or step
        name = step.outputs[0]
        if step.op in _JOINED and reads[name] == 1 and name not in outputs:
            alone[name] = left[step.outputs]
    return list(left.values())


def _with_padding(
    convolution: Step, alone: Mapping[str, Step], constants: Mapping[str, Tensor]
) -> Step | None:
    data, *others = convolution.inputs
    padding = None if data is None else alone.get(data)
    if padding is None or padding.op != "Pad":
        return None
    sides = _zeros_around(padding, constants)
    own = _pads_of(convolution, len(sides))
    if own is None or any(before != after for before, after in sides):
        return None
    more = [before for before, _ in sides] * 2
    pads = tuple(size + extra for size, extra in zip(own, more, strict=True))
    return replace(
        convolution,
        attributes={**convolution.attributes, "auto_pad": "NOTSET", "pads": pads},
        inputs=(padding.inputs[0], *others),
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


def _with_bias(
    total: Step, alone: Mapping[str, Step], constants: Mapping[str, Tensor]
) -> Step | None:
    for name, other in permutations(filter(None, total.inputs)):
        product = alone.get(name)
        if product is None or product.op != "MatMul" or other not in constants:
            continue
        if constants[other].ndim == 1:
            return replace(
                total,
                function=_Linear(product, total),
                inputs=(*product.inputs, other),
                parts=(product, total),
            )
    return None


def _with_norm(
    norm: Step, alone: Mapping[str, Step], constants: Mapping[str, Tensor]
) -> Step | None:
    data, *parameters = norm.inputs
    convolution = None if data is None else alone.get(data)
    if convolution is None or convolution.op != "Conv" or len(norm.outputs) > 1:
        return None
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


_JOINED = ("Pad", "Conv", "MatMul")
_JOINS: dict[str, Callable[[Step, Mapping[str, Step], Mapping[str, Tensor]], Step | None]] = {
    "Conv": _with_padding,
    "Add": _with_bias,
    "BatchNormalization": _with_norm,
}
