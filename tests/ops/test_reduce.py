"""Reductions against onnxruntime."""

import pytest

from tests.ops.harness import Case, check, expand, ints, name_of, normal

X = normal(2, 3, 4)
BY_INPUT = {"ReduceSum": 13, "ReduceMean": 18, "ReduceMax": 18, "ReduceMin": 18, "ReduceL2": 18}

CASES = [
    case
    for name, since in BY_INPUT.items()
    for case in (
        Case(name, (X,), {"axes": [1]}, until=since - 1),
        Case(name, (X,), {"axes": [0, -1], "keepdims": 0}, since=11, until=since - 1),
        Case(name, (X,), until=since - 1),
        Case(name, (X, ints(1)), since=since, constants=(1,)),
        Case(name, (X, ints(0, -1)), {"keepdims": 0}, since=since, constants=(1,)),
        Case(name, (X,), {"keepdims": 0}, since=since),
        Case(name, (X,), {"noop_with_empty_axes": 1}, since=since, note="axes left out"),
    )
]
CASES.append(Case("ReduceSum", (ints(1, 2, 3), ints(0)), since=13, constants=(1,)))


@pytest.mark.parametrize(("case", "opset"), expand(CASES), ids=name_of)
def test_parity(case: Case, opset: int) -> None:
    check(case, opset)
