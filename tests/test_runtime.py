"""onnxruntime sessions: any number of samples, inner values, and errors in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fcpts_onnx.errors import ModelError
from fcpts_onnx.model import load
from fcpts_onnx.runtime import Runtime
from tests import networks
from tests.networks import values


@pytest.mark.parametrize(
    ("batch", "baked"), [(1, False), (3, False), ("N", False), (1, True), ("N", True)]
)
def test_any_number_of_samples(batch: int | str, baked: bool, tmp_path: Path) -> None:
    fixed = load(networks.save(networks.cnn(batch=batch, baked=baked), tmp_path / "m.onnx"))
    images = values(7, 3, 8, 8, scale=1.0)
    one_by_one = load(networks.save(networks.cnn(), tmp_path / "n.onnx"))
    expected = Runtime(one_by_one).run({"image": images})["scores"]
    found = Runtime(fixed).run({"image": images})["scores"]
    assert found.shape == (7, 4)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_inner_values(tmp_path: Path) -> None:
    model = load(networks.save(networks.perceptron(), tmp_path / "m.onnx"))
    found = Runtime(model, ["b", "y"]).run({"x": values(2, 6)})
    assert list(found) == ["b", "y"]
    assert found["b"].shape == (2, 16)


def test_inner_values_of_a_model_with_external_data(tmp_path: Path) -> None:
    import onnx

    path = tmp_path / "m.onnx"
    onnx.save(networks.perceptron(), str(path), save_as_external_data=True, size_threshold=64)
    found = Runtime(load(path), ["b"]).run({"x": values(2, 6)})
    assert found["b"].shape == (2, 16)


def test_what_onnxruntime_refuses(tmp_path: Path) -> None:
    model = load(networks.save(networks.perceptron(), tmp_path / "m.onnx"))
    with pytest.raises(
        ModelError, match=r"m\.onnx: onnxruntime cannot run it: .*Got: 5 Expected: 6"
    ):
        Runtime(model).run({"x": values(2, 5)})
    (tmp_path / "m.onnx").write_bytes(b"gone")
    with pytest.raises(ModelError, match=r"m\.onnx: onnxruntime cannot load it: "):
        Runtime(model)


def test_batches_that_no_memory_holds(tmp_path: Path) -> None:
    path = networks.save(networks.cnn(batch=2**40), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="takes batches of 1,099,511,627,776 samples"):
        Runtime(load(path))
