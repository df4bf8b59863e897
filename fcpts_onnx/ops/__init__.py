"""TWIN: the operators, one family a file; importing this package registers them all."""

from fcpts_onnx.ops import activation, conv, elementwise, linear, norm, pool, reduce, shape
from fcpts_onnx.ops.registry import Ints, Op, find_op, op, supported_ops

__all__ = [
    "Ints",
    "Op",
    "activation",
    "conv",
    "elementwise",
    "find_op",
    "linear",
    "norm",
    "op",
    "pool",
    "reduce",
    "shape",
    "supported_ops",
]
