"""Operators of onnxruntime's own domain against onnxruntime."""

from typing import Any

import numpy as np
import pytest

from fcpts_onnx.errors import UnsupportedError
from fcpts_onnx.twin import Twin
from tests.ops.harness import Case, check, expand, name_of, normal, one_node
from tests.ops.test_quantize import PAIRS, floats, scale, scales, whole

X = normal(2, 3, 8)
IMAGE, KERNEL, BIAS, ADDED = normal(1, 3, 6, 5), normal(4, 3, 3, 3), normal(4), normal(1, 4, 6, 5)


def of_microsoft(
    op: str, inputs: tuple[Any, ...], attributes: dict[str, Any] | None = None, **more: Any
) -> Case:
    """A case in that domain."""
    return Case(op, inputs, attributes or {}, domain="com.microsoft", **more)


def half(*shape: int, seed: int = 0) -> np.ndarray:
    """Random normal values of 16 bits."""
    return normal(*shape, seed=seed, dtype=np.float16)


def quantised(dtype: Any) -> list[Case]:
    """The operators of quantised tensors, of one type."""

    def zero(value: int) -> np.ndarray:
        return np.array(value, dtype)

    a, b, image = whole(dtype, 4, 30), whole(dtype, 4, 30, seed=1), whole(dtype, 2, 3, 7, 6)
    of_a, of_b, of_y = (scale(0.023), zero(3)), (scale(0.031), zero(5)), (scale(0.047), zero(7))
    # With these, many results lie halfway between two integers.
    tied = ((scale(0.5), zero(3)), (scale(0.25), zero(5)), (scale(8), zero(7)))
    note = np.dtype(dtype).name
    pools: list[dict[str, Any]] = [
        {},
        {"pads": [1, 1, 1, 1]},
        {"pads": [1, 0, 1, 1], "strides": [2, 2], "count_include_pad": 1},
        {"ceil_mode": 1, "strides": [2, 2]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"channels_last": 1},
    ]
    return [
        *(
            of_microsoft(op, (a, *of_a, b, *of_b, *of_y), note=note)
            for op in ("QLinearAdd", "QLinearMul")
        ),
        of_microsoft(
            "QLinearAdd", (a, *tied[0], b, *tied[1], scale(1), zero(7)), note=f"{note} tied"
        ),
        of_microsoft("QLinearMul", (a, *tied[0], b, *tied[1], *tied[2]), note=f"{note} tied"),
        of_microsoft("QLinearAdd", (a, *of_a, b[:1], *of_b, *of_y), note=note),
        *(
            of_microsoft(
                "QLinearSoftmax",
                (
                    image,
                    scale(0.05),
                    zero(3),
                    scale(1 / 256),
                    zero(-128 if dtype is np.int8 else 0),
                ),
                {"axis": axis, "opset": opset},
                note=note,
            )
            for axis, opset in ((-1, 13), (1, 13), (2, 12), (3, 9))
        ),
        of_microsoft("QLinearSigmoid", (a, *of_a, scale(1 / 256), zero(7)), note=note),
        of_microsoft("QLinearLeakyRelu", (a, *of_a, *of_y), note=note),
        of_microsoft("QLinearLeakyRelu", (a, *of_a, *of_y), {"alpha": 0.3}, note=note),
        *(
            of_microsoft(
                "QLinearAveragePool",
                (image, *of_a, *of_y),
                {"kernel_shape": [3, 2], **more},
                note=note,
            )
            for more in pools
        ),
        *(
            of_microsoft(
                "QLinearGlobalAveragePool",
                (image, *of_a, scale(0.007), zero(7)),
                {"channels_last": last},
                note=note,
            )
            for last in (0, 1)
        ),
        of_microsoft("QLinearConcat", (*of_y, a, *of_a, b, *of_b), {"axis": 1}, note=note),
        of_microsoft("QuantizeLinear", (floats(4, 6), scale(0.1), zero(7)), note=note),
        of_microsoft(
            "QuantizeLinear", (floats(4, 6), scales(6), whole(dtype, 6)), {"axis": 1}, note=note
        ),
        of_microsoft("DequantizeLinear", (a, scale(0.1), zero(7)), note=note),
        of_microsoft("DequantizeLinear", (a, scales(4), whole(dtype, 4)), {"axis": 0}, note=note),
    ]


CASES = [
    of_microsoft("Gelu", (X,)),
    of_microsoft("BiasGelu", (X, normal(8))),
    of_microsoft("FastGelu", (X,)),
    of_microsoft("FastGelu", (X, normal(8))),
    of_microsoft("QuickGelu", (X,)),
    of_microsoft("QuickGelu", (X,), {"alpha": 1.0}),
    *(
        of_microsoft(
            "FusedConv",
            (IMAGE, KERNEL, BIAS),
            {"activation": name, **({"activation_params": values} if values else {})},
        )
        for name, values in (
            ("Relu", []),
            ("LeakyRelu", [0.2]),
            ("Tanh", []),
            ("Sigmoid", []),
            ("Clip", [-0.5, 0.7]),
            ("HardSigmoid", [0.3, 0.4]),
            ("HardSwish", []),
        )
    ),
    of_microsoft("FusedConv", (IMAGE, KERNEL)),
    of_microsoft(
        "FusedConv", (IMAGE, KERNEL, BIAS, ADDED), {"activation": "Relu", "pads": [1, 1, 1, 1]}
    ),
    of_microsoft(
        "FusedConv",
        (IMAGE, KERNEL),
        {"auto_pad": "SAME_UPPER", "strides": [2, 1], "activation": "Relu"},
    ),
    *(
        of_microsoft(
            "FusedGemm", (normal(3, 4), normal(4, 5), normal(5)), {"activation": name, **more}
        )
        for name, more in (
            ("Relu", {"alpha": 0.5, "beta": 2.0}),
            ("LeakyRelu", {"activation_alpha": 0.2}),
            ("Tanh", {}),
            ("Sigmoid", {}),
            ("Elu", {"activation_alpha": 0.4}),
            ("HardSigmoid", {"activation_alpha": 0.3, "activation_beta": 0.4}),
            ("Softplus", {}),
            ("Softsign", {}),
            ("ThresholdedRelu", {"activation_alpha": 0.2}),
            ("Selu", {"activation_alpha": 1.5, "activation_gamma": 1.1}),
        )
    ),
    of_microsoft(
        "FusedGemm", (normal(4, 3), normal(5, 4)), {"activation": "Relu", "transA": 1, "transB": 1}
    ),
    *(
        of_microsoft("FusedMatMul", (normal(*a), normal(*b)), attributes)
        for a, b, attributes in (
            ((2, 3, 4), (2, 4, 5), {"alpha": 0.3}),
            ((2, 4, 3), (2, 5, 4), {"transA": 1, "transB": 1}),
            ((3, 2, 4), (4, 2, 5), {"transBatchA": 1, "transBatchB": 1}),
            ((3, 2, 6, 4), (5, 2, 6, 4), {"transBatchA": 1, "transBatchB": 1, "transB": 1}),
            (
                (4, 2, 6, 3),
                (5, 2, 6, 4),
                {"transBatchA": 1, "transBatchB": 1, "transA": 1, "transB": 1},
            ),
        )
    ),
    of_microsoft("SkipLayerNormalization", (X, normal(2, 3, 8, seed=1), normal(8))),
    *(
        of_microsoft(
            "SkipLayerNormalization",
            (X, normal(*shape, seed=1), *normal(3, 8, seed=2)),
            {"epsilon": 1e-3},
            outputs=4,
        )
        for shape in ((2, 3, 8), (1, 3, 8), (3, 8))
    ),
    of_microsoft(
        "SkipLayerNormalization",
        (half(2, 3, 8), half(2, 3, 8, seed=1), half(8, seed=2), half(8, seed=3)),
    ),
    *(case for dtype in (np.uint8, np.int8) for case in quantised(dtype)),
    *(
        of_microsoft(
            "QGemm",
            (
                whole(left, 3, 8),
                scale(0.02),
                scale(3, left),
                whole(right, 5, 8, seed=1, bits=6),
                *((scales(5), np.zeros(5, right)) if each else (scale(0.03), scale(2, right))),
                np.arange(-500, 500, 200, dtype=np.int32) if bias else None,
                *((scale(0.3), scale(7, left)) if quantises else ()),
            ),
            {"transB": 1, "alpha": alpha},
            note=f"{np.dtype(left).name} {np.dtype(right).name}",
        )
        for left, right in PAIRS
        for each, bias, quantises, alpha in (
            (False, True, True, 1.0),
            (True, True, True, 1.0),
            (False, True, False, 1.0),
            (False, False, True, 0.5),
        )
    ),
    of_microsoft(
        "QGemm",
        (
            whole(np.uint8, 8, 3),
            scale(0.02),
            scale(3, np.uint8),
            whole(np.uint8, 8, 5, seed=1, bits=6),
            scale(0.03),
            scale(2, np.uint8),
        ),
        {"transA": 1},
    ),
    of_microsoft("DequantizeLinear", (whole(np.int32, 3, 4, bits=31), scale(0.1))),
    of_microsoft("QuantizeLinear", (floats(3, 4), scale(0.1))),
    of_microsoft("QuantizeLinear", (floats(3, 4), scale(0.001), scale(5, np.uint16))),
]


@pytest.mark.parametrize(("case", "opset"), expand(CASES), ids=name_of)
def test_parity(case: Case, opset: int) -> None:
    check(case, opset)


def test_activations_that_nobody_fuses_are_refused() -> None:
    case = of_microsoft("FusedConv", (IMAGE, KERNEL), {"activation": "Celu"})
    with pytest.raises(UnsupportedError, match="activation=Celu"):
        Twin(one_node(case, 17))


def test_a_transposed_matrix_times_a_vector_is_refused() -> None:
    case = of_microsoft("FusedMatMul", (normal(4, 5), normal(4)), {"transA": 1})
    with pytest.raises(RuntimeError, match="does not transpose"):
        check(case, 17)
