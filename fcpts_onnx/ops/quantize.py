"""TWIN: quantised arithmetic, as float arithmetic with rounding.

Integers carry no gradient in torch. Where gradients are recorded, a quantised tensor is therefore a
float tensor of integers, and rounding passes the gradient on as if it were not there. (Under
torch.vmap a tensor does not know whether it needs a gradient, so this cannot go by the tensor.)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from onnx import TensorProto
from torch import Tensor

from fcpts_onnx.ops.conv import conv
from fcpts_onnx.ops.devices import together
from fcpts_onnx.ops.dtypes import TORCH_TYPES
from fcpts_onnx.ops.registry import op

__all__ = [
    "along",
    "centred",
    "dequantize",
    "dequantize_linear",
    "integer_type",
    "product",
    "quantize",
    "quantize_linear",
    "saturate",
]

_INTEGERS = (TensorProto.UINT8, TensorProto.INT8, TensorProto.UINT16, TensorProto.INT16)
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)


@op("QuantizeLinear", only={"output_dtype": (0, *_INTEGERS)})
def quantize_linear(
    x: Tensor,
    y_scale: Tensor,
    y_zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    saturate: int = 1,
) -> Tensor:
    return quantize_linear_23(
        x,
        y_scale,
        y_zero_point,
        axis=axis,
        block_size=block_size,
        output_dtype=output_dtype,
        precision=TensorProto.FLOAT,
    )


@op("QuantizeLinear", since=23, only={"output_dtype": (0, *_INTEGERS), "precision": (0, *_FLOATS)})
def quantize_linear_23(
    x: Tensor,
    y_scale: Tensor,
    y_zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Tensor:
    # onnxruntime divides in float32 whatever the precision before its 1.32; saturate is for float8.
    dtype = TORCH_TYPES[output_dtype] if output_dtype else integer_type(y_zero_point)
    divided = TORCH_TYPES[precision] if precision else y_scale.dtype
    scale = along(y_scale, x, axis, block_size)
    zero_point = None if y_zero_point is None else along(y_zero_point, x, axis, block_size)
    return quantize(x, scale, zero_point, dtype, divided)


@op("DequantizeLinear", only={"output_dtype": (0, *_FLOATS)})
def dequantize_linear(
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Tensor:
    scale = along(x_scale, x, axis, block_size)
    zero_point = None if x_zero_point is None else along(x_zero_point, x, axis, block_size)
    dtype = TORCH_TYPES[output_dtype] if output_dtype else x_scale.dtype
    return dequantize(x, scale, zero_point).to(dtype)


@op("QLinearConv")
def qlinear_conv(
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor,
    w: Tensor,
    w_scale: Tensor,
    w_zero_point: Tensor,
    y_scale: Tensor,
    y_zero_point: Tensor,
    b: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    total = conv(
        _exact(centred(x, x_zero_point)),
        _exact(centred(w, along(w_zero_point, w, 0))).to(x.device),
        None if b is None else _exact(b).to(x.device),
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        pads=pads,
        strides=strides,
    )
    factor = x_scale * along(w_scale, total, 1) / y_scale
    return saturate(total.float() * factor, y_zero_point, integer_type(y_zero_point, x))


@op("ConvInteger")
def conv_integer(
    x: Tensor,
    w: Tensor,
    x_zero_point: Tensor | None = None,
    w_zero_point: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    zero_point = None if w_zero_point is None else along(w_zero_point, w, 0)
    total = conv(
        _exact(centred(x, x_zero_point)),
        _exact(centred(w, zero_point)).to(x.device),
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        pads=pads,
        strides=strides,
    )
    return _wrapped(total)


@op("QLinearMatMul")
def qlinear_matmul(
    a: Tensor,
    a_scale: Tensor,
    a_zero_point: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero_point: Tensor,
    y_scale: Tensor,
    y_zero_point: Tensor,
) -> Tensor:
    total = product(a, b, a_zero_point, b_zero_point)
    factor = _rows(a_scale).float() * b_scale.float() / _rows(y_scale).float()
    steps = total.float() * factor
    return saturate(steps, _rows(y_zero_point), integer_type(y_zero_point, a))


@op("MatMulInteger")
def matmul_integer(
    a: Tensor, b: Tensor, a_zero_point: Tensor | None = None, b_zero_point: Tensor | None = None
) -> Tensor:
    return _wrapped(product(a, b, a_zero_point, b_zero_point))


def along(parameter: Tensor, x: Tensor, axis: int, block_size: int = 0) -> Tensor:
    """A scale or zero point, one for all, one an index of an axis or one a block, to go with x."""
    if parameter.numel() == 1:
        return parameter.reshape(())
    if block_size:
        return parameter.repeat_interleave(block_size, axis).narrow(axis, 0, x.shape[axis])
    shape = [1] * x.ndim
    shape[axis] = -1
    return parameter.reshape(shape)


def quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    dtype: torch.dtype,
    divided: torch.dtype = torch.float32,
) -> Tensor:
    """round(x / scale) + zero_point, saturated; the quotient of type `divided`, then float32."""
    return saturate((x.to(divided) / scale.to(divided)).float(), zero_point, dtype)


def saturate(steps: Tensor, zero_point: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Round to even, add the zero point and cut at the ends of the integer type.

    The gradient is that of the cut alone.
    """
    zero = steps.new_zeros(()) if zero_point is None else zero_point.to(steps)
    limits = torch.iinfo(dtype)
    steps = torch.clamp(steps, limits.min - zero, limits.max - zero)
    whole = steps + (steps.round() - steps).detach() + zero
    return whole if torch.is_grad_enabled() else whole.to(dtype)


def centred(x: Tensor, zero_point: Tensor | None) -> Tensor:
    """x - zero_point, in int32 unless x is a float tensor of integers."""
    wide = x if x.is_floating_point() else x.int()
    return wide if zero_point is None else wide - zero_point.to(wide)


def dequantize(x: Tensor, scale: Tensor, zero_point: Tensor | None) -> Tensor:
    """(x - zero_point) * scale, in float32."""
    steps, scale = together(centred(x, zero_point).float(), scale.float())
    return steps * scale


def product(
    a: Tensor, b: Tensor, a_zero_point: Tensor | None, b_zero_point: Tensor | None
) -> Tensor:
    """The matrix product of two quantised tensors, less their zero points, in float64."""
    # Constants of integers stay on the CPU, on either side.
    device = next((x.device for x in (a, b) if x.device.type != "cpu"), a.device)
    a_zero_point = None if a_zero_point is None else _rows(a_zero_point)
    left, right = centred(a, a_zero_point), centred(b, b_zero_point)
    return torch.matmul(_exact(left).to(device), _exact(right).to(device))


def integer_type(*candidates: Tensor | None) -> torch.dtype:
    """The type of the first of these that is of integers, else the default of ONNX."""
    types = [tensor.dtype for tensor in candidates if tensor is not None]
    return next((dtype for dtype in types if not dtype.is_floating_point), torch.uint8)


def _rows(parameter: Tensor) -> Tensor:
    """What is stated one a row, as a column."""
    return parameter.unsqueeze(-1) if parameter.ndim == 1 and len(parameter) > 1 else parameter


def _exact(x: Tensor) -> Tensor:
    """Float64 sums products of 8 bits without rounding; torch has no convolution of integers."""
    return x.double()


def _wrapped(total: Tensor) -> Tensor:
    """Sums as int32, which wrap around; where gradients are recorded they stay as they are."""
    return total if torch.is_grad_enabled() else total.long().int()
