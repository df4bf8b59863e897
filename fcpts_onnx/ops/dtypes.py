"""TWIN: element types, between ONNX, numpy and torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from onnx import TensorProto, helper
from torch import Tensor

__all__ = ["PROMOTED_TYPES", "TORCH_TYPES", "promoted", "to_numpy", "to_torch"]

_BFLOAT16 = helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)

TORCH_TYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.INT8: torch.int8,
    TensorProto.INT16: torch.int16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.UINT8: torch.uint8,
    TensorProto.UINT16: torch.uint16,
    TensorProto.UINT32: torch.uint32,
    TensorProto.UINT64: torch.uint64,
    TensorProto.BOOL: torch.bool,
}
"""The torch dtype of an ONNX element type (TensorProto.DataType), where torch has one."""


PROMOTED_TYPES = frozenset({TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})
"""The float types that learning does in float32."""


def promoted(tensor: Tensor) -> Tensor:
    """The tensor, in float32 if it is of another float type."""
    return tensor.float() if tensor.is_floating_point() else tensor


def to_torch(array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor with the array's values and type, in memory of its own.

    Raises:
        TypeError: torch has no such type (strings, 4-bit and 8-bit floats).
    """
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def to_numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    """The values of a tensor as an array, in memory that may be the tensor's."""
    tensor = tensor.detach().cpu()
    if tensor.dtype is torch.bfloat16:
        return tensor.contiguous().view(torch.int16).numpy().view(_BFLOAT16)
    return tensor.numpy()
