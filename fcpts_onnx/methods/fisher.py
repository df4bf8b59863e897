"""RIVALS: the layers that the outputs feel least, by Fisher information."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from fcpts_onnx.sparsity.budget import counts_by_rank
from fcpts_onnx.sparsity.losses import Head, relative_to, variances
from fcpts_onnx.sparsity.task import Task

__all__ = ["fisher"]

_SAMPLES = 256
_SPREAD_SAMPLES = 64


def fisher(task: Task) -> dict[str, float]:
    """Zeros by weight where all are ranked by w^2 times the mean Fisher information of the layer.

    That is what one zero costs, to second order (LeCun et al. 1990; Theis et al. 2018). The
    information is the mean square of the gradient of log p(y | x), with y drawn from what the dense
    network itself gives for single samples x. Its mean over a layer is used: that of single
    weights is too noisy (`tools/results/ideas.md`).
    """
    dense = task.dense()
    values = {name: value.clone().requires_grad_() for name, value in dense.items()}
    stored = {weight.value: values[weight.name] for weight in task.weights}
    generator = torch.Generator().manual_seed(task.seed)
    total = dict.fromkeys(values, 0.0)
    order = torch.randperm(len(task.calibration), generator=generator)[:_SAMPLES]
    with torch.no_grad():
        some = task.network(task.calibration.take(order[:_SPREAD_SAMPLES]), {})
    heads = [replace(head, spread=variances(some[head.name])) for head in task.heads]
    for place in order.split(1):
        found = task.network(task.calibration.take(place), stored)
        loss = torch.stack([_surprise(found[h.name].float(), h, generator) for h in heads])
        gradients = torch.autograd.grad(loss.sum(), list(values.values()), allow_unused=True)
        for name, gradient in zip(values, gradients, strict=True):
            if gradient is not None:
                total[name] += float(gradient.square().mean())
    scores = {name: value.square() * total[name] for name, value in dense.items()}
    return counts_by_rank(scores, task.budget.zeros)


def _surprise(found: Tensor, head: Head, generator: torch.Generator) -> Tensor:
    """-log p of an outcome that is drawn from what the network gives."""
    if head.loss == "mse":
        variance = relative_to(found.detach(), head)
        noise = torch.randn(found.shape, generator=generator).to(found.device)
        target = found.detach() + noise * variance.sqrt()
        return ((found - target).square() / (2 * variance)).sum()
    if head.loss == "bce":
        scores = torch.logit(found, eps=1e-6) if head.probabilities else found
        chance = torch.rand(scores.shape, generator=generator).to(scores.device)
        outcome = (chance < torch.sigmoid(scores.detach())).float()
        return F.binary_cross_entropy_with_logits(scores, outcome, reduction="sum")
    scores = found.clamp_min(1e-12).log() if head.probabilities else found
    logs = F.log_softmax(scores.movedim(head.axis, -1).flatten(0, -2), 1)
    drawn = torch.multinomial(logs.detach().exp().cpu(), 1, generator=generator)
    return -logs.gather(1, drawn.to(logs.device)).sum()
