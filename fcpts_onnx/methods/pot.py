"""RIVALS: POT's layer-wise reconstruction, as the least squares that it descends to."""

from __future__ import annotations

import torch
from torch import Tensor

from fcpts_onnx.sparsity.budget import mask_of_smallest
from fcpts_onnx.sparsity.layerwise import Moments, Sparse

__all__ = ["least_squares"]

_DAMPING = 1e-3  # of the mean square of an input, towards the dense weights
_CHUNK = 2**24  # numbers in the systems that are solved at once


def least_squares(rows: Tensor, moments: Moments, zeros: int) -> Sparse:
    """The smallest weights of the layer to zero, the others to the least |X W + b - Y|^2.

    Lazarevich, Kozlov and Malinin (2021), Eq. 3, descend there by Adam; this is where that ends. A
    `layerwise.Rule`.
    """
    masks = mask_of_smallest(rows.abs(), zeros)
    gram, cross = moments.centred()
    result = torch.empty_like(rows)
    for group in range(len(rows)):
        damping = _DAMPING * gram[group].diagonal().mean().clamp_min(1e-12)
        wanted = cross[group].mT + damping * rows[group]
        per_chunk = max(1, _CHUNK // gram[group].numel())
        for part in torch.arange(len(rows[group])).split(per_chunk):
            mask = masks[group, part]
            system = gram[group] * mask[:, :, None] * mask[:, None]
            system = system + torch.diag_embed(damping * mask + (1 - mask))
            solved = torch.linalg.solve(system, (wanted[part] * mask)[..., None])
            result[group, part] = solved.squeeze(-1)
    return Sparse(result, masks, moments.best_shift(result))
