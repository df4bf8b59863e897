"""TWIN: normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fcpts_onnx.ops.registry import op

__all__ = ["layer_normalization", "widened"]


@op("BatchNormalization", since=7, outputs=5, only={"spatial": (1,)})
def batch_normalization(
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
    outputs: int,
) -> list[Tensor]:
    x_wide, old_mean, old_var, scale, b = map(widened, (x, mean, var, scale, b))
    # torch wants an axis of channels; a vector is one channel.
    rows = x_wide.unsqueeze(1) if x.ndim == 1 else x_wide
    if not training_mode:
        normal = F.batch_norm(rows, old_mean, old_var, scale, b, training=False, eps=epsilon)
        return [normal.reshape(x.shape).to(x.dtype), mean, var][:outputs]
    others = [axis for axis in range(rows.ndim) if axis != 1]
    own_var, own_mean = torch.var_mean(rows, others, correction=0)
    # F.batch_norm would pass no gradient on to statistics that are handed over.
    inverse = torch.rsqrt(own_var + epsilon)
    shape = [-1 if axis == 1 else 1 for axis in range(rows.ndim)]
    gain = (scale * inverse).reshape(shape)
    normal = (rows - own_mean.reshape(shape)) * gain + b.reshape(shape)
    y = normal.reshape(x.shape).to(x.dtype)
    running_mean = momentum * old_mean + (1 - momentum) * own_mean
    running_var = momentum * old_var + (1 - momentum) * own_var
    return [y, running_mean.to(mean.dtype), running_var.to(var.dtype), own_mean, inverse][:outputs]


@op("InstanceNormalization")
def instance_normalization(x: Tensor, scale: Tensor, b: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    # A group a channel; F.instance_norm refuses images of a single pixel.
    return torch.group_norm(x, x.shape[1], scale, b, epsilon)


@op("GroupNormalization", since=18)
def group_normalization_18(
    x: Tensor, scale: Tensor, bias: Tensor, *, num_groups: int, epsilon: float = 1e-5
) -> Tensor:
    """Scale and bias are one a group."""
    each = x.shape[1] // num_groups
    scale, bias = scale.repeat_interleave(each), bias.repeat_interleave(each)
    return torch.group_norm(x, num_groups, scale, bias, epsilon)


@op("GroupNormalization", since=21, only={"stash_type": (1,)})
def group_normalization_21(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    *,
    num_groups: int,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Tensor:
    """Scale and bias are one a channel."""
    # onnxruntime keeps to float32 to the end, although the specification scales in x's type.
    parameters = (scale.float(), bias.float())
    return torch.group_norm(x.float(), num_groups, *parameters, epsilon).to(x.dtype)


@op("LayerNormalization", outputs=3)
def layer_normalization(
    x: Tensor,
    scale: Tensor,
    b: Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    outputs: int,
) -> list[Tensor]:
    # onnxruntime reckons in float32 (float64 for such inputs), whatever the stash type.
    wide = widened(x)
    normal = F.layer_norm(wide, wide.shape[axis:], eps=epsilon) * scale
    y = (normal if b is None else normal + b).to(x.dtype)
    if outputs == 1:
        return [y]
    axes = tuple(range(axis % x.ndim, x.ndim))
    var, mean = torch.var_mean(wide, axes, correction=0, keepdim=True)
    return [y, mean.float(), torch.rsqrt(var + epsilon).float()][:outputs]


@op("RMSNormalization")
def rms_normalization(
    x: Tensor, scale: Tensor, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    wide = widened(x)
    axes = tuple(range(axis % x.ndim, x.ndim))
    normal = wide * torch.rsqrt(wide.square().mean(axes, keepdim=True) + epsilon)
    return (normal * scale).to(scale.dtype)


@op("LpNormalization")
def lp_normalization(input: Tensor, *, axis: int = -1, p: int = 2) -> Tensor:
    length = input.norm(p, axis, keepdim=True)
    return input / torch.where(length == 0, 1.0, length)


@op("MeanVarianceNormalization")
def mean_variance_normalization(x: Tensor, *, axes: Sequence[int] = (0, 2, 3)) -> Tensor:
    # onnxruntime adds nothing to the variance, as the specification's function does.
    var, mean = torch.var_mean(x, list(axes), correction=0, keepdim=True)
    return (x - mean) / var.sqrt()


@op("LRN")
def lrn(
    x: Tensor, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Tensor:
    before = (size - 1) // 2
    squares = x.square().unsqueeze(1)
    sides = [0, 0] * (x.ndim - 2) + [before, size - 1 - before]
    total = F.pad(squares, sides).unfold(2, size, 1).sum(-1).squeeze(1)
    return x / torch.pow(bias + alpha / size * total, beta)


def widened(x: Tensor) -> Tensor:
    """Numbers of 16 bits as float32."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
