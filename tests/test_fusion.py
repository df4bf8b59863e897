"""A product and its bias as one step: the same values and gradients, and only where it is one."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from fcpts_onnx.model import load
from fcpts_onnx.runtime import Runtime
from fcpts_onnx.twin import Twin
from tests import networks


def linear(
    weight: np.ndarray, bias: np.ndarray, *, bias_first: bool = False, **also: str
) -> onnx.ModelProto:
    """x @ w + b, then Relu; what else is named is an output too."""
    added = ["b", "p"] if bias_first else ["p", "b"]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"], "product"),
        helper.make_node("Add", added, ["t"], "total"),
        helper.make_node("Relu", ["t"], ["y"], "relu"),
    ]
    constants = {"w": weight, "b": bias}
    outputs = {name: ["N", 5, 4] for name in ("y", *also.values())}
    return networks.make(nodes, constants, {"x": ["N", 5, 6]}, outputs)


CASES = {
    "a linear layer": (linear(networks.values(6, 4), networks.values(4)), 2),
    "the bias first": (linear(networks.values(6, 4), networks.values(4), bias_first=True), 2),
    "one bias for all columns": (linear(networks.values(6, 4), networks.values(1)), 2),
    "a weight for each sample's rows": (linear(networks.values(1, 6, 4), networks.values(4)), 2),
    "a matrix added": (linear(networks.values(6, 4), networks.values(5, 4)), 3),
    "the product is an output": (
        linear(networks.values(6, 4), networks.values(4), also="p"), 3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_two_steps(case: str, tmp_path: Path) -> None:
    proto, steps = CASES[case]
    model = load(networks.save(proto, tmp_path / "m.onnx"))
    twin = Twin(model, ["w", "b"])
    assert len(twin.steps) == steps
    x = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(0))
    found = twin({"x": x})
    for name, expected in Runtime(model).run({"x": x.numpy()}).items():
        np.testing.assert_allclose(found[name].detach().numpy(), expected, atol=1e-6)
    found["y"].square().sum().backward()
    w, b = (torch.tensor(model.array(name)).requires_grad_() for name in ("w", "b"))
    torch.relu(x @ w + b).square().sum().backward()
    torch.testing.assert_close(twin.learned["w"].grad, w.grad)
    torch.testing.assert_close(twin.learned["b"].grad, b.grad)


def test_whole_numbers_are_multiplied_as_such(tmp_path: Path) -> None:
    weight, bias = np.arange(24, dtype=np.int32).reshape(6, 4), np.arange(4, dtype=np.int32)
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=6),
        helper.make_node("MatMul", ["i", "w"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["t"]),
        helper.make_node("Cast", ["t"], ["y"], to=1),
    ]
    constants = {"w": weight, "b": bias}
    proto = networks.make(nodes, constants, {"x": ["N", 6]}, {"y": ["N", 4]})
    model = load(networks.save(proto, tmp_path / "m.onnx"))
    x = np.arange(12, dtype=np.float32).reshape(2, 6)
    found = Twin(model)({"x": torch.from_numpy(x)})["y"]
    np.testing.assert_array_equal(found.numpy(), x @ weight + bias)
