"""Sparse initializers: written where they are smaller, read as if they were dense."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from click.testing import CliRunner, Result
from onnx import numpy_helper

from fcpts_onnx.cli import main
from fcpts_onnx.errors import ModelError
from fcpts_onnx.model import load
from tests import networks


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def prune(place: Path, *options: str) -> Result:
    return run(
        "prune", place / "in.onnx", place / "out.onnx", "--target", "0.85", "--storage", "sparse",
        "--calib", place / "images", "--recipe", place / "quick.toml", *options,
    )  # fmt: skip


def answers(path: Path) -> np.ndarray:
    """What onnxruntime makes of a file as it is."""
    image = networks.values(5, 3, 8, 8, seed=3)
    return ort.InferenceSession(path).run(None, {"image": image})[0]


@pytest.fixture
def sparse(place: Path) -> Path:
    result = prune(place)
    assert result.exit_code == 0, result.output
    assert "Stored sparse where that is smaller" in result.output
    return place / "out.onnx"


def test_the_page_says_how_zeros_are_stored(place: Path) -> None:
    said = {"sparse": "without their zeros where that is smaller", "dense": "like other values"}
    for storage, text in said.items():
        result = prune(place, "--storage", storage, "--report", str(place / "r.html"))
        assert result.exit_code == 0, result.output
        assert text in (place / "r.html").read_text()


def test_written_where_it_is_smaller(place: Path, sparse: Path) -> None:
    proto = onnx.load(sparse)
    stored = {entry.values.name: entry for entry in proto.graph.sparse_initializer}
    assert "conv.w" in stored
    dense = {tensor.name for tensor in proto.graph.initializer}
    assert not dense & stored.keys()
    assert dense | stored.keys() == {
        t.name for t in load(place / "in.onnx").proto.graph.initializer
    }
    for entry in stored.values():
        assert np.count_nonzero(numpy_helper.to_array(entry.values)) == entry.values.dims[0]
    assert sparse.stat().st_size < (place / "in.onnx").stat().st_size


def test_the_same_network_as_stored_dense(place: Path, sparse: Path) -> None:
    as_sparse = answers(sparse)
    assert prune(place, "--storage", "dense").exit_code == 0
    assert not onnx.load(place / "out.onnx").graph.sparse_initializer
    np.testing.assert_array_equal(as_sparse, answers(place / "out.onnx"))


def test_every_command_reads_it(place: Path, sparse: Path) -> None:
    result = run("validate", place / "in.onnx", sparse, "--calib", place / "images")
    assert "272 of 320 weights are zero" in result.output
    assert "nothing else differs" in result.output
    assert "beyond those differs: nothing" in run("diff", place / "in.onnx", sparse).output
    assert "272 zero already" in run("inspect", sparse).output
    assert run("bench", place / "in.onnx", sparse, "--runs", "5", "--strict").exit_code == 0
    result = run("quantize", sparse, place / "q.onnx", "--calib", place / "images")
    assert result.exit_code == 0, result.output
    again = run(
        "prune", sparse, place / "more.onnx", "--target", "0.87", "--calib", place / "images",
        "--recipe", place / "quick.toml", "--json", place / "more.json",
    )  # fmt: skip
    assert again.exit_code == 0, again.output
    assert json.loads((place / "more.json").read_text())["zeros"] == round(0.87 * 320)


def test_what_is_said_of_a_tensor_stays(place: Path) -> None:
    proto = onnx.load(place / "in.onnx")
    proto.ir_version = 10
    for tensor in proto.graph.initializer:
        tensor.doc_string = f"the {tensor.name} of a test"
        tensor.metadata_props.add(key="origin", value=tensor.name)
    onnx.save(proto, place / "in.onnx")
    result = prune(place)
    assert result.exit_code == 0, result.output
    stored = onnx.load(place / "out.onnx").graph.sparse_initializer
    assert {entry.values.doc_string for entry in stored} >= {"the conv.w of a test"}
    for tensor in load(place / "out.onnx").proto.graph.initializer:
        assert tensor.doc_string == f"the {tensor.name} of a test"
        assert [(entry.key, entry.value) for entry in tensor.metadata_props] == [
            ("origin", tensor.name)
        ]


def test_an_ir_version_without_them(place: Path) -> None:
    proto = onnx.load(place / "in.onnx")
    proto.ir_version = 4
    onnx.save(proto, place / "in.onnx")
    result = prune(place)
    assert result.exit_code == 1
    assert "IR version 4 has no sparse initializers" in result.output
    assert not (place / "out.onnx").exists()


@pytest.mark.parametrize("where", ["external", "constants"])
def test_weights_that_would_stay_dense(place: Path, where: str) -> None:
    proto = onnx.load(place / "in.onnx")
    if where == "external":
        onnx.save(proto, place / "in.onnx", save_as_external_data=True, size_threshold=100)
    else:
        for tensor in [t for t in proto.graph.initializer if t.name.endswith(".w")]:
            proto.graph.initializer.remove(tensor)
            node = onnx.helper.make_node("Constant", [], [tensor.name], value=tensor)
            proto.graph.node.insert(0, node)
        onnx.save(proto, place / "in.onnx")
    result = prune(place)
    assert result.exit_code == 1
    assert "of 320 values of weights lie in external data, in Constant nodes or in" in result.output
    assert not (place / "out.onnx").exists()
    assert prune(place, "--storage", "dense").exit_code == 0


def in_two_columns(entry: onnx.SparseTensorProto) -> None:
    """Places as an index for each axis, which ONNX allows too."""
    places = numpy_helper.to_array(entry.indices)
    columns = np.stack(np.unravel_index(places, entry.dims), axis=1)
    entry.indices.CopyFrom(numpy_helper.from_array(columns))


def test_places_by_axis(place: Path, sparse: Path) -> None:
    """onnxruntime reads only flat ones; a file from elsewhere may have these."""
    proto = onnx.load(sparse)
    for entry in proto.graph.sparse_initializer:
        in_two_columns(entry)
    onnx.save(proto, place / "columns.onnx")
    one, two = load(sparse), load(place / "columns.onnx")
    np.testing.assert_array_equal(one.array("conv.w"), two.array("conv.w"))


def huge(entry: onnx.SparseTensorProto) -> None:
    entry.dims[0] = 2**40


def negative(entry: onnx.SparseTensorProto) -> None:
    entry.dims[0] = -entry.dims[0]


def beyond(entry: onnx.SparseTensorProto) -> None:
    entry.dims[0] = 1


def elsewhere(entry: onnx.SparseTensorProto) -> None:
    entry.values.data_location = onnx.TensorProto.EXTERNAL
    entry.values.external_data.add(key="location", value="w.data")


@pytest.mark.parametrize("spoil", [huge, negative, beyond, elsewhere])
def test_what_cannot_be(
    place: Path, sparse: Path, spoil: Callable[[onnx.SparseTensorProto], None]
) -> None:
    proto = onnx.load(sparse)
    spoil(proto.graph.sparse_initializer[0])
    onnx.save(proto, place / "bad.onnx")
    with pytest.raises(ModelError):
        load(place / "bad.onnx")
