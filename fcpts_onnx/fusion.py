"""TWIN: a layer and what is right behind it as one step: a product's bias, a batch norm."""

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
    """The steps with each layer joined to what is right behind it and reads nothing else.

    A MatMul takes in the Add of a constant vector, a Conv a BatchNormalization of constants.

    Args:
        constants: values that are known by name, what is learned among them.
        outputs: names that have to stay.
    """
    reads = Counter(name for step in steps for name in step.reads)
    alone = {
        step.outputs[0]: step
        for step in steps
        if step.op in ("MatMul", "Conv")
        and reads[step.outputs[0]] == 1
        and step.outputs[0] not in outputs
    }
    joined: dict[str, Step] = {}
    for step in steps:
        join = _JOINS.get(step.op)
        found = None if join is None else join(step, alone, constants)
        if found is not None:
            joined[step.outputs[0]] = found
    gone = {step.parts[0].outputs[0] for step in joined.values()}
    return [joined.get(step.outputs[0], step) for step in steps if step.outputs[0] not in gone]


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


_JOINS: dict[str, Callable[[Step, Mapping[str, Step], Mapping[str, Tensor]], Step | None]] = {
    "Add": _with_bias,
    "BatchNormalization": _with_norm,
}
