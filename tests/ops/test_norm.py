"""Normalisation against onnxruntime."""

import numpy as np
import pytest

from tests.ops.harness import Case, check, expand, name_of, normal

X = normal(2, 5, 4, 3)
SCALE, SHIFT, MEAN = normal(5, seed=1), normal(5, seed=2), normal(5, seed=3)
VARIANCE = np.abs(normal(5, seed=4)) + 0.1

CASES = [
    Case("BatchNormalization", (X, SCALE, SHIFT, MEAN, VARIANCE)),
    Case("BatchNormalization", (X, SCALE, SHIFT, MEAN, VARIANCE), {"epsilon": 0.1}),
    Case("BatchNormalization", (X[:, :, 0, 0], SCALE, SHIFT, MEAN, VARIANCE)),
    Case("BatchNormalization", (X, SCALE, SHIFT, MEAN, VARIANCE), {"spatial": 1}, until=8),
    Case("BatchNormalization", (X, SCALE, SHIFT, MEAN, VARIANCE), {"training_mode": 0}, since=14),
    Case("InstanceNormalization", (X, SCALE, SHIFT)),
    Case("LayerNormalization", (X, normal(3)), since=17),
    Case("LayerNormalization", (X, normal(4, 3), normal(4, 3)), {"axis": 2}, since=17),
    Case("LRN", (X,), {"size": 3}),
    Case("LRN", (X,), {"size": 5, "alpha": 0.01, "beta": 0.5, "bias": 2.0}),
]


@pytest.mark.parametrize(("case", "opset"), expand(CASES), ids=name_of)
def test_parity(case: Case, opset: int) -> None:
    check(case, opset)
