"""Matrix products against onnxruntime."""

import pytest

from tests.ops.harness import Case, check, expand, name_of, normal

CASES = [
    Case("MatMul", (normal(3, 4), normal(4, 5))),
    Case("MatMul", (normal(2, 3, 4), normal(4, 5)), constants=(1,)),
    Case("MatMul", (normal(2, 1, 3, 4), normal(5, 4, 2))),
    Case("MatMul", (normal(4), normal(4, 5))),
    Case("MatMul", (normal(3, 4), normal(4))),
    Case("Gemm", (normal(3, 4), normal(4, 5), normal(5))),
    Case("Gemm", (normal(3, 4), normal(5, 4), normal(5)), {"transB": 1}),
    Case("Gemm", (normal(4, 3), normal(4, 5), normal(1, 5)), {"transA": 1}),
    Case("Gemm", (normal(3, 4), normal(4, 5), normal(3, 1)), {"alpha": 0.5, "beta": 2.0}),
    Case("Gemm", (normal(3, 4), normal(4, 5)), {"alpha": 3.0}, since=11),
    Case("Gemm", (normal(3, 4), normal(4, 5)), since=11),
]


@pytest.mark.parametrize(("case", "opset"), expand(CASES), ids=name_of)
def test_parity(case: Case, opset: int) -> None:
    check(case, opset)
