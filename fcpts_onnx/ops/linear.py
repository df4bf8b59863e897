"""TWIN: matrix products."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fcpts_onnx.ops.registry import op

__all__: list[str] = []


@op("MatMul")
def matmul(a: Tensor, b: Tensor) -> Tensor:
    return torch.matmul(a, b)


@op("Gemm")
def gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    a = a.T if transA else a
    if alpha == 1 and beta == 1 and (c is None or c.ndim == 1):
        return F.linear(a, b if transB else b.T, c)
    product = alpha * (a @ (b.T if transB else b))
    return product if c is None else product + beta * c
