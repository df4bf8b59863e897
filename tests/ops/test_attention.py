"""Attention and what comes with it, against onnxruntime."""

import pytest

from tests.ops.harness import Case, check, expand, name_of

CASES: list[Case] = []


@pytest.mark.parametrize(("case", "opset"), expand(CASES), ids=name_of)
def test_parity(case: Case, opset: int) -> None:
    check(case, opset)
