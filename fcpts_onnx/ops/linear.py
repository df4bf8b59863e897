"""TWIN: matrix products."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fcpts_onnx.ops.registry import op

__all__: list[str] = []

_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)


@op("MatMul")
def matmul(a: Tensor, b: Tensor) -> Tensor:
    return torch.matmul(_signed(a), _signed(b)).to(a.dtype)


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
    a = a.mT if transA else a
    if alpha == 1 and beta == 1 and (c is None or c.ndim == 1) and a.is_floating_point():
        return F.linear(a, b if transB else b.mT, c)
    product = alpha * (_signed(a) @ _signed(b.mT if transB else b))
    # What is multiplied by zero is not read, be it infinite.
    total = product if c is None or beta == 0 else product + beta * _signed(c)
    return total.to(a.dtype)


@op("Einsum")
def einsum(*inputs: Tensor, equation: str) -> Tensor:
    return torch.einsum(equation, *(_signed(x) for x in inputs)).to(inputs[0].dtype)


@op("Det")
def det(x: Tensor) -> Tensor:
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    return torch.linalg.det(wide).to(x.dtype)


def _signed(x: Tensor) -> Tensor:
    """Unsigned integers, which torch multiplies no matrices of, as int64: equal modulo 2^64."""
    return x.long() if x.dtype in _UNSIGNED else x
