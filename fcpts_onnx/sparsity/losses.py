"""LEARN: reconstruction losses, Eq. 4 and its kin for outputs that are not class scores."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["class_scores", "kl_divergence", "log_probabilities", "reconstruction_loss"]

_SMALLEST_PROBABILITY = 1e-12


def class_scores(output: Tensor) -> Tensor | None:
    """An output as class scores (batch, classes), or None if it is not one score a class.

    Axes of size 1 behind the classes are dropped: (batch, classes, 1, 1) is what networks
    without a fully connected layer give.
    """
    if output.ndim < 2 or not output.is_floating_point():
        return None
    if output.shape[1] < 2 or output.shape[2:].numel() != 1:
        return None
    return output.flatten(1)


def log_probabilities(scores: Tensor, reference: Tensor, temperature: float = 1.0) -> Tensor:
    """log softmax(scores / T); where the graph ends in a softmax itself, of what went into it.

    Args:
        scores: (batch, classes).
        reference: the dense network's scores, which decide whether these are probabilities.
    """
    if _are_probabilities(reference):
        scores = scores.clamp_min(_SMALLEST_PROBABILITY).log()
    return F.log_softmax(scores / temperature, 1)


def kl_divergence(dense: Tensor, sparse: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(dense || sparse), Eq. 4, in nats, averaged over the batch.

    With a temperature both distributions are softened (Hinton et al. 2015).

    Args:
        dense, sparse: class scores (batch, classes).
    """
    target = log_probabilities(dense, dense, temperature)
    found = log_probabilities(sparse, dense, temperature)
    return F.kl_div(found, target, reduction="batchmean", log_target=True)


def reconstruction_loss(
    dense: Mapping[str, Tensor], sparse: Mapping[str, Tensor], temperature: float = 1.0
) -> Tensor:
    """L_rec: how far the sparse network's outputs are from the dense one's, summed over outputs.

    Class scores: KL at a temperature, times its square, which keeps the gradient's size (Hinton
    et al. 2015). Other float outputs: squared error relative to the dense output's variance.
    """
    parts = []
    for name, target in dense.items():
        if not target.is_floating_point():
            continue
        target, found = target.float(), sparse[name].float()
        scores = class_scores(target)
        if scores is not None:
            divergence = kl_divergence(scores, found.flatten(1), temperature)
            parts.append(divergence * temperature**2)
        else:
            spread = target.var(correction=0).clamp_min(torch.finfo(torch.float32).tiny)
            parts.append(F.mse_loss(found, target) / spread)
    return torch.stack(parts).sum()


def _are_probabilities(scores: Tensor) -> bool:
    return bool((scores >= 0).all()) and bool((scores.sum(1) - 1).abs().max() < 1e-3)
