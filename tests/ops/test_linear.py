"""Matrix products against onnxruntime."""

import numpy as np
import pytest

from tests.ops.harness import Case, check, expand, name_of, normal

# Products of these overflow; what is left of them is the same in all that has as many bits.
LARGE = np.abs(normal(3, 4)) * 1e9

EINSUMS: list[tuple[str, tuple[tuple[int, ...], ...]]] = [
    ("ij,jk->ik", ((2, 3), (3, 4))),
    ("ij,jk", ((2, 3), (3, 4))),
    ("ba", ((2, 3),)),
    (" b i j , b j k -> b i k ", ((2, 3, 4), (2, 4, 5))),
    ("bhwc,hkc->bhwk", ((2, 3, 4, 5), (3, 6, 5))),
    ("...ij,...jk->...ik", ((2, 3, 4), (2, 4, 5))),
    ("i...,i...->...", ((2, 3), (2, 3))),
    ("a...b", ((2, 3, 4),)),
    ("...i->i...", ((2, 3, 4),)),
    ("...b->...", ((2, 3),)),
    ("Ab,bC->AC", ((2, 3), (3, 4))),
    ("bA,bC->CA", ((2, 3), (2, 4))),
    ("ii->i", ((3, 3),)),
    ("ii", ((3, 3),)),
    ("...ii->...i", ((2, 3, 3),)),
    ("ij->", ((2, 3),)),
    ("i,j->ji", ((2,), (3,))),
    ("ab,ab->a", ((1, 3), (2, 3))),
    ("ij,jk,kl->il", ((2, 3), (3, 4), (4, 2))),
    (",->", ((), ())),
]


def einsum(equation: str, shapes: tuple[tuple[int, ...], ...], dtype: type = np.float32) -> Case:
    """A case with integers, which every type has."""
    inputs = tuple(
        np.asarray(np.round(normal(*shape, seed=place) * 4), dtype)
        for place, shape in enumerate(shapes)
    )
    return Case("Einsum", inputs, {"equation": equation}, since=12, note=f"{dtype.__name__}")


CASES = [
    Case("MatMul", (normal(3, 4), normal(4, 5))),
    Case("MatMul", (normal(2, 3, 4), normal(4, 5)), constants=(1,)),
    Case("MatMul", (normal(2, 1, 3, 4), normal(5, 4, 2))),
    Case("MatMul", (normal(4), normal(4, 5))),
    Case("MatMul", (normal(3, 4), normal(4))),
    *(
        Case("MatMul", (LARGE.astype(dtype), LARGE.T.astype(dtype)), since=9, note=dtype.__name__)
        for dtype in (np.int32, np.int64, np.uint32, np.uint64)
    ),
    Case("Gemm", (normal(3, 4), normal(4, 5), normal(5))),
    Case("Gemm", (normal(3, 4), normal(5, 4), normal(5)), {"transB": 1}),
    Case("Gemm", (normal(4, 3), normal(4, 5), normal(1, 5)), {"transA": 1}),
    Case("Gemm", (normal(3, 4), normal(4, 5), normal(3, 1)), {"alpha": 0.5, "beta": 2.0}),
    Case("Gemm", (normal(3, 4), normal(4, 5), normal(1))),
    Case("Gemm", (normal(3, 4), normal(4, 5), np.array(2.0, np.float32)), {"beta": 0.5}),
    Case("Gemm", (normal(3, 4), normal(4, 5), normal(5) * np.inf), {"beta": 0.0}, note="inf"),
    Case("Gemm", (normal(3, 4), normal(4, 5)), {"alpha": 3.0}, since=11),
    Case("Gemm", (normal(3, 4), normal(4, 5)), since=11),
    *(
        Case(
            "Gemm",
            (np.arange(12).reshape(3, 4).astype(dtype), np.arange(8).reshape(4, 2).astype(dtype)),
            since=11,
            note=dtype.__name__,
            unknown_to_onnxruntime=True,
        )
        for dtype in (np.int32, np.int64, np.uint32, np.uint64)
    ),
    *(einsum(equation, shapes) for equation, shapes in EINSUMS),
    *(
        einsum(equation, shapes, dtype)
        for equation, shapes in EINSUMS[:2]
        for dtype in (np.float64, np.int32, np.int64)
    ),
    Case("Det", (normal(3, 3),), since=11),
    Case("Det", (normal(5, 2, 4, 4),), since=11),
    Case("Det", (normal(2, 3, 3, dtype=np.float16),), since=11),
]


@pytest.mark.parametrize(("case", "opset"), expand(CASES), ids=name_of)
def test_parity(case: Case, opset: int) -> None:
    check(case, opset)
