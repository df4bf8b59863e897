"""A layer and its padding, bias or batch norm as one step: same values, same gradients."""

from pathlib import Path
from typing import Any

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
    "a row of biases": (linear(networks.values(6, 4), networks.values(1, 4)), 2),
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


def test_a_product_added_to_itself_has_no_bias(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Add", ["p", "p"], ["y"]),
    ]
    weight = networks.values(6, 4)
    proto = networks.make(nodes, {"w": weight}, {"x": ["N", 6]}, {"y": ["N", 4]})
    model = load(networks.save(proto, tmp_path / "m.onnx"))
    x = networks.values(2, 6)
    found = Twin(model)({"x": torch.from_numpy(x)})["y"]
    np.testing.assert_allclose(found.numpy(), 2 * x @ weight, rtol=1e-5)


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


def normed(*, bias: bool = False, training: int = 0, shared: bool = False) -> onnx.ModelProto:
    """A grouped convolution, a batch norm, Relu; shared: the convolution is read once more."""
    inputs = ["x", "w", "b"] if bias else ["x", "w"]
    parameters = ["scale", "shift", "mean", "variance"]
    ends = ["n", "running_mean", "running_variance"] if training else ["n"]
    nodes = [
        helper.make_node("Conv", inputs, ["c"], "conv", group=2, pads=[1, 1, 1, 1]),
        helper.make_node(
            "BatchNormalization", ["c", *parameters], ends, "norm", training_mode=training
        ),
        helper.make_node("Add", ["n", "c" if shared else "n"], ["s"], "sum"),
        helper.make_node("Relu", ["s"], ["y"], "relu"),
    ]
    constants = {
        name: networks.values(6, seed=seed) for seed, name in enumerate((*inputs[2:], *parameters))
    }
    constants |= {"w": networks.values(6, 2, 3, 3), "variance": constants["variance"] ** 2 + 0.1}
    return networks.make(nodes, constants, {"x": ["N", 4, 5, 5]}, {"y": ["N", 6, 5, 5]})


@pytest.mark.parametrize("bias", [False, True])
def test_a_convolution_takes_its_batch_norm_in(bias: bool, tmp_path: Path) -> None:
    model = load(networks.save(normed(bias=bias), tmp_path / "m.onnx"))
    learned = ["w", "scale", "shift", *(["b"] if bias else [])]
    twin = Twin(model, learned)
    assert [step.op for step in twin.steps] == ["BatchNormalization", "Add", "Relu"]
    x = torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    found = twin({"x": x})["y"]
    expected = Runtime(model).run({"x": x.numpy()})["y"]
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-4, atol=1e-5)
    found.square().sum().backward()
    own = {name: torch.tensor(model.array(name)) for name in model.tensors}
    w, scale, shift = (own[name].requires_grad_() for name in ("w", "scale", "shift"))
    b = own["b"].requires_grad_() if bias else None
    convolved = torch.conv2d(x, w, b, padding=1, groups=2)
    normal = torch.batch_norm(
        convolved, scale, shift, own["mean"], own["variance"], False, 0.1, 1e-5, False
    )
    torch.relu(normal + normal).square().sum().backward()
    for name in learned:
        torch.testing.assert_close(
            twin.learned[name].grad, own[name].grad, rtol=1e-3, atol=1e-2, msg=name
        )


@pytest.mark.parametrize("case", [{"training": 1}, {"shared": True}], ids=str)
def test_a_batch_norm_stays_on_its_own(case: dict[str, int], tmp_path: Path) -> None:
    model = load(networks.save(normed(**case), tmp_path / "m.onnx"))
    twin = Twin(model, ["w"])
    assert [step.op for step in twin.steps][:2] == ["Conv", "BatchNormalization"]


def biased(
    added: tuple[int, ...],
    *,
    op: str = "Conv",
    shape: list[int] | None = None,
    own: bool = False,
    bias_first: bool = False,
    **attributes: Any,
) -> onnx.ModelProto:
    """A convolution of 4 to 6 channels, a bias behind it, Relu."""
    inner = 6 // attributes.get("group", 1) if op == "ConvTranspose" else 4
    weight = (4, inner, 3, 3) if op == "ConvTranspose" else (6, 4, 3, 3)
    constants = {"w": networks.values(*weight), "b": networks.values(*added)}
    inputs, bias, nodes = ["x", "w"], "b", []
    if own:
        constants["own"] = networks.values(6, seed=2)
        inputs.append("own")
    if shape is not None:
        constants["shape"] = np.array(shape, np.int64)
        nodes, bias = [helper.make_node("Reshape", ["b", "shape"], ["s"], "shaped")], "s"
    nodes += [
        helper.make_node(op, inputs, ["c"], "conv", **attributes),
        helper.make_node("Add", [bias, "c"] if bias_first else ["c", bias], ["t"], "total"),
        helper.make_node("Relu", ["t"], ["y"], "relu"),
    ]
    outputs = {"y": ["N", 6, None, None]}
    return networks.make(nodes, constants, {"x": ["N", 4, 8, 8]}, outputs)


BIASED = {
    "one a channel": (biased((6, 1, 1), pads=[1, 1, 1, 1]), True),
    "with an axis of samples": (biased((1, 6, 1, 1)), True),
    "added to": (biased((6, 1, 1), bias_first=True), True),
    "brought into shape": (biased((6,), shape=[1, -1, 1, 1]), True),
    "brought into shape, added to": (biased((6,), shape=[0, 1, 1], bias_first=True), True),
    "behind a transposed convolution": (biased((6, 1, 1), op="ConvTranspose"), True),
    "of groups": (biased((6,), op="ConvTranspose", shape=[1, 6, 1, 1], group=2), True),
    "one for all channels": (biased((1, 1, 1)), False),
    "one a column": (biased((6,)), False),
    "one a row": (biased((6, 1)), False),
    "brought into another shape": (biased((6,), shape=[6, 1]), False),
    "a value at each place": (biased((6, 6, 6)), False),
    "beside its own": (biased((6, 1, 1), own=True), False),
}


@pytest.mark.parametrize("case", BIASED)
def test_a_convolution_takes_the_bias_behind_it_in(case: str, tmp_path: Path) -> None:
    proto, joined = BIASED[case]
    model = load(networks.save(proto, tmp_path / "m.onnx"))
    x = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = Runtime(model).run({"x": x.numpy()})["y"]
    for learned in ([], ["w", "b"]):
        twin = Twin(model, learned)
        assert any(step.parts for step in twin.steps) == joined
        found = twin({"x": x})["y"]
        np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5, atol=1e-5)
    whole = helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, ["N", 6, None, None])
    proto.graph.output.append(whole)  # which nothing can take in then
    apart = Twin(load(networks.save(proto, tmp_path / "apart.onnx")), learned)
    assert not any(step.parts for step in apart.steps)
    for either in twin, apart:
        either({"x": x})["y"].square().sum().backward()
    for name in learned:
        torch.testing.assert_close(twin.learned[name].grad, apart.learned[name].grad)


def padded(
    around: list[int],
    *,
    opset: int = 17,
    value: float | None = None,
    mode: str = "constant",
    axes: list[int] | None = None,
    norm: bool = False,
    shared: bool = False,
    **convolution: Any,
) -> onnx.ModelProto:
    """Pad, a convolution, Relu; shared: another convolution reads the padded values too."""
    constants = {"w": networks.values(6, 4, 3, 3), "pads": np.array(around, np.int64)}
    inputs = ["x", "pads"]
    if value is not None or axes is not None:
        constants["value"] = np.array(value or 0.0, np.float32)
        inputs.append("value")
    if axes is not None:
        constants["axes"] = np.array(axes, np.int64)
        inputs.append("axes")
    nodes = [
        helper.make_node("Pad", inputs, ["p"], "pad", mode=mode),
        helper.make_node("Conv", ["p", "w"], ["c"], "conv", **convolution),
        helper.make_node("Relu", ["n" if norm else "c"], ["y"], "relu"),
    ]
    if norm:
        parameters = ["scale", "shift", "mean", "variance"]
        constants |= {name: networks.values(6, seed=i) for i, name in enumerate(parameters)}
        constants["variance"] = constants["variance"] ** 2 + 0.1
        nodes.insert(2, helper.make_node("BatchNormalization", ["c", *parameters], ["n"], "norm"))
    if shared:
        nodes[-1:] = [
            helper.make_node("Conv", ["p", "w"], ["d"], "another"),
            helper.make_node("Add", ["c", "d"], ["y"], "sum"),
        ]
    outputs = {"y": ["N", 6, None, None]}
    return networks.make(nodes, constants, {"x": ["N", 4, 7, 7]}, outputs, opset=opset)


AROUND = [0, 0, 1, 2, 0, 0, 1, 2]
PADDED = {
    "zeros around": (padded(AROUND), True),
    "a zero that is named": (padded(AROUND, value=0.0), True),
    "and the convolution's own": (padded(AROUND, pads=[1, 0, 0, 1], strides=[2, 2]), True),
    "and a batch norm behind": (padded(AROUND, norm=True), True),
    "where it says to add none": (padded(AROUND, auto_pad="VALID"), True),
    "where its own depends on the size": (padded(AROUND, auto_pad="SAME_UPPER"), False),
    "more after than before": (padded([0, 0, 0, 0, 0, 0, 1, 1]), False),
    "ones around": (padded(AROUND, value=1.0), False),
    "mirrored": (padded(AROUND, mode="reflect"), False),
    "cut off": (padded([0, 0, -1, -1, 0, 0, -1, -1]), False),
    "axes that are named": (padded([1, 1, 1, 1], opset=18, axes=[2, 3]), False),
    "the padded values are read twice": (padded(AROUND, shared=True), False),
}


@pytest.mark.parametrize("case", PADDED)
def test_a_convolution_takes_zeros_around_its_input_in(case: str, tmp_path: Path) -> None:
    proto, is_one = PADDED[case]
    model = load(networks.save(proto, tmp_path / "m.onnx"))
    twin = Twin(model, ["w"])
    assert ("Pad" not in [step.op for step in twin.steps]) == is_one
    x = torch.randn(3, 4, 7, 7, generator=torch.Generator().manual_seed(0))
    found = twin({"x": x})["y"]
    expected = Runtime(model).run({"x": x.numpy()})["y"]
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_half_precision_is_rounded_in_between(tmp_path: Path) -> None:
    proto = networks.in_half(normed())
    twin = Twin(load(networks.save(proto, tmp_path / "m.onnx")))
    assert [step.op for step in twin.steps][:2] == ["Conv", "BatchNormalization"]
