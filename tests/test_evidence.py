"""How weights are spread before and after, and what files take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper

from fcpts_onnx.evidence import values_before_and_after, versions, ways_to_store
from fcpts_onnx.weights import find_weights
from tests import networks
from tests.networks import loaded


def test_a_weight_before_and_after(tmp_path: Path) -> None:
    proto = networks.cnn()
    dense = loaded(proto, tmp_path / "a.onnx")
    weight = next(w for w in find_weights(dense) if w.name == "conv.w")
    before = dense.array("conv.w")
    order = np.abs(before).ravel().argsort()
    after = before.ravel().copy()
    after[order[: weight.count // 2]] = 0
    for tensor in proto.graph.initializer:
        if tensor.name == "conv.w":
            tensor.CopyFrom(numpy_helper.from_array(after.reshape(before.shape), "conv.w"))
    sparse = loaded(proto, tmp_path / "b.onnx")
    found = values_before_and_after(dense, sparse, [weight])
    (spread,) = found.distributions
    width = 2 * spread.reach / len(spread.dense)
    inside = np.mean(np.abs(before) <= spread.reach)
    assert sum(spread.dense) * width == pytest.approx(inside, abs=1e-3)
    assert sum(spread.sparse) * width == pytest.approx(inside - 0.5, abs=1e-3)
    assert 0.8 < sum(spread.curve) * width < 1.01
    assert np.mean(np.abs(before) <= spread.threshold) == 0.5
    assert found.file_bytes == tuple(
        (tmp_path / name).stat().st_size for name in ("a.onnx", "b.onnx")
    )
    assert {size.name: size.float32 for size in found.sizes}["dense"] == 4 * weight.count


def test_a_weight_of_zeros_only(tmp_path: Path) -> None:
    proto = networks.cnn()
    for tensor in proto.graph.initializer:
        if tensor.name == "conv.w":
            empty = np.zeros_like(numpy_helper.to_array(tensor))
            tensor.CopyFrom(numpy_helper.from_array(empty, "conv.w"))
    model = loaded(proto, tmp_path / "m.onnx")
    weight = next(w for w in find_weights(model) if w.name == "conv.w")
    (spread,) = values_before_and_after(model, model, [weight]).distributions
    assert (spread.reach, spread.threshold, sum(spread.sparse)) == (1.0, 0.0, 0.0)
    assert np.isfinite(spread.curve).all()


def test_ways_to_store(tmp_path: Path) -> None:
    model = loaded(networks.cnn(), tmp_path / "m.onnx")
    names = [size.name for size in ways_to_store(model, find_weights(model))]
    assert names == ["dense", "bitmask", "CSR", "COO", "zip"]


def test_versions_are_those_installed() -> None:
    assert versions()["numpy"] == np.__version__
