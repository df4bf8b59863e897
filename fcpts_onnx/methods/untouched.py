"""RIVALS: the smallest weights of each layer to zero, and that is all."""

from __future__ import annotations

from torch import Tensor

from fcpts_onnx.sparsity.budget import mask_of_smallest
from fcpts_onnx.sparsity.layerwise import Moments, Sparse

__all__ = ["untouched"]


def untouched(rows: Tensor, moments: Moments, zeros: int) -> Sparse:
    """No reconstruction: what the others are held against. A `layerwise.Rule`."""
    del moments
    return Sparse(rows, mask_of_smallest(rows.abs(), zeros))
