"""TWIN: a product and the bias added to it as one step, which torch runs as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import torch.nn.functional as F
from torch import Tensor

from fcpts_onnx.steps import Step

__all__ = ["with_biases_joined"]


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


def with_biases_joined(
    steps: Sequence[Step], constants: Mapping[str, Tensor], outputs: Collection[str]
) -> list[Step]:
    """The steps with each MatMul joined to the Add of a constant vector right behind it.

    Args:
        constants: values that are known by name, what is learned among them.
        outputs: names that have to stay.
    """
    reads = Counter(name for step in steps for name in step.reads)
    alone = {
        step.outputs[0]: step
        for step in steps
        if step.op == "MatMul" and reads[step.outputs[0]] == 1 and step.outputs[0] not in outputs
    }
    joined: dict[str, Step] = {}
    for step in steps:
        if step.op != "Add":
            continue
        for name, other in permutations(filter(None, step.inputs)):
            if name in alone and other in constants and constants[other].ndim == 1:
                joined[step.outputs[0]] = _joined(alone.pop(name), step, other)
                break
    gone = {part.outputs[0] for step in joined.values() for part in step.parts[:1]}
    return [joined.get(step.outputs[0], step) for step in steps if step.outputs[0] not in gone]


def _joined(product: Step, total: Step, bias: str) -> Step:
    return replace(
        total,
        function=_Linear(product, total),
        inputs=(*product.inputs, bias),
        parts=(product, total),
    )
