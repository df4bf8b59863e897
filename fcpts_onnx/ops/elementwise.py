"""TWIN: element-by-element arithmetic, comparison and selection."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor

from fcpts_onnx.ops.devices import together
from fcpts_onnx.ops.registry import op

__all__: list[str] = []


_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "BitwiseNot": torch.bitwise_not,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Round": torch.round,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
}
_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add,
    "And": torch.logical_and,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Mul": torch.mul,
    "Or": torch.logical_or,
    "Sub": torch.sub,
    "Xor": torch.logical_xor,
}


_JUMPING = {
    "And", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Ceil", "Equal", "Floor",
    "Greater", "GreaterOrEqual", "IsNaN", "Less", "LessOrEqual", "Not", "Or", "Round", "Sign",
    "Xor",
}  # fmt: skip


def _unary(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The function with a signature that the registry can read."""

    def apply(x: Tensor) -> Tensor:
        return function(x)

    return apply


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """The function with a signature that the registry can read."""

    def apply(a: Tensor, b: Tensor) -> Tensor:
        return function(*together(a, b))

    return apply


for _name, _one in _UNARY.items():
    op(_name, gradient="masks" if _name in _JUMPING else "through")(_unary(_one))
for _name, _two in _BINARY.items():
    op(_name, gradient="masks" if _name in _JUMPING else "through")(_binary(_two))


@op("Div")
def div(a: Tensor, b: Tensor) -> Tensor:
    a, b = together(a, b)
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


@op("Mod")
def mod(a: Tensor, b: Tensor, *, fmod: int = 0) -> Tensor:
    a, b = together(a, b)
    return torch.fmod(a, b) if fmod else torch.remainder(a, b)


@op("Pow")
def pow(a: Tensor, b: Tensor) -> Tensor:
    # Known beforehand, an exponent is a product or a root, not two logarithms: layer norm squares.
    is_number = not b.ndim and b.device.type == "cpu" and not b.requires_grad
    if is_number:
        return torch.pow(a, b.item()).to(a.dtype)
    return torch.pow(*together(a, b)).to(a.dtype)


@op("Min")
def min(*inputs: Tensor) -> Tensor:
    return reduce(torch.minimum, together(*inputs))


@op("Max")
def max(*inputs: Tensor) -> Tensor:
    return reduce(torch.maximum, together(*inputs))


@op("Sum")
def sum(*inputs: Tensor) -> Tensor:
    return reduce(torch.add, together(*inputs))


@op("Mean")
def mean(*inputs: Tensor) -> Tensor:
    return reduce(torch.add, together(*inputs)) / len(inputs)


@op("BitShift", since=11, gradient="masks")
def bit_shift(a: Tensor, b: Tensor, *, direction: str) -> Tensor:
    # torch shifts unsigned integers of 8 bits only; the bits of a wider signed one are the same.
    wide, by = a.to(torch.int64), b.to(torch.int64)
    return (wide << by if direction == "LEFT" else wide >> by).to(a.dtype)


@op("IsInf", since=10, gradient="masks")
def is_inf(x: Tensor, *, detect_negative: int = 1, detect_positive: int = 1) -> Tensor:
    found = torch.isinf(x)
    if not detect_negative:
        found = found & (x > 0)
    return found if detect_positive else found & (x < 0)


@op("Where")
def where(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    condition, x, y = together(condition, x, y)
    return torch.where(condition, x, y)
