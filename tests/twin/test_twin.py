"""The twin: whole graphs against onnxruntime, what it lacks, and where a batch size is baked in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from fcpts_onnx.along import learned_along
from fcpts_onnx.errors import UnsupportedError
from fcpts_onnx.model import Model, load
from fcpts_onnx.runtime import Runtime
from fcpts_onnx.twin import Twin
from fcpts_onnx.weights import find_weights
from tests import networks
from tests.other_device import OTHER, OtherDevice
from tests.shared import MODELS, needs_shared

# Shared models whose operators the twin has all.
WHOLE = [
    "cnn_mnist_pytorch",
    "fastestdet_coco",
    "mlperf_autoencoder_ad",
    "mlperf_mobilenetv1_025_vww",
    "mlperf_resnet8_cifar10",
    "mlperf_resnet_large_cifar10",
    "mnist_cntk",
    "mobilenet_v1_0.25_128_qat_dequant",
    "mobilenet_v2_torchvision_ptq_dequant",
    "mobilenetv2_yolo_fastest_voc",
    "pytorch_super_resolution",
    "resnet20_cifar10",
    "resnet20_cifar10_bn_opset11_batch1",
    "resnet32_cifar10",
    "resnet32_cifar10_bn_opset11_batch1",
    "ultraface_rfb_320",
    "vit_cifar10",
]
BATCH_OF_ONE = ("mnist_cntk", "fastestdet_coco")  # they reshape to it
LACKING = {"tiny_random_gpt2": "com.microsoft::Attention (opset 1): GptAttention_0"}


def model_of(proto: onnx.ModelProto) -> Model:
    return Model(Path("m.onnx"), proto)


def learned_twin(model: Model) -> Twin:
    weights = find_weights(model)
    return Twin(model, [weight.name for weight in weights] + learned_along(model, weights))


def shared_twin(name: str) -> tuple[Model, Twin]:
    model = load(MODELS / f"{name}.onnx")
    twin = learned_twin(model)
    twin.per_sample = name in BATCH_OF_ONE
    return model, twin


def relative_error(twin: Twin, model: Model, inputs: dict[str, np.ndarray]) -> float:
    expected = Runtime(model).run(inputs)
    with torch.no_grad():
        found = twin({name: torch.from_numpy(value) for name, value in inputs.items()})
    assert list(found) == list(expected)
    worst = 0.0
    for name, wanted in expected.items():
        assert tuple(found[name].shape) == wanted.shape
        worst = max(worst, np.abs(found[name].numpy() - wanted).max() / np.abs(wanted).max())
    return worst


def samples(model: Model, count: int) -> dict[str, np.ndarray]:
    return {
        spec.name: networks.values(count, *(size or 64 for size in spec.shape[1:]), scale=1.0)
        for spec in model.inputs
    }


@needs_shared
@pytest.mark.parametrize("name", WHOLE)
def test_shared_models_agree_with_onnxruntime(name: str) -> None:
    model, twin = shared_twin(name)
    assert relative_error(twin, model, samples(model, 2)) < 1e-5


@needs_shared
@pytest.mark.parametrize("name", WHOLE)
def test_another_device_computes_the_same(name: str) -> None:
    """What mixes with values of the processor would stop a GPU, which few machines here have."""
    model, twin = shared_twin(name)
    inputs = {key: torch.from_numpy(value) for key, value in samples(model, 2).items()}
    with torch.no_grad():
        here = twin(inputs)
    with OtherDevice():
        twin.prepare(OTHER)
        there = twin(inputs)
        if twin.learned:
            sum(value.float().sum() for value in there.values()).backward()
        there = {key: value.detach().cpu() for key, value in there.items()}
    # Attention has other kernels there.
    is_exact = all(step.op != "Attention" for step in twin.steps)
    bounds = {"rtol": 0, "atol": 0} if is_exact else {}
    for key, value in here.items():
        torch.testing.assert_close(there[key], value, **bounds)


@needs_shared
@pytest.mark.parametrize("name", LACKING)
def test_shared_models_that_lack_operators_say_which(name: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        Twin(load(MODELS / f"{name}.onnx"))
    assert LACKING[name] in str(caught.value)


def test_all_that_is_unsupported_is_said_at_once() -> None:
    nodes = [
        helper.make_node("TfIdfVectorizer", ["x"], ["a"], "det"),
        helper.make_node("Foo", ["a"], ["b"], "foo", domain="com.example"),
        helper.make_node("Foo", ["b"], ["c"], domain="com.example"),
        helper.make_node("LRN", ["c"], ["d", "extra"], "lrn", size=1),
        helper.make_node("Relu", ["d"], ["e"], "relu", strange=1),
        helper.make_node("Cast", ["e"], ["y"], "cast", to=17),
    ]
    constants = {"ones": np.ones(1, np.float32)}
    proto = networks.make(nodes, constants, {"x": ["N", 1, 4, 4]}, {"y": [], "extra": []})
    with pytest.raises(UnsupportedError) as caught:
        Twin(model_of(proto))
    text = str(caught.value)
    assert "lacks 5 operator(s)" in text
    for line in (
        "TfIdfVectorizer (opset 17): det",
        "com.example::Foo (opset 1): foo, Foo -> c",
        "LRN (opset 17) with 2 outputs: lrn",
        "Relu (opset 17) with attribute strange: relu",
        "Cast (opset 17) with to=17: cast",
    ):
        assert line in text


def test_one_parameter_per_initializer() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["a", "t"], ["y"]),
    ]
    proto = networks.make(nodes, {"w": networks.values(4, 4)}, {"x": ["N", 4]}, {"y": ["N", 4]})
    twin = Twin(model_of(proto), ["w"])
    assert list(twin.learned) == ["w"]
    assert len(list(twin.parameters())) == 1
    twin({"x": torch.ones(2, 4)})["y"].sum().backward()
    w = torch.from_numpy(networks.values(4, 4)).requires_grad_()
    (torch.ones(2, 4) @ w @ w.T).sum().backward()
    torch.testing.assert_close(twin.learned["w"].grad, w.grad)


def test_constants_are_folded_and_dead_nodes_left_out() -> None:
    nodes = [
        helper.make_node("Shape", ["w"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["rows"]),
        helper.make_node("Concat", ["rows", "minus"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["r"]),
        helper.make_node("Relu", ["r"], ["y"]),
        helper.make_node("Exp", ["r"], ["unused"]),
    ]
    constants = {"w": networks.values(3, 2), "zero": np.array([0]), "minus": np.array([-1])}
    proto = networks.make(nodes, constants, {"x": ["N"]}, {"y": [3, None]})
    twin = Twin(model_of(proto))
    assert [step.op for step in twin.steps] == ["Reshape", "Relu"]
    assert twin({"x": torch.arange(6.0)})["y"].shape == (3, 2)


def test_replaced_parameters_and_fetched_values() -> None:
    twin = Twin(model_of(networks.perceptron()), ["first", "second"])
    x = torch.ones(2, 6)
    zero = twin({"x": x}, {"first": torch.zeros(6, 16)}, fetch=["b"])
    torch.testing.assert_close(zero["b"][0], torch.from_numpy(networks.values(16, seed=2)))
    assert not torch.equal(zero["y"], twin({"x": x})["y"])


def test_forward_changes_nothing() -> None:
    twin = learned_twin(model_of(networks.cnn()))
    before = {name: value.clone() for name, value in twin.state_dict().items()}
    x = {"image": torch.from_numpy(networks.values(3, 3, 8, 8))}
    first, second = twin(x)["scores"], twin(x)["scores"]
    assert torch.equal(first, second)
    assert all(torch.equal(before[name], value) for name, value in twin.state_dict().items())


def test_baked_batch_size_runs_per_sample(tmp_path: Path) -> None:
    model = load(networks.save(networks.cnn(batch=1, baked=True), tmp_path / "m.onnx"))
    twin = learned_twin(model)
    batch = {"image": networks.values(5, 3, 8, 8, scale=1.0)}
    with pytest.raises(RuntimeError):
        relative_error(twin, model, batch)
    twin.per_sample = True
    assert relative_error(twin, model, batch) < 1e-5
    found = twin({"image": torch.from_numpy(batch["image"])})["scores"]
    found.sum().backward()
    assert all(parameter.grad is not None for parameter in twin.learned.values())


def test_constants_are_the_fixed_tensors_that_steps_read() -> None:
    twin = Twin(model_of(networks.perceptron()), ["first", "second"])
    assert list(twin.constants()) == ["bias"]
    assert torch.equal(twin.constants()["bias"], twin.constant("bias"))
