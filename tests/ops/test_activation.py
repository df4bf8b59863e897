"""Activations against onnxruntime."""

import numpy as np
import pytest

from tests.ops.harness import Case, check, expand, name_of, normal

X = normal(2, 3, 4)
MATRIX = normal(3, 5)

CASES = [
    Case("Relu", (X,)),
    Case("LeakyRelu", (X,)),
    Case("LeakyRelu", (X,), {"alpha": 0.3}),
    Case("PRelu", (X, normal(3, 1, seed=1))),
    Case("PRelu", (X, normal(1, seed=1)), constants=(1,)),
    Case("Elu", (X,), {"alpha": 0.7}),
    Case("Sigmoid", (X,)),
    Case("HardSigmoid", (X,)),
    Case("HardSigmoid", (X,), {"alpha": 1 / 6, "beta": 0.5}),
    Case("HardSwish", (3 * X,), since=14),
    Case("Tanh", (X,)),
    Case("Gelu", (X,), since=20),
    Case("Gelu", (X,), {"approximate": "tanh"}, since=20),
    Case("Selu", (X,)),
    Case("Selu", (X,), {"alpha": 0.5, "gamma": 2.0}),
    Case("Celu", (X,), since=12),
    Case("Celu", (X,), {"alpha": 0.5}, since=12),
    Case("Mish", (X,), since=18),
    Case("Softplus", (X,)),
    Case("Softsign", (X,)),
    Case("ThresholdedRelu", (X,), since=10),
    Case("ThresholdedRelu", (X,), {"alpha": 0.3}, since=10),
    Case("Hardmax", (X,)),
    Case("Hardmax", (X,), {"axis": 2}),
    Case("Hardmax", (np.float32([[1, 3, 3, 0]]),)),
    Case("Clip", (X,), {"min": -0.5, "max": 0.5}, until=10),
    Case("Clip", (X,), {"max": 0.5}, until=10),
    Case("Clip", (X,), until=10),
    Case("Clip", (X, np.float32(-0.5), np.float32(0.5)), since=11, constants=(1, 2)),
    Case("Clip", (X, None, np.float32(0.5)), since=11, constants=(2,)),
    Case("Clip", (X, np.float32(0)), since=11, constants=(1,)),
    Case("Clip", (X,), since=11),
    Case("Softmax", (X,)),
    Case("Softmax", (X,), {"axis": 0}),
    Case("Softmax", (X,), {"axis": -2}, since=11),
    Case("Softmax", (MATRIX,), {"axis": 1}),
    Case("LogSoftmax", (X,)),
    Case("LogSoftmax", (X,), {"axis": 2}),
]


@pytest.mark.parametrize(("case", "opset"), expand(CASES), ids=name_of)
def test_parity(case: Case, opset: int) -> None:
    check(case, opset)
