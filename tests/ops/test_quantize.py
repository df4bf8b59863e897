"""Quantised arithmetic, as float arithmetic with rounding, against onnxruntime."""

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto

from fcpts_onnx.errors import UnsupportedError
from fcpts_onnx.ops import find_op
from fcpts_onnx.twin import Twin
from tests.ops.harness import Case, check, expand, name_of, normal, one_node

EIGHT_BITS = (np.uint8, np.int8)
SIXTEEN_BITS = (np.uint16, np.int16)
# Whatever a QuantizeLinear of opset 23 asks for.
DIVIDES_IN_FLOAT32 = tuple(map(int, ort.__version__.split(".")[:2])) < (1, 32)
# What onnxruntime multiplies.
PAIRS = ((np.uint8, np.uint8), (np.uint8, np.int8), (np.int8, np.int8))


def scale(value: float, dtype: Any = np.float32) -> np.ndarray:
    """One for all."""
    return np.array(value, dtype)


def whole(dtype: Any, *shape: int, seed: int = 0, bits: int = 8) -> np.ndarray:
    """Integers of a type, of fewer bits for weights: some processors saturate sums of products."""
    low = -(2 ** (bits - 1)) if np.iinfo(dtype).min else 0
    return np.random.default_rng(seed).integers(low, low + 2**bits, shape).astype(dtype)


def floats(*shape: int, bits: int = 8, dtype: Any = np.float32) -> np.ndarray:
    """Values on either side of zero, some of which saturate at a scale of 0.1."""
    return (normal(*shape) * 0.05 * 2**bits).astype(dtype)


def scales(*shape: int) -> np.ndarray:
    return np.abs(normal(*shape, seed=5)) * 0.1 + 0.05


def quantizing(dtype: Any, bits: int, since: int) -> list[Case]:
    """QuantizeLinear to a type and DequantizeLinear from it."""
    zero, zeros, blocks = scale(5, dtype), whole(dtype, 6, seed=1), whole(dtype, 2, 3, 5, seed=1)
    x, back = floats(2, 6, 5, bits=bits), whole(dtype, 2, 6, 5, bits=bits)
    halves, half = x.astype(np.float16), scale(0.11, np.float16)
    coarse = scale(0.11 * bits / 8, np.float16)  # no quotient beyond float16's 65504
    quantize, dequantize, by_axis = "QuantizeLinear", "DequantizeLinear", max(since, 13)
    name = np.dtype(dtype).name
    return [
        Case(quantize, (x, scale(0.1), zero), since=since, note=name),
        Case(quantize, (x, scales(6), zeros), since=by_axis, note=name),
        Case(quantize, (x, scales(5), zeros[:5]), {"axis": -1}, since=by_axis, note=name),
        Case(quantize, (x, scales(2, 3, 5), blocks), {"block_size": 2}, since=21, note=name),
        Case(quantize, (halves, half, zero), since=max(since, 19), until=22, note=name),
        Case(
            quantize,
            (halves, coarse, zero),
            since=23,
            note=name,
            unknown_to_onnxruntime=DIVIDES_IN_FLOAT32,
        ),
        Case(dequantize, (back, scale(0.1), zero), since=since, note=name),
        Case(dequantize, (back, scales(6), zeros), since=by_axis, note=name),
        Case(dequantize, (back, scales(2), zeros[:2]), {"axis": 0}, since=by_axis, note=name),
        Case(dequantize, (back, scales(2, 3, 5), blocks), {"block_size": 2}, since=21, note=name),
        Case(dequantize, (back, half, zero), since=max(since, 19), note=name),
    ]


def multiplying(left: Any, right: Any) -> list[Case]:
    """QLinearConv and QLinearMatMul of two types."""
    x, w = whole(left, 2, 4, 7, 6), whole(right, 6, 4, 3, 3, seed=1, bits=6)
    a, b = whole(left, 2, 3, 8), whole(right, 8, 5, seed=1, bits=6)
    of_x = (scale(0.02), scale(3, left))
    of_w, of_each = (scale(0.03), scale(1, right)), (scales(6), np.zeros(6, right))
    of_y = (scale(0.4), scale(7, left))
    bias = np.arange(-300, 300, 100, dtype=np.int32)
    note = f"{np.dtype(left).name} {np.dtype(right).name}"
    conv, matmul = "QLinearConv", "QLinearMatMul"
    return [
        Case(conv, (x, *of_x, w, *of_w, *of_y, bias), since=10, note=note),
        Case(conv, (x, *of_x, w, *of_each, *of_y), {"auto_pad": "SAME_LOWER"}, 10, note=note),
        Case(
            conv,
            (x, *of_x, w[:, :2], *of_w, *of_y, bias),
            {"group": 2, "pads": [1, 0, 2, 1], "strides": [2, 1], "dilations": [1, 2]},
            since=10,
            note=note,
        ),
        Case(matmul, (a, *of_x, b, *of_w, *of_y), since=10, note=note),
        Case(
            matmul,
            (a, *of_x, b, scales(5), np.arange(5).astype(right), *of_y),
            since=10,
            note=note,
        ),
    ]


CASES = [
    *(case for dtype in EIGHT_BITS for case in quantizing(dtype, 8, 10)),
    *(case for dtype in SIXTEEN_BITS for case in quantizing(dtype, 16, 21)),
    Case("QuantizeLinear", (floats(3, 4), scale(0.1)), since=10),
    Case("QuantizeLinear", (floats(3, 4), np.array([0.1], np.float32)), since=13),
    *(
        Case("QuantizeLinear", (floats(3, 4), scale(0.1)), {"output_dtype": dtype}, since=21)
        for dtype in (TensorProto.UINT8, TensorProto.INT8, TensorProto.UINT16, TensorProto.INT16)
    ),
    # Halves are rounded to even before the zero point is added.
    Case(
        "QuantizeLinear",
        (np.arange(9, dtype=np.float32) / 2, scale(1), scale(1, np.uint8)),
        since=10,
    ),
    Case("QuantizeLinear", (np.array([np.inf, -np.inf], np.float32), scale(1)), since=10),
    *(
        Case(
            "QuantizeLinear",
            (floats(500, dtype=dtype), scale(0.11, dtype), scale(7, np.uint8)),
            {"precision": precision},
            since=23,
            unknown_to_onnxruntime=DIVIDES_IN_FLOAT32,
        )
        for dtype, precision in (
            (np.float16, TensorProto.FLOAT16),
            (np.float16, TensorProto.FLOAT),
            (np.float32, TensorProto.FLOAT16),
        )
    ),
    Case(
        "QuantizeLinear",
        (np.arange(-9, 9, dtype=np.int32), scale(0.5), scale(5, np.uint8)),
        since=10,
        unknown_to_onnxruntime=True,
    ),
    Case("DequantizeLinear", (whole(np.uint8, 3, 4), scale(0.1)), since=10),
    Case("DequantizeLinear", (whole(np.int32, 3, 4, bits=31), scale(0.1)), since=10),
    Case("DequantizeLinear", (whole(np.int32, 3, 4, bits=31), scales(3)), {"axis": 0}, since=13),
    Case(
        "DequantizeLinear",
        (whole(np.int8, 3, 4), scale(0.1)),
        {"output_dtype": TensorProto.FLOAT16},
        since=23,
    ),
    *(case for pair in PAIRS for case in multiplying(*pair)),
    *(
        Case(
            "ConvInteger",
            (whole(left, 2, 4, 7, 6), whole(right, 3, 4, 3, 3, bits=6), *zeros),
            more,
            10,
        )
        for left, right in PAIRS
        for zeros, more in (
            ((), {}),
            ((scale(3, left),), {"pads": [1, 1, 1, 1]}),
            ((scale(3, left), scale(2, right)), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
        )
    ),
    *(
        Case("MatMulInteger", (whole(left, 2, 3, 8), whole(right, 8, 5, bits=6), *zeros), since=10)
        for left, right in PAIRS
        for zeros in (
            (),
            (scale(3, left), scale(2, right)),
            (scale(3, left), np.arange(5).astype(right)),
        )
    ),
]


@pytest.mark.parametrize(("case", "opset"), expand(CASES), ids=name_of)
def test_parity(case: Case, opset: int) -> None:
    check(case, opset)


@pytest.mark.parametrize(
    ("op", "dtype", "message"),
    [
        ("QuantizeLinear", TensorProto.FLOAT8E4M3FN, "output_dtype=17"),
        ("QuantizeLinear", TensorProto.INT4, "output_dtype=22"),
        ("DequantizeLinear", TensorProto.INT8, "output_dtype=3"),
    ],
)
def test_types_that_torch_lacks_are_refused(op: str, dtype: int, message: str) -> None:
    inputs = (floats(3) if op == "QuantizeLinear" else whole(np.int8, 3), scale(0.1))
    with pytest.raises(UnsupportedError, match=message):
        Twin(one_node(Case(op, inputs, {"output_dtype": dtype}), 23))


def test_the_gradient_passes_rounding_and_stops_where_it_saturates() -> None:
    quantize = find_op("", "QuantizeLinear", 21).function
    dequantize = find_op("", "DequantizeLinear", 21).function
    x = torch.tensor([-99.0, -0.26, 0.0, 0.31, 99.0], requires_grad=True)
    step, zero = torch.tensor(0.1), torch.tensor(100, dtype=torch.uint8)

    def there_and_back(x: torch.Tensor) -> torch.Tensor:
        return dequantize(quantize(x, step, zero), step, zero)

    with torch.no_grad():
        expected = there_and_back(x).tolist()
    for run in (there_and_back, torch.vmap(there_and_back)):
        x.grad = None
        found = run(x)
        assert found.tolist() == expected
        found.sum().backward()
        assert x.grad.tolist() == pytest.approx([0, 1, 1, 1, 0])


def test_the_gradient_of_a_quantised_product_is_that_of_the_product() -> None:
    quantize = find_op("", "QuantizeLinear", 21).function
    product = find_op("", "QLinearMatMul", 21).function
    dequantize = find_op("", "DequantizeLinear", 21).function
    step, zero = torch.tensor(0.05), torch.tensor(128, dtype=torch.uint8)
    x = torch.from_numpy(normal(2, 3)).requires_grad_()
    w = torch.tensor([[10], [-20], [5]], dtype=torch.int8)
    of_w = (torch.tensor(0.02), torch.tensor(0, dtype=torch.int8))
    y = product(quantize(x, step, zero), step, zero, w, *of_w, step, zero)
    dequantize(y, step, zero).sum().backward()
    torch.testing.assert_close(x.grad, (0.02 * w.float().T).expand(2, 3))
