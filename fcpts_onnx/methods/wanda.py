"""RIVALS: Wanda, weights by the activations they meet."""

from __future__ import annotations

import torch
from torch import Tensor

from fcpts_onnx.sparsity.budget import mask_of_smallest
from fcpts_onnx.sparsity.layerwise import Moments, Sparse

__all__ = ["wanda"]


def wanda(rows: Tensor, moments: Moments, zeros: int) -> Sparse:
    """The least |w| |x|_2 of each output channel to zero, nothing else changed.

    Sun et al. (2024), Eq. 1; |x|_2 is an input's norm over all places. A `layerwise.Rule`.
    """
    norms = moments.gram.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt()
    scores = (rows.abs() * norms[:, None]).flatten(0, 1)
    each, more = divmod(zeros, len(scores))
    masks = [mask_of_smallest(row, each + (place < more)) for place, row in enumerate(scores)]
    return Sparse(rows, torch.stack(masks).reshape(rows.shape))
