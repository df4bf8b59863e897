"""What differs between two files: tensors one by one, and the parts of all else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from fcpts_onnx.difference import difference
from fcpts_onnx.model import STAMP, Model, load
from fcpts_onnx.texts import to_json
from tests import networks
from tests.networks import loaded


def copy(path: Path, **arrays: np.ndarray) -> Model:
    """The network with other values for some tensors; dots of names are double underscores."""
    proto = networks.cnn()
    for tensor in proto.graph.initializer:
        name = tensor.name.replace(".", "__")
        if name in arrays:
            tensor.CopyFrom(numpy_helper.from_array(arrays[name], tensor.name))
    return loaded(proto, path)


@pytest.fixture
def first(tmp_path: Path) -> Model:
    return loaded(networks.cnn(), tmp_path / "first.onnx")


def test_a_tensor(first: Model, tmp_path: Path) -> None:
    bias = first.array("fc.b").copy()
    bias[:2] = 0.0
    found = difference(first, copy(tmp_path / "b.onnx", fc__b=bias))
    (tensor,) = found.tensors
    assert (tensor.name, tensor.counts, tensor.zeros, tensor.changed) == ("fc.b", (4, 4), (0, 2), 2)
    assert tensor.types == ("float32[4]", "float32[4]")
    assert tensor.largest == pytest.approx(np.abs(first.array("fc.b")[:2]).max())
    assert (found.only_first, found.only_second, found.parts) == ((), (), ())


def test_a_sign_of_zero_counts(tmp_path: Path) -> None:
    zeros = np.zeros(4, np.float32)
    one, two = copy(tmp_path / "a.onnx", fc__b=zeros), copy(tmp_path / "b.onnx", fc__b=-zeros)
    (tensor,) = difference(one, two).tensors
    assert (tensor.changed, tensor.largest) == (0, 0.0)


def test_another_shape_or_type(first: Model, tmp_path: Path) -> None:
    wide = copy(tmp_path / "a.onnx", fc__b=np.ones((1, 4), np.float32))
    found = difference(first, wide)
    assert (found.tensors[0].changed, found.tensors[0].largest) == (None, None)
    assert found.parts == ("graph.initializer",)
    double = copy(tmp_path / "b.onnx", fc__b=first.array("fc.b").astype(np.float64))
    assert difference(first, double).tensors[0].types == ("float32[4]", "float64[4]")


def with_constant(path: Path, values: np.ndarray) -> Model:
    proto = networks.cnn()
    proto.graph.initializer.append(numpy_helper.from_array(values, "more"))
    return loaded(proto, path)


@pytest.mark.parametrize(
    ("one", "two", "changed", "largest"),
    [
        ([np.inf, np.nan, 1.0], [np.inf, np.nan, 3.0], 1, 2.0),
        ([1.0, 2.0], [np.nan, 2.0], 1, None),
        ([2**60, 1], [2**60 + 1, 1], 1, 0.0),  # beyond what a float tells apart
        (["a", "b"], ["a", "c"], 1, None),
        (7.0, 9.0, 1, 2.0),
    ],
    ids=str,
)
def test_any_values(
    one: object, two: object, changed: int, largest: float | None, tmp_path: Path
) -> None:
    first, second = (
        with_constant(tmp_path / f"{name}.onnx", np.array(values))
        for name, values in (("a", one), ("b", two))
    )
    found = difference(first, second)
    (tensor,) = found.tensors
    assert (tensor.changed, tensor.largest) == (changed, largest)
    assert '"more"' in to_json(found)


def test_texts_that_are_the_same(tmp_path: Path) -> None:
    one, two = (with_constant(tmp_path / f"{n}.onnx", np.array(["cat", "dog"])) for n in "ab")
    assert difference(one, two).tensors == ()


def test_zeros_of_whole_numbers_are_zero_points(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "scale", "point"], ["v"]),
        helper.make_node("MatMul", ["x", "v"], ["y"]),
    ]
    shapes = {"x": ["N", 3]}, {"y": ["N", 2]}
    settings = {"scale": np.float32(0.1), "point": np.uint8(128)}
    first, second = (
        loaded(
            networks.make(nodes, {"w": np.array(w, np.uint8), **settings}, *shapes),
            tmp_path / f"{place}.onnx",
        )
        for place, w in enumerate(([[0, 128], [7, 9], [9, 9]], [[0, 128], [128, 128], [9, 9]]))
    )
    assert [tensor.zeros for tensor in difference(first, second).tensors] == [(1, 3)]


def test_a_tensor_that_the_other_lacks(first: Model, tmp_path: Path) -> None:
    proto = networks.cnn()
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros(2, np.float32), "more"))
    second = loaded(proto, tmp_path / "b.onnx")
    assert difference(first, second).only_second == ("more",)
    assert difference(second, first).only_first == ("more",)


def test_where_values_are_stored_does_not_count(first: Model, tmp_path: Path) -> None:
    onnx.save(networks.cnn(), str(tmp_path / "d.onnx"), save_as_external_data=True)
    found = difference(first, load(tmp_path / "d.onnx"))
    assert (found.tensors, found.parts) == ((), ())


def test_all_else_counts(first: Model, tmp_path: Path) -> None:
    proto = networks.cnn()
    proto.graph.node[0].name = "renamed"
    proto.doc_string = "more"
    proto.metadata_props.add(key="author", value="somebody")
    found = difference(first, loaded(proto, tmp_path / "e.onnx"))
    assert found.parts == ("doc_string", "graph.node", "metadata_props")


@pytest.mark.parametrize("field", ["doc_string", "metadata_props"])
def test_what_is_said_of_a_tensor_counts(field: str, first: Model, tmp_path: Path) -> None:
    proto = networks.cnn()
    if field == "doc_string":
        proto.graph.initializer[0].doc_string = "more"
    else:
        proto.graph.initializer[0].metadata_props.add(key="author", value="somebody")
    found = difference(first, loaded(proto, tmp_path / "e.onnx"))
    assert found.parts == ("graph.initializer",)


def test_a_stamp_does_not_count(first: Model, tmp_path: Path) -> None:
    proto = networks.cnn()
    proto.metadata_props.add(key=STAMP, value="{}")
    assert difference(first, loaded(proto, tmp_path / "e.onnx")).parts == ()
