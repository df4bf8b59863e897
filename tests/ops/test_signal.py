"""Transforms and windows of signals against onnxruntime."""

from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto

from fcpts_onnx.errors import UnsupportedError
from fcpts_onnx.ops import find_op
from fcpts_onnx.twin import Twin
from tests.ops.harness import Case, check, expand, name_of, normal, one_node


def scalar(value: float, dtype: Any = np.int64) -> np.ndarray:
    """A tensor without axes."""
    return np.array(value, dtype)


REAL, COMPLEX = normal(2, 8, 4, 1), normal(2, 8, 4, 2)
EDGES = (scalar(20.0, np.float32), scalar(3800.0, np.float32))
FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)
# Signal, length, axis, other attributes; the operator takes the axis in two ways. At lengths that
# are no power of two onnxruntime is right to five digits in float32.
TRANSFORMS = [
    (REAL, None, 1, {}),
    (REAL, None, 2, {"onesided": 1}),
    (REAL, None, -2, {}),
    (REAL, scalar(16), 1, {"onesided": 1}),
    (REAL.astype(np.float64), scalar(11), 1, {}),
    (COMPLEX, None, 1, {}),
    (COMPLEX, scalar(4), 1, {}),
    (COMPLEX, None, 1, {"inverse": 1}),
    (COMPLEX.astype(np.float64), None, 1, {"inverse": 1, "onesided": 1}),
    (COMPLEX.astype(np.float64), scalar(15), 1, {"inverse": 1, "onesided": 1}),
]

CASES = [
    *(
        Case("DFT", (x, length), {"axis": axis, **more}, since=17, until=19)
        for x, length, axis, more in TRANSFORMS
    ),
    *(
        Case("DFT", (x, length, scalar(axis)), more, since=20, note=f"axis {axis}")
        for x, length, axis, more in TRANSFORMS
    ),
    Case("DFT", (REAL,), since=20),
    Case("STFT", (normal(2, 20, 1), scalar(3), normal(8)), since=17),
    Case("STFT", (normal(2, 20, 1), scalar(3), None, scalar(8)), since=17),
    Case("STFT", (normal(2, 20, 1), scalar(3), normal(8), scalar(8)), {"onesided": 0}, since=17),
    Case("STFT", (normal(2, 20, 2), scalar(4), normal(8)), {"onesided": 0}, since=17),
    Case("STFT", (normal(2, 20, 2), scalar(4), normal(8)), since=17),
    *(
        Case(name, (scalar(9),), attributes, since=17)
        for name in ("HannWindow", "HammingWindow", "BlackmanWindow")
        for attributes in (
            {},
            {"periodic": 0},
            *({"output_datatype": dtype} for dtype in FLOATS),
        )
    ),
    *(
        Case(
            "MelWeightMatrix",
            (scalar(10), scalar(64), scalar(8000), *EDGES),
            {"output_datatype": dtype},
            since=17,
        )
        for dtype in (*FLOATS, TensorProto.INT32)
    ),
    Case("MelWeightMatrix", (scalar(10), scalar(16), scalar(8000), *EDGES), since=17, note="close"),
]


@pytest.mark.parametrize(("case", "opset"), expand(CASES), ids=name_of)
def test_parity(case: Case, opset: int) -> None:
    check(case, opset)


def test_half_a_transform_of_another_length_is_refused() -> None:
    case = Case("DFT", (COMPLEX, scalar(9)), {"inverse": 1, "onesided": 1})
    twin = Twin(one_node(case, 17))
    with pytest.raises(RuntimeError, match="8 are not one half of 9 frequencies"):
        twin({"x0": torch.from_numpy(COMPLEX), "x1": torch.tensor(9)})


def test_windows_of_integers_are_refused() -> None:
    case = Case("HannWindow", (scalar(9),), {"output_datatype": TensorProto.INT32})
    with pytest.raises(UnsupportedError, match="output_datatype=6"):
        Twin(one_node(case, 17))


def test_gradients() -> None:
    x = torch.tensor(REAL, dtype=torch.float64, requires_grad=True)
    dft = find_op("", "DFT", 20).function
    assert torch.autograd.gradcheck(lambda x: dft(x, onesided=1), (x,), fast_mode=True)
