"""Arithmetic, comparison and selection against onnxruntime."""

import numpy as np
import pytest

from tests.ops.harness import Case, check, expand, ints, name_of, normal

A, B = normal(2, 3, 4), normal(3, 1, seed=1)
POSITIVE = np.abs(A) + 0.1
TRUTH = A > 0
OTHER = normal(4, seed=2) > 0
WHOLE, DIVISOR = ints(7, -7, 8, -9), ints(2, 2, -3, -3)

SPECIAL = np.float32([1, np.nan, np.inf, -np.inf])
BITS = np.uint8([16, 4, 255])

CASES = [
    *(Case(name, (A,)) for name in ("Abs", "Ceil", "Exp", "Floor", "Neg", "Reciprocal")),
    *(Case(name, (A,)) for name in ("Cos", "Sin", "Tan", "Atan")),
    *(Case(name, (A,), since=9) for name in ("Sinh", "Cosh", "Asinh", "Sign")),
    *(Case(name, (A / 5,)) for name in ("Acos", "Asin")),
    Case("Atanh", (A / 5,), since=9),
    Case("Acosh", (POSITIVE + 1,), since=9),
    Case("Sign", (WHOLE,), since=9),
    Case("Round", (np.float32([0.5, 1.5, -2.5, 2.6]),), since=11),
    Case("IsNaN", (SPECIAL,), since=9),
    Case("IsInf", (SPECIAL,), since=10),
    Case("IsInf", (SPECIAL,), {"detect_negative": 0}, since=10),
    Case("IsInf", (SPECIAL,), {"detect_positive": 0}, since=10),
    Case("BitwiseNot", (WHOLE,), since=18),
    *(Case(f"Bitwise{name}", (WHOLE, DIVISOR), since=18) for name in ("And", "Or", "Xor")),
    Case("BitShift", (BITS, np.uint8([1, 2, 3])), {"direction": "LEFT"}, since=11),
    Case("BitShift", (BITS, np.uint8([1, 2, 3])), {"direction": "RIGHT"}, since=11),
    Case("Xor", (TRUTH, OTHER)),
    Case("Sum", (A, A + 1, A - 1)),
    Case("Sum", (A, B), since=8),
    Case("Mean", (A, A + 1, A - 1)),
    Case("Mean", (A, B), since=8),
    Case("Erf", (A,), since=9),
    Case("Log", (POSITIVE,)),
    Case("Sqrt", (POSITIVE,)),
    Case("Not", (TRUTH,)),
    Case("Abs", (WHOLE,)),
    Case("Neg", (WHOLE,)),
    *(Case(name, (A, B)) for name in ("Add", "Sub", "Mul", "Div")),
    *(Case(name, (WHOLE, DIVISOR)) for name in ("Add", "Sub", "Mul", "Div")),
    *(Case(name, (TRUTH, OTHER)) for name in ("And", "Or")),
    *(Case(name, (A, B), since=9) for name in ("Greater", "Less")),
    *(Case(name, (A, B), since=7, until=8, note="old") for name in ("Greater", "Less")),
    *(Case(name, (A, B), since=12) for name in ("GreaterOrEqual", "LessOrEqual")),
    Case("Equal", (WHOLE, ints(7, 0, 8, 0))),
    Case("Equal", (A.round(), B.round()), since=11),
    Case("Pow", (POSITIVE, B)),
    Case("Pow", (A, np.float32(2)), constants=(1,)),
    Case("Pow", (A, np.int64(3)), since=12, constants=(1,)),
    Case("Pow", (WHOLE, np.float32(2)), since=12, constants=(1,)),
    Case("Mod", (WHOLE, DIVISOR), since=10),
    Case("Mod", (A, B), {"fmod": 1}, since=10),
    Case("Min", (A, B), since=8),
    Case("Min", (A, A + 1, A - 1)),
    Case("Max", (A, B, A - 1), since=8),
    Case("Max", (A, A)),
    Case("Where", (TRUTH, A, B), since=9),
]


@pytest.mark.parametrize(("case", "opset"), expand(CASES), ids=name_of)
def test_parity(case: Case, opset: int) -> None:
    check(case, opset)
