"""TWIN: element types, between ONNX, numpy and torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor

__all__ = ["TORCH_TYPES", "to_numpy", "to_torch"]

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


def to_torch(array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor with the array's values and type, in memory of its own.

    Raises:
        TypeError: torch has no such type (strings, 4-bit and 8-bit floats).
    """
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def to_numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    """The values of a tensor as an array; bfloat16 becomes float32, which holds all its values."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()
