"""TWIN: normalisation, as in inference."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fcpts_onnx.ops.registry import op

__all__: list[str] = []


@op("BatchNormalization", since=7, only={"spatial": (1,), "training_mode": (0,)})
def batch_normalization_7(
    x: Tensor,
    scale: Tensor,
    b: Tensor,
    mean: Tensor,
    var: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    spatial: int = 1,
    training_mode: int = 0,
) -> Tensor:
    return F.batch_norm(x, mean, var, scale, b, training=False, eps=epsilon)


@op("InstanceNormalization")
def instance_normalization(x: Tensor, scale: Tensor, b: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    return F.instance_norm(x, weight=scale, bias=b, eps=epsilon)


@op("LayerNormalization")
def layer_normalization(
    x: Tensor,
    scale: Tensor,
    b: Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Tensor:
    normal = F.layer_norm(x, x.shape[axis:], eps=epsilon) * scale
    return normal if b is None else normal + b


@op("LRN")
def lrn(
    x: Tensor, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Tensor:
    before = (size - 1) // 2
    squares = x.square().unsqueeze(1)
    sides = [0, 0] * (x.ndim - 2) + [before, size - 1 - before]
    total = F.pad(squares, sides).unfold(2, size, 1).sum(-1).squeeze(1)
    return x / torch.pow(bias + alpha / size * total, beta)
