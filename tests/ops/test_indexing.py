"""Picking, scattering, sorting and counting, against onnxruntime."""

import numpy as np
import pytest
import torch

from fcpts_onnx.ops.indexing import scatter_elements, scatter_nd, tensor_scatter
from tests.ops.harness import Case, check, expand, ints, name_of, normal

X = normal(2, 3, 4)
TIES = np.float32([[3, 1, 3, 2], [0, 0, 0, 0]])
ELEMENTS = np.array([[[2, 0, 1, 1]], [[-1, 0, -2, 2]]])
UPDATES = normal(2, 1, 4, seed=1)
PAIRS = np.array([[[1, 3], [0, 0]], [[2, 1], [1, 1]]])
PLACES = np.array([[0, 1], [1, 2], [0, -1]])
ROWS = normal(3, 4, seed=2)
LENGTHS = ints(2, 4, 1)
REDUCTIONS = (("add", 16), ("mul", 16), ("max", 18), ("min", 18))

CASES = [
    Case("Gather", (X, ints(2, 0)), {"axis": 1}, constants=(1,)),
    Case("Gather", (X, np.int64(1)), {"axis": 2}, constants=(1,)),
    Case("Gather", (X, np.array([[-1, 0], [1, -2]])), since=11),
    Case("GatherElements", (X, ELEMENTS), {"axis": 1}, since=11),
    Case("GatherND", (X, np.array([[0, 1], [-1, 0]])), since=11),
    Case("GatherND", (X, np.array([[1], [0]])), {"batch_dims": 1}, since=12),
    Case("GatherND", (X, PAIRS), {"batch_dims": 1}, since=12),
    Case("Scatter", (X, np.abs(ELEMENTS), UPDATES), {"axis": 1}, since=9, until=10),
    Case("ScatterElements", (X, ELEMENTS, UPDATES), {"axis": 1}, since=11),
    Case("ScatterND", (X, PLACES, ROWS), since=11),
    Case("ScatterND", (X, np.array([[1]]), normal(1, 3, 4)), since=11),
    *(
        Case("ScatterElements", (X, ELEMENTS, UPDATES), {"axis": 1, "reduction": kind}, since=since)
        for kind, since in REDUCTIONS
    ),
    *(Case("ScatterND", (X, PLACES, ROWS), {"reduction": k}, since=s) for k, s in REDUCTIONS),
    Case("OneHot", (ints(1, -1, 7), np.int64(4), np.float32([2, 5])), since=9, constants=(1,)),
    Case("OneHot", (ints(1, 0), ints(3), np.float32([0, 1])), {"axis": 0}, since=9, constants=(1,)),
    Case("TopK", (X, ints(2)), {"axis": 1, "largest": 0}, since=11, outputs=2, constants=(1,)),
    Case("TopK", (TIES,), {"k": 2}, until=9, outputs=2),
    Case("TopK", (TIES, ints(3)), since=10, outputs=2, constants=(1,)),
    *(Case(name, (X,), {"axis": 1}) for name in ("ArgMax", "ArgMin")),
    *(Case(name, (TIES,), {"axis": 1, "keepdims": 0}) for name in ("ArgMax", "ArgMin")),
    *(
        Case(name, (TIES,), {"axis": 1, "select_last_index": 1}, since=12)
        for name in ("ArgMax", "ArgMin")
    ),
    Case("NonZero", (TIES,), since=9),
    Case("Compress", (X, np.array([True, False, True])), {"axis": 1}, since=9),
    Case("Compress", (X, np.array([False, True, True])), since=9),
    Case("Unique", (np.float32([2, 1, 1, 3, 2]),), since=11, outputs=4),
    Case("Unique", (np.float32([2, 1, 1, 3, 2]),), {"sorted": 0}, since=11, outputs=4),
    Case("Unique", (TIES[:, [0, 1, 0]],), {"axis": 1}, since=11, outputs=4),
    Case("CumSum", (X, np.int64(1)), since=11, constants=(1,)),
    Case("CumSum", (X, np.int64(-1)), {"exclusive": 1, "reverse": 1}, since=11, constants=(1,)),
    *(
        Case("CumProd", (X, np.int64(1)), {"exclusive": flag, "reverse": flag}, since=26,
             constants=(1,), unknown_to_onnxruntime=True)
        for flag in (0, 1)
    ),
    Case("ReverseSequence", (normal(4, 3), LENGTHS), since=10),
    Case("ReverseSequence", (normal(3, 4), LENGTHS), {"batch_axis": 0, "time_axis": 1}, since=10),
    Case("Trilu", (X,), since=14),
    Case("Trilu", (X, np.int64(-1)), {"upper": 0}, since=14, constants=(1,)),
    Case("TensorScatter", (normal(2, 5, 3), normal(2, 2, 3), ints(1, 3)), since=24),
    Case("TensorScatter", (normal(2, 5, 3), normal(2, 2, 3), ints(4, 3)), {"mode": "circular"},
         since=24),
]  # fmt: skip


@pytest.mark.parametrize(("case", "opset"), expand(CASES), ids=name_of)
def test_parity(case: Case, opset: int) -> None:
    check(case, opset)


@pytest.mark.parametrize("half", ["x", "updates"])
def test_scattering_beside_what_came_in_bfloat16(half: str) -> None:
    """Autocast leaves one of the two in float32."""
    place, types = torch.tensor([[0, 1]]), {half: torch.bfloat16}
    x = torch.zeros(2, 2, dtype=types.get("x"))
    updates = torch.tensor([[2.0, 3.0]], dtype=types.get("updates"))
    assert scatter_elements(x, place, updates).tolist() == [[2, 0], [0, 3]]
    assert scatter_nd(x, place, updates[0, :1]).tolist() == [[0, 2], [0, 0]]
    assert tensor_scatter(x[None], updates[None]).tolist() == [[[2, 3], [0, 0]]]
