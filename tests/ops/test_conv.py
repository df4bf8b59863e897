"""Convolutions against onnxruntime."""

import pytest

from tests.ops.harness import Case, check, expand, name_of, normal

LINE, PLANE, SPACE = normal(2, 4, 9), normal(2, 4, 9, 8), normal(1, 2, 5, 6, 4)

CASES = [
    Case("Conv", (LINE, normal(6, 4, 3)), {"pads": [1, 1]}),
    Case("Conv", (LINE, normal(6, 4, 3)), {"strides": [2], "dilations": [2]}),
    Case("Conv", (PLANE, normal(6, 4, 3, 3), normal(6)), {"pads": [1, 1, 1, 1]}),
    Case("Conv", (PLANE, normal(6, 4, 3, 2)), {"pads": [0, 1, 2, 0], "strides": [2, 1]}),
    Case("Conv", (PLANE, normal(8, 2, 3, 3)), {"group": 2, "kernel_shape": [3, 3]}),
    Case("Conv", (PLANE, normal(4, 1, 3, 3), normal(4)), {"group": 4, "dilations": [2, 2]}),
    Case("Conv", (PLANE, normal(6, 4, 3, 3)), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    Case("Conv", (PLANE, normal(6, 4, 4, 4)), {"auto_pad": "SAME_LOWER"}),
    Case("Conv", (PLANE, normal(6, 4, 3, 3)), {"auto_pad": "VALID"}),
    Case("Conv", (SPACE, normal(3, 2, 2, 3, 2), normal(3)), {"pads": [1, 0, 1, 0, 1, 0]}),
    Case("ConvTranspose", (LINE, normal(4, 3, 3)), {"strides": [2]}),
    Case("ConvTranspose", (PLANE, normal(4, 3, 3, 3), normal(3)), {"pads": [1, 1, 1, 1]}),
    Case(
        "ConvTranspose",
        (PLANE, normal(4, 3, 3, 3)),
        {"strides": [2, 2], "pads": [1, 0, 0, 1], "output_padding": [1, 1]},
    ),
    Case("ConvTranspose", (PLANE, normal(4, 2, 3, 3)), {"group": 2, "dilations": [2, 1]}),
    Case(
        "ConvTranspose",
        (PLANE, normal(4, 3, 3, 3)),
        {"strides": [2, 2], "output_shape": [18, 16]},
    ),
    Case(
        "ConvTranspose",
        (PLANE, normal(4, 3, 3, 3)),
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
    ),
    Case(
        "ConvTranspose",
        (PLANE, normal(4, 3, 4, 4)),
        {"strides": [3, 3], "auto_pad": "SAME_LOWER"},
    ),
    Case(
        "ConvTranspose",
        (PLANE, normal(4, 3, 2, 2), normal(3)),
        {"strides": [2, 2], "output_padding": [1, 1]},
    ),
    Case(
        "ConvTranspose",
        (PLANE, normal(4, 3, 2, 2), normal(3)),
        {"strides": [3, 3], "auto_pad": "SAME_UPPER"},
    ),
    Case("ConvTranspose", (SPACE, normal(2, 3, 2, 2, 2)), {"strides": [2, 1, 2]}),
]


@pytest.mark.parametrize(("case", "opset"), expand(CASES), ids=name_of)
def test_parity(case: Case, opset: int) -> None:
    check(case, opset)
