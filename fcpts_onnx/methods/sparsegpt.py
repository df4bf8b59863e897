"""RIVALS: SparseGPT, column after column with the optimal brain surgeon's update."""

from __future__ import annotations

import torch
from torch import Tensor

from fcpts_onnx.sparsity.layerwise import Moments, Sparse
from fcpts_onnx.sparsity.mask import mask_of_smallest

__all__ = ["sparsegpt"]

_DAMPING = 0.01  # of the mean of the Hessian's diagonal, as published
_BLOCK = 128  # columns


def sparsegpt(rows: Tensor, moments: Moments, zeros: int) -> Sparse:
    """Zeros chosen by w^2 / [H^-1]_cc in blocks of columns, what follows made up for each.

    Frantar and Alistarh (2023), Algorithm 1, with H = X^T X of a convolution's unfolded inputs.
    What reads an input that is always 0 goes first, as in the published code. A `layerwise.Rule`.
    """
    each, more = divmod(zeros, len(rows))
    parts = [
        _group(group, gram, each + (place < more))
        for place, (group, gram) in enumerate(zip(rows, moments.gram, strict=True))
    ]
    values, masks = (torch.stack(part) for part in zip(*parts, strict=True))
    return Sparse(values, masks)


def _group(rows: Tensor, gram: Tensor, zeros: int) -> tuple[Tensor, Tensor]:
    dead = gram.diagonal() == 0
    live = ~dead
    free = zeros - int((rows[:, live] == 0).sum())  # but for the zeros that are there
    first = max(0, min(free, rows[:, dead].numel()))
    values, masks = rows.clone(), torch.ones_like(rows)
    masks[:, dead] = mask_of_smallest(rows[:, dead].abs(), first)
    if live.any():
        found = _of_live(rows[:, live], gram[live][:, live], zeros - first)
        values[:, live], masks[:, live] = found
    return values, masks


def _of_live(rows: Tensor, gram: Tensor, zeros: int) -> tuple[Tensor, Tensor]:
    values, masks = rows.clone(), torch.ones_like(rows)
    count = rows.shape[1]
    damping = _DAMPING * gram.diagonal().mean().clamp_min(1e-12)
    inverse = torch.linalg.inv(gram + damping * torch.eye(count).to(gram))
    factor = torch.linalg.cholesky(inverse, upper=True)
    done = 0
    for start in range(0, count, _BLOCK):
        block = slice(start, min(start + _BLOCK, count))
        wanted = round(zeros * block.stop / count) - done
        done += wanted
        scores = (values[:, block] / factor.diagonal()[block]).square()
        masks[:, block] = mask_of_smallest(scores, wanted)
        for column in range(block.start, block.stop):
            lost = values[:, column] * (1 - masks[:, column]) / factor[column, column]
            values[:, column:] -= lost[:, None] * factor[column, column:]
    return values, masks
