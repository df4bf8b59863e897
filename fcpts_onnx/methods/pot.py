"""RIVALS: POT's layer-wise reconstruction, as the least squares that it descends to."""

from __future__ import annotations

import torch
from torch import Tensor

from fcpts_onnx.sparsity.layerwise import Moments, Sparse
from fcpts_onnx.sparsity.mask import mask_of_smallest

__all__ = ["least_squares"]

_DAMPING = 1e-3  # of the mean square of an input, towards the dense weights


def least_squares(rows: Tensor, moments: Moments, zeros: int) -> Sparse:
    """The smallest weights of the layer to zero, the others to the least |X W + b - Y|^2.

    Lazarevich, Kozlov and Malinin (2021), Eq. 3, descend there by Adam; this is where that ends. A
    `layerwise.Rule`.
    """
    masks = mask_of_smallest(rows.abs(), zeros)
    gram, cross = moments.centred()
    result = torch.zeros_like(rows)
    for group in range(len(rows)):
        damping = _DAMPING * gram[group].diagonal().mean().clamp_min(1e-12)
        wanted = cross[group].mT + damping * rows[group]
        for row, mask in enumerate(masks[group]):
            kept = mask.nonzero().flatten()
            system = gram[group][kept][:, kept] + damping * torch.eye(len(kept)).to(gram)
            result[group, row, kept] = torch.linalg.solve(system, wanted[row, kept])
    return Sparse(result, masks, moments.best_shift(result))
