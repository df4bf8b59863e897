"""Normalisation against onnxruntime."""

import numpy as np
import pytest
import torch

from fcpts_onnx.ops.norm import batch_normalization
from tests.ops.harness import Case, check, expand, name_of, normal

X = normal(2, 5, 4, 3)
SCALE, SHIFT, MEAN = normal(5, seed=1), normal(5, seed=2), normal(5, seed=3)
VARIANCE = np.abs(normal(5, seed=4)) + 0.1
SINGLE = (X[:, 0, 0, 0], SCALE[:1], SHIFT[:1], MEAN[:1], VARIANCE[:1])


def half(*shape: int, seed: int = 0) -> np.ndarray:
    """Random normal values of 16 bits."""
    return normal(*shape, seed=seed, dtype=np.float16)


def double(*shape: int, seed: int = 0) -> np.ndarray:
    """Random normal values of 64 bits."""
    return normal(*shape, seed=seed, dtype=np.float64)


CASES = [
    Case("BatchNormalization", (X, SCALE, SHIFT, MEAN, VARIANCE)),
    Case("BatchNormalization", (X, SCALE, SHIFT, MEAN, VARIANCE), {"epsilon": 0.1}),
    Case("BatchNormalization", (X[:, :, 0, 0], SCALE, SHIFT, MEAN, VARIANCE)),
    Case("BatchNormalization", SINGLE),
    Case("BatchNormalization", (X, SCALE, SHIFT, MEAN, VARIANCE), {"spatial": 1}, until=8),
    Case("BatchNormalization", (X, SCALE, SHIFT, MEAN, VARIANCE), {"training_mode": 0}, since=14),
    *(
        Case(
            "BatchNormalization",
            (x, SCALE, SHIFT, MEAN, VARIANCE),
            {"training_mode": 1, **more},
            since=14,
            outputs=3,
        )
        for x in (X, X[:, :, 0, 0])
        for more in ({}, {"momentum": 0.7, "epsilon": 0.1})
    ),
    Case("BatchNormalization", SINGLE, {"training_mode": 1}, since=14, outputs=3),
    *(
        Case("BatchNormalization", (x, SCALE, SHIFT, MEAN, VARIANCE), more, until=13, outputs=5)
        for x in (X, X[:, :, 0, 0])
        for more in ({}, {"momentum": 0.7, "epsilon": 0.1})
    ),
    Case("InstanceNormalization", (X, SCALE, SHIFT)),
    Case("InstanceNormalization", (X[:1], SCALE, SHIFT), {"epsilon": 0.1}),
    Case("InstanceNormalization", (np.zeros((1, 5, 1, 1), np.float32), SCALE, SHIFT)),
    Case("GroupNormalization", (normal(2, 6, 4), *normal(2, 3)), {"num_groups": 3}, 18, 20),
    Case("GroupNormalization", (normal(2, 6, 4), *normal(2, 6)), {"num_groups": 3}, since=21),
    Case("GroupNormalization", (half(2, 6, 4), *half(2, 3)), {"num_groups": 3}, 18, 20),
    Case(
        "GroupNormalization",
        (half(2, 6, 4), *half(2, 6)),
        {"num_groups": 2, "epsilon": 0.1, "stash_type": 1},
        since=21,
    ),
    *(
        Case("LayerNormalization", inputs, attributes, since=17, outputs=outputs)
        for kind in (normal, half, double)
        for inputs, attributes in (
            ((kind(2, 4, 3), kind(3, seed=1)), {}),
            ((kind(2, 4, 3), kind(4, 3, seed=1), kind(4, 3, seed=2)), {"axis": 1, "epsilon": 0.1}),
        )
        for outputs in (1, 2, 3)
    ),
    Case("LayerNormalization", (X, normal(4, 1), normal(1)), {"axis": 2}, since=17),
    Case("LayerNormalization", (X, normal(2, 1, 4, 3)), {"axis": -2}, since=17),
    Case("RMSNormalization", (X, normal(3)), since=23),
    Case("RMSNormalization", (X, normal(4, 3)), {"axis": 2, "epsilon": 0.1}, since=23),
    Case("RMSNormalization", (half(2, 4, 3), half(3, seed=1)), since=23),
    Case("RMSNormalization", (double(2, 4, 3), double(1, seed=1)), {"stash_type": 1}, since=23),
    *(
        Case("LpNormalization", (x,), {"p": p, "axis": axis})
        for p in (1, 2)
        for axis in (0, -1)
        for x in (X, double(2, 3))
    ),
    Case("LpNormalization", (np.zeros((2, 3), np.float32),), note="zeros"),
    Case("MeanVarianceNormalization", (X,), since=9),
    Case("MeanVarianceNormalization", (X,), {"axes": [1, -1]}, since=9),
    Case("MeanVarianceNormalization", (np.ones((1, 2, 2, 2), np.float32),), since=9, note="ones"),
    Case("LRN", (X,), {"size": 3}),
    Case("LRN", (X,), {"size": 5, "alpha": 0.01, "beta": 0.5, "bias": 2.0}),
]


@pytest.mark.parametrize(("case", "opset"), expand(CASES), ids=name_of)
def test_parity(case: Case, opset: int) -> None:
    check(case, opset)


def test_layer_normalization_as_onnxruntime_writes_it_below_opset_17() -> None:
    check(Case("LayerNormalization", (X, normal(3), normal(3, seed=1)), outputs=3), 13)


def test_norms_of_the_batch_are_differentiable() -> None:
    shapes = ((4, 3, 2), (3,), (3,), (3,), (3,))
    inputs = [torch.from_numpy(normal(*shape).astype("float64")) for shape in shapes]
    inputs = [value.requires_grad_() for value in inputs[:3]] + inputs[3:]

    def norm(*inputs: torch.Tensor) -> torch.Tensor:
        return batch_normalization(*inputs, training_mode=1, outputs=1)[0]

    assert torch.autograd.gradcheck(norm, inputs)
