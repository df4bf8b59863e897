"""What layers read: by batch, from the same samples each time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from onnx import helper

from fcpts_onnx.calibration import load_calibration
from fcpts_onnx.model import Model
from fcpts_onnx.preprocess import PRESETS
from fcpts_onnx.sparsity.inputs import inputs_of, values_of
from fcpts_onnx.twin import Twin
from fcpts_onnx.twin.layers import layers
from fcpts_onnx.weights import find_weights
from tests import networks
from tests.networks import values


@pytest.mark.parametrize(("batch", "expected"), [(None, [16, 4]), (1, [1] * 20)])
def test_samples_by_batch(batch: int | None, expected: list[int]) -> None:
    settings = {} if batch is None else {"batch": batch, "baked": True}
    model = Model(Path("m.onnx"), networks.cnn(**settings))
    twin = Twin(model, [weight.value for weight in find_weights(model)])
    twin.per_sample = batch == 1
    calibration = load_calibration([values(30, 3, 8, 8)], model, PRESETS["raw"])
    found = layers(twin.steps, find_weights(model), {})
    first = next(iter(found))
    read = [*inputs_of(twin, calibration, found, 20)]
    assert {name for name, _, _ in read} == {*found}
    of_first = [(data, share) for name, data, share in read if name == first]
    assert [len(data) for data, _ in of_first] == expected
    assert [share for _, share in of_first] == pytest.approx([size / 20 for size in expected])
    samples = torch.from_numpy(values(30, 3, 8, 8))
    seen = torch.cat([data for data, _ in of_first])
    assert all(bool((sample == samples).flatten(1).all(1).any()) for sample in seen)
    again = torch.cat([d for n, d, _ in inputs_of(twin, calibration, found, 20) if n == first])
    torch.testing.assert_close(again, seen, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["y", "turned", "total"])
def test_values_of_parts_are_those_of_the_whole(name: str) -> None:
    """Also where samples do not lie first, or not at all."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Transpose", ["y"], ["turned"]),
        helper.make_node("ReduceSum", ["y"], ["total"], keepdims=0),
        helper.make_node("Add", ["y", "total"], ["z"]),
        helper.make_node("MatMul", ["z", "turned"], ["last"]),
    ]
    proto = networks.make(nodes, {"w": values(6, 3)}, {"x": ["N", 6]}, {"last": ["N", "N"]})
    twin, batch = Twin(Model(Path("m.onnx"), proto)), {"x": torch.from_numpy(values(40, 6))}
    found = values_of(twin, batch, [name])
    assert [*found] == [name]
    torch.testing.assert_close(found[name], twin(batch, fetch=[name])[name])
