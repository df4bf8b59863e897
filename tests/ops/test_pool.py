"""Pooling against onnxruntime."""

import pytest

from tests.ops.harness import Case, check, expand, name_of, normal

LINE, PLANE, SPACE = normal(2, 3, 9), normal(2, 3, 9, 8), normal(1, 2, 5, 6, 4)


def both(x, attributes, since=7):
    """The case for either pool."""
    return [Case(name, (x,), attributes, since) for name in ("MaxPool", "AveragePool")]


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
    Case("GlobalAveragePool", (LINE,)),
    Case("GlobalAveragePool", (PLANE,)),
    Case("GlobalMaxPool", (PLANE,)),
]


@pytest.mark.parametrize(("case", "opset"), expand(CASES), ids=name_of)
def test_parity(case: Case, opset: int) -> None:
    check(case, opset)
