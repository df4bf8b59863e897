"""TWIN: operators of onnxruntime's own, which its optimiser leaves in the models it saves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fcpts_onnx.ops.conv import conv
from fcpts_onnx.ops.linear import gemm
from fcpts_onnx.ops.norm import layer_normalization, widened
from fcpts_onnx.ops.pool import average_pool
from fcpts_onnx.ops.quantize import (
    centred,
    dequantize,
    dequantize_linear,
    integer_type,
    product,
    quantize,
    quantize_linear,
    saturate,
)
from fcpts_onnx.ops.recurrent import ACTIVATIONS
from fcpts_onnx.ops.registry import op

__all__: list[str] = []

_DOMAIN = "com.microsoft"
_FUSED: dict[str, Callable[..., Tensor]] = {
    **{name: ACTIVATIONS[name] for name in ("Elu", "HardSigmoid", "LeakyRelu", "Relu", "Sigmoid")},
    **{name: ACTIVATIONS[name] for name in ("Softplus", "Softsign", "Tanh", "ThresholdedRelu")},
    "Clip": torch.clamp,
    "HardSwish": F.hardswish,
    "Selu": lambda x, alpha, gamma: gamma * F.elu(x, alpha),
}
"""What is fused into a convolution or a product: functions of a tensor and their parameters."""


@op("Gelu", domain=_DOMAIN)
def gelu(x: Tensor) -> Tensor:
    return F.gelu(x)


@op("BiasGelu", domain=_DOMAIN)
def bias_gelu(a: Tensor, b: Tensor) -> Tensor:
    return F.gelu(a + b)


@op("FastGelu", domain=_DOMAIN)
def fast_gelu(x: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.gelu(x if bias is None else x + bias, approximate="tanh")


@op("QuickGelu", domain=_DOMAIN)
def quick_gelu(x: Tensor, *, alpha: float = 1.702) -> Tensor:
    return x * torch.sigmoid(alpha * x)


@op("FusedConv", domain=_DOMAIN, only={"activation": _FUSED})
def fused_conv(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    z: Tensor | None = None,
    *,
    activation: str | None = None,
    activation_params: Sequence[float] | None = None,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    y = conv(
        x, w, b, auto_pad=auto_pad, dilations=dilations, group=group, pads=pads, strides=strides
    )
    y = y if z is None else y + z
    return _FUSED[activation](y, *(activation_params or ())) if activation else y


@op("FusedGemm", domain=_DOMAIN, only={"activation": _FUSED})
def fused_gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    activation: str | None = None,
    activation_alpha: float | None = None,
    activation_beta: float | None = None,
    activation_gamma: float | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    y = gemm(a, b, c, alpha=alpha, beta=beta, transA=transA, transB=transB)
    given = (activation_alpha, activation_beta, activation_gamma)
    parameters = [value for value in given if value is not None]
    return _FUSED[activation](y, *parameters) if activation else y


@op("FusedMatMul", domain=_DOMAIN)
def fused_matmul(
    a: Tensor,
    b: Tensor,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    transBatchA: int = 0,
    transBatchB: int = 0,
) -> Tensor:
    if transA and b.ndim == 1:
        raise ValueError("onnxruntime does not transpose what it multiplies by a vector")
    left = _transposed(a, transA, transBatchA)
    right = _transposed(b, transB, transBatchB)
    return alpha * torch.matmul(left, right)


@op("SkipLayerNormalization", domain=_DOMAIN, outputs=4)
def skip_layer_normalization(
    input: Tensor,
    skip: Tensor,
    gamma: Tensor,
    beta: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    epsilon: float = 1e-12,
    outputs: int,
) -> list[Tensor]:
    total = widened(input) + widened(skip)
    total = total if bias is None else total + widened(bias)
    y, *moments = layer_normalization(total, gamma, beta, epsilon=epsilon, outputs=3)
    return [y.to(input.dtype), *moments, total.to(input.dtype)][:outputs]


op("QuantizeLinear", domain=_DOMAIN)(quantize_linear)
op("DequantizeLinear", domain=_DOMAIN)(dequantize_linear)


@op("QLinearAdd", domain=_DOMAIN)
def qlinear_add(
    a: Tensor,
    a_scale: Tensor,
    a_zero_point: Tensor | None,
    b: Tensor,
    b_scale: Tensor,
    b_zero_point: Tensor | None,
    c_scale: Tensor,
    c_zero_point: Tensor | None = None,
) -> Tensor:
    total = dequantize(a, a_scale / c_scale, a_zero_point)
    total = total + dequantize(b, b_scale / c_scale, b_zero_point)
    return _saturate_sum(total, c_zero_point, integer_type(c_zero_point, a))


@op("QLinearMul", domain=_DOMAIN)
def qlinear_mul(
    a: Tensor,
    a_scale: Tensor,
    a_zero_point: Tensor | None,
    b: Tensor,
    b_scale: Tensor,
    b_zero_point: Tensor | None,
    c_scale: Tensor,
    c_zero_point: Tensor | None = None,
) -> Tensor:
    total = centred(a, a_zero_point).to(c_scale) * centred(b, b_zero_point).to(c_scale)
    total = total * (a_scale * b_scale / c_scale)
    return _saturate_sum(total, c_zero_point, integer_type(c_zero_point, a))


@op("QGemm", domain=_DOMAIN)
def qgemm(
    a: Tensor,
    a_scale: Tensor,
    a_zero_point: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero_point: Tensor,
    c: Tensor | None = None,
    y_scale: Tensor | None = None,
    y_zero_point: Tensor | None = None,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    # What is stated one a column of the product is so of b, after it is transposed.
    left = a.T if transA else a
    right = b.T if transB else b
    total = product(left, right, a_zero_point, b_zero_point)
    total = total if c is None else total + c.to(total)
    factor = alpha * a_scale * b_scale
    if y_scale is None:
        return total.float() * factor
    steps = total.float() * (factor / y_scale)
    return saturate(steps, y_zero_point, integer_type(y_zero_point, a))


@op("QLinearSoftmax", domain=_DOMAIN)
def qlinear_softmax(
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor | None,
    y_scale: Tensor,
    y_zero_point: Tensor,
    *,
    axis: int = -1,
    opset: int,
) -> Tensor:
    real = dequantize(x, x_scale, x_zero_point)
    # Below opset 13 Softmax is over all axes from the one stated.
    y = real.softmax(axis) if opset >= 13 else real.flatten(axis).softmax(-1).reshape(x.shape)
    return quantize(y, y_scale, y_zero_point, integer_type(y_zero_point, x))


@op("QLinearSigmoid", domain=_DOMAIN)
def qlinear_sigmoid(
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor | None,
    y_scale: Tensor,
    y_zero_point: Tensor | None = None,
) -> Tensor:
    y = torch.sigmoid(dequantize(x, x_scale, x_zero_point))
    return quantize(y, y_scale, y_zero_point, integer_type(y_zero_point, x))


@op("QLinearLeakyRelu", domain=_DOMAIN)
def qlinear_leaky_relu(
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor | None,
    y_scale: Tensor,
    y_zero_point: Tensor | None = None,
    *,
    alpha: float = 0.01,
) -> Tensor:
    y = F.leaky_relu(dequantize(x, x_scale, x_zero_point), alpha)
    return quantize(y, y_scale, y_zero_point, integer_type(y_zero_point, x))


@op("QLinearAveragePool", domain=_DOMAIN)
def qlinear_average_pool(
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor | None,
    y_scale: Tensor,
    y_zero_point: Tensor | None = None,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    channels_last: int = 0,
    count_include_pad: int = 0,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    real = dequantize(x, x_scale, x_zero_point)
    y = average_pool(
        real.movedim(-1, 1) if channels_last else real,
        kernel_shape=kernel_shape,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
        pads=pads,
        strides=strides,
    )
    y = y.movedim(1, -1) if channels_last else y
    return _saturate_sum(y / y_scale, y_zero_point, integer_type(y_zero_point, x))


@op("QLinearGlobalAveragePool", domain=_DOMAIN)
def qlinear_global_average_pool(
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor,
    y_scale: Tensor,
    y_zero_point: Tensor,
    *,
    channels_last: int = 0,
) -> Tensor:
    axes = range(1, x.ndim - 1) if channels_last else range(2, x.ndim)
    total = centred(x, x_zero_point).to(x_scale).sum(tuple(axes), keepdim=True)
    count = x.numel() // total.numel()
    steps = total * (x_scale / (y_scale * count))
    return saturate(steps, y_zero_point, integer_type(y_zero_point, x))


@op("QLinearConcat", domain=_DOMAIN)
def qlinear_concat(y_scale: Tensor, y_zero_point: Tensor, *inputs: Tensor, axis: int) -> Tensor:
    """The inputs are triples of a tensor, its scale and its zero point."""
    parts = [dequantize(*inputs[place : place + 3]) for place in range(0, len(inputs), 3)]
    return quantize(torch.cat(parts, axis), y_scale, y_zero_point, integer_type(y_zero_point))


def _saturate_sum(steps: Tensor, zero_point: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Round with the zero point in the sum, as some of these do: ties then go another way."""
    total = steps if zero_point is None else steps + zero_point.to(steps)
    return saturate(total, None, dtype)


def _transposed(x: Tensor, last: int, batch: int) -> Tensor:
    """Its matrices transposed, or with the first axis moved behind the other batch axes."""
    x = x.movedim(0, -2) if batch and x.ndim > 2 else x
    return x.mT if last and x.ndim > 1 else x
