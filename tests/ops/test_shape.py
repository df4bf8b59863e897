"""Moving, cutting and joining against onnxruntime."""

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper

from tests.ops.harness import Case, check, expand, ints, name_of, normal

X = normal(2, 3, 4)
END = np.iinfo(np.int64).max
START = np.iinfo(np.int64).min
RATIO, TRAINING = np.float32(0.5), np.array(False)

MATRIX = normal(3, 4, seed=7)

CASES = [
    Case("Constant", (), {"value_float": 0.3}, since=12),
    Case("Constant", (), {"value_floats": [0.3, 0.4]}, since=12),
    Case("Constant", (), {"value_int": 3}, since=12),
    Case("Constant", (), {"value_ints": [3, 4]}, since=12),
    Case("Size", (X,)),
    Case("Range", (np.float32(1), np.float32(3), np.float32(0.5)), since=11, constants=(0, 1, 2)),
    Case("Range", (np.int64(5), np.int64(-1), np.int64(-2)), since=11, constants=(0, 1, 2)),
    Case("EyeLike", (MATRIX,), since=9),
    Case("EyeLike", (MATRIX,), {"k": 1, "dtype": TensorProto.DOUBLE}, since=9),
    Case("CastLike", (X, normal(1)), since=15),
    Case("CastLike", (X, ints(1)), since=15),
    Case("BitCast", (MATRIX,), {"to": TensorProto.INT32}, since=26, unknown_to_onnxruntime=True),
    Case("Identity", (X,)),
    Case("Dropout", (X,), {"ratio": 0.3}, until=11),
    Case("Dropout", (X, RATIO, TRAINING), since=12, constants=(1, 2)),
    Case("Dropout", (X,), since=12, outputs=2),
    Case("Cast", (X,), {"to": TensorProto.DOUBLE}),
    Case("Cast", (X,), {"to": TensorProto.INT64}),
    Case("Cast", (X > 0,), {"to": TensorProto.FLOAT}),
    Case("Shape", (X,)),
    Case("Shape", (X,), {"start": 1, "end": -1}, since=15),
    Case("Reshape", (X, ints(4, 6)), constants=(1,)),
    Case("Reshape", (X, ints(0, -1)), constants=(1,)),
    Case("Reshape", (X, ints(6, 4))),
    Case("Reshape", (X[:0], ints(0, 12)), {"allowzero": 1}, since=14, constants=(1,)),
    Case("Flatten", (X,)),
    Case("Flatten", (X,), {"axis": 0}),
    Case("Flatten", (X,), {"axis": -1}, since=11),
    Case("Transpose", (X,)),
    Case("Transpose", (X,), {"perm": [1, 2, 0]}),
    Case("Squeeze", (X[:1, :, :1],), {"axes": [0]}, until=12),
    Case("Squeeze", (X[:1, :, :1],), {"axes": [-1]}, since=11, until=12),
    Case("Squeeze", (X[:1, :, :1],), note="all"),
    Case("Squeeze", (X[:1, :, :1], ints(0, 2)), since=13, constants=(1,)),
    Case("Unsqueeze", (X,), {"axes": [0, 4]}, until=12),
    Case("Unsqueeze", (X,), {"axes": [-1]}, since=11, until=12),
    Case("Unsqueeze", (X, ints(0, -1)), since=13, constants=(1,)),
    Case("Concat", (X, X[:, :1], X), {"axis": 1}),
    Case("Concat", (X, X), {"axis": -1}, since=11),
    Case("Split", (X,), {"axis": 2}, until=12, outputs=2),
    Case("Split", (X,), {"axis": 1, "split": [1, 2]}, until=12, outputs=2),
    Case("Split", (X, ints(1, 3)), {"axis": 2}, since=13, outputs=2, constants=(1,)),
    Case("Split", (X,), {"axis": 2}, since=13, until=17, outputs=2),
    Case("Split", (X,), {"axis": 1, "num_outputs": 2}, since=18, outputs=2),
    Case("Slice", (X,), {"starts": [1, -3], "ends": [3, END], "axes": [1, 2]}, until=9),
    Case("Slice", (X,), {"starts": [0, 1], "ends": [1, 2]}, until=9),
    Case("Slice", (X, ints(1), ints(END), ints(2)), since=10, constants=(1, 2, 3)),
    Case("Slice", (X, ints(0, 1), ints(1, -1)), since=10, constants=(1, 2)),
    Case("Slice", (X, ints(-1), ints(START), ints(2), ints(-1)), since=10, constants=(1, 2, 3, 4)),
    Case("Slice", (X, ints(-9), ints(START), ints(2), ints(-1)), since=10, note="before the start"),
    Case("Slice", (X, ints(0), ints(4), ints(-1), ints(2)), since=10),
    Case("Slice", (X, ints(3), ints(1), ints(1)), since=10, note="empty"),
    Case("Expand", (X[:, :1], ints(3, 1)), since=8, constants=(1,)),
    Case("Expand", (X, ints(5, 1, 3, 1)), since=8, constants=(1,)),
    Case("Tile", (X, ints(1, 2, 3)), constants=(1,)),
    Case("ConstantOfShape", (ints(2, 3),), since=9),
    Case(
        "ConstantOfShape",
        (ints(2, 3),),
        {"value": numpy_helper.from_array(ints(7))},
        since=9,
        constants=(0,),
    ),
    Case("Pad", (X,), {"pads": [0, 1, 0, 2, 0, 1]}, until=10),
    Case("Pad", (X,), {"pads": [0, 1, 0, 0, 1, 2], "mode": "reflect"}, until=10),
    Case("Pad", (X,), {"pads": [0, 1, 0, 0, 1, 2], "mode": "edge"}, until=10),
    Case("Pad", (X, ints(0, 1, 0, 2, 0, 1)), since=11, constants=(1,)),
    Case("Pad", (X, ints(0, 1, 0, 2, 0, 1), np.float32(3)), since=11, constants=(1, 2)),
    Case("Pad", (X, ints(0, 2, 3, 0, 1, 0)), {"mode": "reflect"}, since=11, constants=(1,)),
    Case("Pad", (X, ints(0, 2, 3, 0, 1, 0)), {"mode": "edge"}, since=11, constants=(1,)),
    Case("Pad", (X, ints(0, 2, 3, 0, 1, 0)), {"mode": "wrap"}, since=19, constants=(1,)),
    Case("Pad", (X, ints(1, 2), None, ints(-1)), since=18, constants=(1, 3)),
    Case("Pad", (X, ints(0, 0, -1, 0, -1, 0)), since=11, constants=(1,), note="cuts"),
]


@pytest.mark.parametrize(("case", "opset"), expand(CASES), ids=name_of)
def test_parity(case: Case, opset: int) -> None:
    check(case, opset)
