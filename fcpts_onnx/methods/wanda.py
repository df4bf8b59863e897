"""RIVALS: Wanda, weights by the activations they meet."""

from __future__ import annotations

import torch
from torch import Tensor

from fcpts_onnx.sparsity.layerwise import Moments, Sparse
from fcpts_onnx.sparsity.mask import mask_of_smallest

__all__ = ["wanda"]


def wanda(rows: Tensor, moments: Moments, zeros: int) -> Sparse:
    """The least |w| |x|_2 of each output channel to zero, nothing else changed.

    Sun et al. (2024), Eq. 1; |x|_2 is an input's norm over all places. A `layerwise.Rule`.
    """
    norms = moments.gram.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt()
    flat = rows.flatten(0, 1)
    scores = (rows.abs() * norms[:, None]).flatten(0, 1).masked_fill(flat == 0, -1.0)
    present = (flat == 0).sum(1).tolist()
    masks, left = torch.empty_like(scores), zeros
    # Each row has the same count, but for what is zero already.
    for done, row in enumerate(sorted(range(len(scores)), key=lambda row: -present[row])):
        count = max(present[row], left // (len(scores) - done))
        masks[row] = mask_of_smallest(scores[row], count)
        left -= count
    return Sparse(rows, masks.reshape(rows.shape))
