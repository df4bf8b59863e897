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
    return torch.sigmoid(x)


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


@op("Clip", since=1)
def clip_1(x: Tensor, *, min: float | None = None, max: float | None = None) -> Tensor:
    return x if min is None and max is None else torch.clamp(x, min, max)


@op("Clip", since=11)
def clip_11(x: Tensor, min: Tensor | None = None, max: Tensor | None = None) -> Tensor:
    return x if min is None and max is None else torch.clamp(x, min, max)


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


def _as_matrix(x: Tensor, axis: int) -> Tensor:
    """Before opset 13 all axes from `axis` on are normalised together."""
    axis = axis % x.ndim if x.ndim else 0
    return x.reshape(x.shape[:axis].numel(), -1)
