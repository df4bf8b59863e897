"""TWIN: activations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fcpts_onnx.ops.registry import op

__all__: list[str] = []


@op("Relu")
def relu(x: Tensor) -> Tensor:
    return F.relu(x)


@op("LeakyRelu")
def leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    return F.leaky_relu(x, alpha)


@op("PRelu")
def prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, x * slope, x)


@op("Elu")
def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.elu(x, alpha)


@op("Sigmoid")
def sigmoid(x: Tensor) -> Tensor:
    # In bfloat16 all above 0.998 is 1, which passes no gradient on.
    return torch.sigmoid(x.float() if x.dtype == torch.bfloat16 else x)


@op("HardSigmoid")
def hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    return torch.clamp(alpha * x + beta, 0, 1)


@op("HardSwish")
def hard_swish(x: Tensor) -> Tensor:
    return F.hardswish(x)


@op("Tanh")
def tanh(x: Tensor) -> Tensor:
    return torch.tanh(x)


@op("Gelu")
def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    return F.gelu(x, approximate=approximate)


@op("Selu")
def selu(
    x: Tensor, *, alpha: float = 1.6732632423543772, gamma: float = 1.0507009873554805
) -> Tensor:
    return gamma * F.elu(x, alpha)


@op("Celu", since=12)
def celu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.celu(x, alpha)


@op("Mish", since=18)
def mish(x: Tensor) -> Tensor:
    return F.mish(x)


@op("Softplus")
def softplus(x: Tensor) -> Tensor:
    return F.softplus(x)


@op("Softsign")
def softsign(x: Tensor) -> Tensor:
    return F.softsign(x)


@op("ThresholdedRelu", since=10)
def thresholded_relu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.threshold(x, alpha, 0.0)


@op("Clip", since=1)
def clip_1(x: Tensor, *, min: float | None = None, max: float | None = None) -> Tensor:
    if min is None and max is None:
        return x
    if x.is_floating_point() and min is not None and max is not None and min < max:
        return F.hardtanh(x, min, max)  # the same, and its gradient is one pass, not four
    return torch.clamp(x, min, max)


@op("Clip", since=11)
def clip_11(x: Tensor, min: Tensor | None = None, max: Tensor | None = None) -> Tensor:
    # As numbers: torch clamps by tensors several times more slowly.
    return clip_1(
        x, min=None if min is None else min.item(), max=None if max is None else max.item()
    )


@op("Softmax", since=1)
def softmax_1(x: Tensor, *, axis: int = 1) -> Tensor:
    return F.softmax(_as_matrix(x, axis), 1).reshape(x.shape)


@op("Softmax", since=13)
def softmax_13(x: Tensor, *, axis: int = -1) -> Tensor:
    return F.softmax(x, axis)


@op("LogSoftmax", since=1)
def log_softmax_1(x: Tensor, *, axis: int = 1) -> Tensor:
    return F.log_softmax(_as_matrix(x, axis), 1).reshape(x.shape)


@op("LogSoftmax", since=13)
def log_softmax_13(x: Tensor, *, axis: int = -1) -> Tensor:
    return F.log_softmax(x, axis)


@op("Hardmax", since=1, gradient="masks")
def hardmax_1(x: Tensor, *, axis: int = 1) -> Tensor:
    return hardmax_13(_as_matrix(x, axis)).reshape(x.shape)


@op("Hardmax", since=13, gradient="masks")
def hardmax_13(x: Tensor, *, axis: int = -1) -> Tensor:
    first = torch.argmax(x, axis, keepdim=True)
    return torch.zeros_like(x).scatter(axis, first, 1.0)


def _as_matrix(x: Tensor, axis: int) -> Tensor:
    """Before opset 13 all axes from `axis` on are normalised together."""
    axis = axis % x.ndim if x.ndim else 0
    return x.reshape(x.shape[:axis].numel(), -1)
