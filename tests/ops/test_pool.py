"""Pooling against onnxruntime."""

import numpy as np
import pytest
import torch

from fcpts_onnx.ops.pool import lp_pool, max_pool, max_unpool
from tests.ops.harness import Case, check, expand, ints, name_of, normal

LINE, PLANE, SPACE = normal(2, 3, 9), normal(2, 3, 9, 8), normal(1, 2, 5, 6, 4)


def both(x, attributes, since=7):
    """The case for either pool."""
    return [Case(name, (x,), attributes, since) for name in ("MaxPool", "AveragePool")]


def indexed(x, attributes, since=8, note=""):
    """The case of MaxPool with both outputs."""
    return Case("MaxPool", (x,), attributes, since, outputs=2, note=note)


WINDOWS = {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [0, 1, 2, 0]}
PLACES = np.array([5, 0, 15, 8, 16, 31, 20, 17]).reshape(1, 2, 2, 2)

CASES = [
    *both(LINE, {"kernel_shape": [3]}),
    *both(PLANE, {"kernel_shape": [2, 2], "strides": [2, 2]}),
    *both(PLANE, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    *both(PLANE, {"kernel_shape": [3, 2], "pads": [0, 1, 2, 0]}),
    *both(PLANE, {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    *both(PLANE, {"kernel_shape": [2, 2], "auto_pad": "SAME_LOWER"}),
    *both(PLANE, {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, 10),
    *both(
        PLANE, {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1, "pads": [1, 1, 1, 1]}, 10
    ),
    *both(SPACE, {"kernel_shape": [2, 3, 2], "strides": [1, 2, 2]}),
    Case("MaxPool", (PLANE,), {"kernel_shape": [2, 2], "dilations": [2, 3]}, since=10),
    Case("AveragePool", (PLANE,), {"kernel_shape": [2, 2], "dilations": [2, 3]}, since=19),
    Case(
        "AveragePool",
        (PLANE,),
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
    ),
    Case(
        "AveragePool",
        (PLANE,),
        {
            "kernel_shape": [3, 3],
            "pads": [1, 1, 1, 1],
            "strides": [3, 3],
            "count_include_pad": 1,
            "ceil_mode": 1,
        },
        since=19,
    ),
    *(indexed(x, {"kernel_shape": [2] * (x.ndim - 2)}) for x in (LINE, PLANE, SPACE)),
    *(indexed(x, {"kernel_shape": [2] * (x.ndim - 2), "storage_order": 1}) for x in (PLANE, SPACE)),
    *(indexed(PLANE, {**WINDOWS, "storage_order": order}) for order in (0, 1)),
    indexed(np.round(PLANE), {"kernel_shape": [3, 3], "pads": [1] * 4}, note="equal values"),
    indexed(PLANE, {"kernel_shape": [3, 3], "dilations": [1, 2], "ceil_mode": 1}, 10),
    *(
        Case("MaxPool", (array.astype(dtype),), WINDOWS, since=12, outputs=outputs)
        for array, dtype in ((50 * PLANE, np.int8), (50 * abs(PLANE), np.uint8))
        for outputs in (1, 2)
    ),
    # Where the padding is left to it, onnxruntime does not think of the dilation.
    *(
        Case(name, (PLANE,), {"kernel_shape": [3, 2], "dilations": [2, 3], "auto_pad": how}, 19)
        for name in ("MaxPool", "AveragePool", "LpPool")
        for how in ("SAME_UPPER", "SAME_LOWER")
    ),
    Case("MaxUnpool", (normal(1, 2, 2, 2), PLACES), {"kernel_shape": [2, 2], "strides": [2, 2]}, 9),
    Case(
        "MaxUnpool",
        (normal(1, 2, 2, 2), PLACES),
        {"kernel_shape": [3, 2], "strides": [3, 2], "pads": [1, 0, 1, 0]},
        since=9,
    ),
    Case(
        "MaxUnpool",
        (normal(1, 2, 2, 2), PLACES, ints(1, 2, 5, 5)),
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        since=9,
    ),
    *(Case("LpPool", (x,), {"kernel_shape": [3] * (x.ndim - 2)}) for x in (LINE, PLANE, SPACE)),
    *(Case("LpPool", (PLANE,), {**WINDOWS, "p": p}) for p in (1, 2, 3)),
    Case("LpPool", (PLANE,), {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER"}),
    Case(
        "LpPool",
        (PLANE,),
        {"kernel_shape": [3, 2], "strides": [2, 3], "dilations": [2, 1], "ceil_mode": 1},
        since=18,
    ),
    *(Case("GlobalLpPool", (PLANE,), {"p": p}, until=21) for p in (1, 2, 3)),
    Case("GlobalAveragePool", (LINE,)),
    Case("GlobalAveragePool", (PLANE,)),
    Case("GlobalMaxPool", (PLANE,)),
]


@pytest.mark.parametrize(("case", "opset"), expand(CASES), ids=name_of)
def test_parity(case: Case, opset: int) -> None:
    check(case, opset)


def test_the_gradient_of_lp_pool_is_finite_where_all_is_zero() -> None:
    x = torch.zeros(1, 1, 4, 4, requires_grad=True)
    lp_pool(x, kernel_shape=[2, 2]).sum().backward()
    assert x.grad.isfinite().all()


def test_unpooling_puts_maxima_back_where_they_were() -> None:
    x = torch.randn(2, 3, 6, 4, dtype=torch.float64, requires_grad=True)

    def there_and_back(x: torch.Tensor) -> torch.Tensor:
        y, indices = max_pool(x, kernel_shape=[2, 2], strides=[2, 2], outputs=2)
        return max_unpool(y, indices, kernel_shape=[2, 2], strides=[2, 2])

    found = there_and_back(x)
    assert torch.equal(found[found != 0], x[found != 0])
    assert found.count_nonzero() == 2 * 3 * 6
    assert torch.autograd.gradcheck(there_and_back, (x,))
