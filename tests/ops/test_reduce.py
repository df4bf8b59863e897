"""Reductions against onnxruntime."""

import numpy as np
import pytest

from tests.ops.harness import Case, check, expand, ints, name_of, normal

X = normal(2, 3, 4)
POSITIVE = np.abs(X) + 0.1
EIGHTEEN = ("Mean", "Max", "Min", "L1", "L2", "Prod", "SumSquare", "LogSum", "LogSumExp")
BY_INPUT = {"ReduceSum": 13, **{f"Reduce{name}": 18 for name in EIGHTEEN}}

CASES = [
    case
    for name, since in BY_INPUT.items()
    for case in (
        Case(name, (POSITIVE,), {"axes": [1]}, until=since - 1),
        Case(name, (POSITIVE,), {"axes": [0, -1], "keepdims": 0}, since=11, until=since - 1),
        Case(name, (POSITIVE,), until=since - 1),
        Case(name, (POSITIVE, ints(1)), since=since, constants=(1,)),
        Case(name, (POSITIVE, ints(0, -1)), {"keepdims": 0}, since=since, constants=(1,)),
        Case(name, (POSITIVE,), {"keepdims": 0}, since=since),
        Case(name, (POSITIVE,), {"noop_with_empty_axes": 1}, since=since, note="axes left out"),
    )
]
CASES += [
    Case("ReduceSum", (ints(1, 2, 3), ints(0)), since=13, constants=(1,)),
    Case("ReduceProd", (ints(1, 2, 3),)),
    Case("ReduceMax", (X, ints(1)), since=18, constants=(1,), note="signs"),
    Case("ReduceMin", (X, ints(1)), since=18, constants=(1,), note="signs"),
    Case("ReduceL1", (X, ints(1)), since=18, constants=(1,), note="signs"),
    Case("ReduceL2", (X * 0, ints(1)), since=18, constants=(1,), note="zeros"),
    Case("ReduceMean", (ints(1, 2, 4),)),
    Case("ReduceL2", (ints(3, 5),)),
    Case("ReduceMax", (X > 0, ints(1)), since=20, constants=(1,)),
    Case("ReduceMin", (X[:, :0], ints(1)), since=20, constants=(1,)),
    Case("ReduceMax", (X[:, :0], ints(1)), since=20, constants=(1,)),
]


@pytest.mark.parametrize(("case", "opset"), expand(CASES), ids=name_of)
def test_parity(case: Case, opset: int) -> None:
    check(case, opset)
