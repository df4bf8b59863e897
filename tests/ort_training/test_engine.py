"""The second engine: onnxruntime-training's gradients against torch's, where it is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import venv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from fcpts_onnx import FcptsError
from fcpts_onnx.model import load
from fcpts_onnx.ort_training.engine import OrtEngine
from fcpts_onnx.twin import Twin
from tests import networks
from tests.networks import values
from tests.shared import MODELS, needs_shared

ROOT = Path(__file__).parents[2]
PLACE = ROOT / ".venv-ort-training"
TRAINING = "onnxruntime-training-cpu==1.19.2"


@pytest.fixture(scope="session")
def python() -> Path:
    """The interpreter of an environment with onnxruntime-training, made once and kept.

    All else is this environment's, which comes second on its path.
    """
    found, second = PLACE / "bin" / "python", f"{sysconfig.get_path('purelib')}\n"
    own = sysconfig.get_path("purelib", vars={"base": str(PLACE)})
    done = Path(own) / "second.pth"
    if not done.exists() or done.read_text(encoding="utf-8") != second:
        venv.create(PLACE, clear=True, with_pip=True)
        install = [found, "-m", "pip", "install", "-q", "--no-deps", TRAINING]
        result = subprocess.run(install, capture_output=True, text=True)
        if result.returncode:
            reason = result.stderr.strip().splitlines()[-1:]
            pytest.skip(f"{TRAINING} cannot be installed: {' '.join(reason)}")
        done.write_text(second, encoding="utf-8")
    return found


def run(python: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a module in that environment."""
    settings = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [python, "-m", *arguments], capture_output=True, text=True, env=settings, cwd=ROOT
    )


def vit_block(*, opset: int = 17, fused: bool = True) -> onnx.ModelProto:
    """A transformer's block of one head on 5 tokens of 8: attention, then Gelu by Erf.

    Args:
        fused: LayerNormalization as one node; else as the arithmetic that older exporters write.
    """
    node = helper.make_node
    nodes = [
        *_norm("x", "one", fused),
        *(node("MatMul", ["one", f"{part}.w"], [f"{part}.m"]) for part in "qkv"),
        *(node("Add", [f"{part}.m", f"{part}.b"], [part]) for part in "qkv"),
        node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        node("MatMul", ["q", "kt"], ["products"]),
        node("Mul", ["products", "scale"], ["scaled"]),
        node("Softmax", ["scaled"], ["attention"], axis=-1),
        node("MatMul", ["attention", "v"], ["mixed"]),
        node("MatMul", ["mixed", "o.w"], ["projected"]),
        node("Add", ["x", "projected"], ["first"]),
        *_norm("first", "two", fused),
        node("MatMul", ["two", "up.w"], ["up.m"]),
        node("Add", ["up.m", "up.b"], ["up"]),
        node("Div", ["up", "root"], ["e1"]),
        node("Erf", ["e1"], ["e2"]),
        node("Add", ["e2", "unit"], ["e3"]),
        node("Mul", ["up", "e3"], ["e4"]),
        node("Mul", ["e4", "half"], ["gelu"]),
        node("MatMul", ["gelu", "down.w"], ["down"]),
        node("Add", ["first", "down"], ["second"]),
        node("Gather", ["second", "zero"], ["token"], axis=1),
        node("Gemm", ["token", "head.w", "head.b"], ["scores"], transB=1),
    ]
    shapes = {f"{part}.w": (8, 8) for part in "qkvo"} | {f"{part}.b": (8,) for part in "qkv"}
    shapes |= {"up.w": (8, 16), "up.b": (16,), "down.w": (16, 8), "head.w": (4, 8), "head.b": (4,)}
    constants = {name: values(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    constants |= {
        key: np.array(value, np.float32)
        for key, value in {"scale": 0.35, "root": 2**0.5, "unit": 1, "half": 0.5}.items()
    }
    constants |= {"zero": np.array(0), "two_f": np.array(2, np.float32)}
    constants |= {"epsilon": np.array(1e-5, np.float32)}
    for place in ("one", "two"):
        constants |= {f"{place}.g": 1 + values(8, seed=30), f"{place}.h": values(8, seed=31)}
    return networks.make(nodes, constants, {"x": ["N", 5, 8]}, {"scores": ["N", 4]}, opset=opset)


def _norm(source: str, name: str, fused: bool) -> list[onnx.NodeProto]:
    node = helper.make_node
    if fused:
        inputs = [source, f"{name}.g", f"{name}.h"]
        return [node("LayerNormalization", inputs, [name], f"{name}.norm")]
    return [
        node("ReduceMean", [source], [f"{name}.1"], axes=[-1]),
        node("Sub", [source, f"{name}.1"], [f"{name}.2"]),
        node("Pow", [f"{name}.2", "two_f"], [f"{name}.3"]),
        node("ReduceMean", [f"{name}.3"], [f"{name}.4"], axes=[-1]),
        node("Add", [f"{name}.4", "epsilon"], [f"{name}.5"]),
        node("Sqrt", [f"{name}.5"], [f"{name}.6"]),
        node("Div", [f"{name}.2", f"{name}.6"], [f"{name}.7"]),
        node("Mul", [f"{name}.7", f"{name}.g"], [f"{name}.8"]),
        node("Add", [f"{name}.8", f"{name}.h"], [name]),
    ]


def pools(*, padded: bool = False, **settings: int) -> onnx.ModelProto:
    """Convolutions, each behind another pooling, the last over the whole plane; a Dropout.

    Args:
        padded: a Pad in front of the last one instead of its own padding.
    """
    node = helper.make_node
    around = [node("Pad", ["f", "around"], ["p"])] if padded else []
    last = node("Conv", ["p" if padded else "f", "g.w"], ["g"], pads=[0 if padded else 1] * 4)
    nodes = [
        node("Conv", ["image", "a.w", "a.b"], ["a"], pads=[1] * 4),
        node("MaxPool", ["a"], ["b"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
        node("Conv", ["b", "c.w"], ["c"], pads=[1] * 4, group=2),
        node("AveragePool", ["c"], ["d"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Clip", ["d", "low", "high"], ["e"]),
        node("Dropout", ["e"], ["f"]),
        *around,
        last,
        node("AveragePool", ["g"], ["h"], kernel_shape=[4, 4]),
        node("Flatten", ["h"], ["scores"]),
    ]
    constants = {
        "a.w": values(8, 3, 3, 3, seed=1),
        "a.b": values(8, seed=2),
        "c.w": values(8, 4, 3, 3, seed=3),
        "g.w": values(4, 8, 3, 3, seed=4),
        "low": np.array(0, np.float32),
        "high": np.array(6, np.float32),
        "around": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    }
    return networks.make(
        nodes, constants, {"image": ["N", 3, 16, 16]}, {"scores": ["N", 4]}, **settings
    )


@dataclass(frozen=True)
class Case:
    """A model whose gradients must agree."""

    name: str
    build: Callable[..., onnx.ModelProto]
    settings: dict[str, object] = field(default_factory=dict)


CASES = [
    Case("perceptron", networks.perceptron),
    Case("cnn", networks.cnn),
    Case("batch_norm", networks.batch_norm),
    Case("pools", pools),
    Case("padding of its own", pools, {"padded": True}),
    Case("opset 12", pools, {"opset": 12}),
    Case("opset 7", networks.cnn, {"opset": 7}),
    Case("vit", vit_block),
    Case("vit, norms as arithmetic", vit_block, {"fused": False}),
    Case("opset 22", networks.cnn, {"opset": 22, "ir_version": 10}),
]


def assert_agreement(python: Path, path: Path, size: int) -> None:
    result = run(python, "tests.ort_training.engine_gradients", path, str(size))
    assert result.returncode == 0, result.stderr[-2000:]
    found = json.loads(result.stdout.splitlines()[-1])
    print(path.stem, found)
    assert found["outputs"] < 1e-4
    assert found["gradients"] < 1e-4
    assert found["tensors"] > 1


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_gradients_agree_with_torch(case: Case, python: Path, tmp_path: Path) -> None:
    path = networks.save(case.build(**case.settings), tmp_path / "m.onnx")
    assert_agreement(python, path, 3)


@needs_shared
@pytest.mark.parametrize("name", ["resnet20_cifar10", "vit_cifar10"])
def test_gradients_agree_on_real_networks(name: str, python: Path) -> None:
    assert_agreement(python, MODELS / f"{name}.onnx", 8)


def test_prune(python: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "short.toml"
    recipe.write_text("epochs = 0\nmin_steps = 20\nbatch_size = 16\n", encoding="utf-8")
    arguments = [
        "prune", ROOT / "models" / "digits.onnx", tmp_path / "out.onnx", "--target", "0.6",
        "--calib", ROOT / "models" / "calib", "--preprocess", "unit", "--engine", "ort",
        "--recipe", recipe, "--json", tmp_path / "out.json", "--threads", "1",
    ]  # fmt: skip
    result = run(python, "fcpts_onnx", *arguments)
    assert result.returncode == 0, result.stderr[-2000:]
    found = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert found["zeros"] == round(0.6 * found["count"])
    assert found["history"][-1]["step"] == 20


def test_prune_a_newer_model(python: Path, tmp_path: Path) -> None:
    path = networks.save(networks.cnn(opset=22, ir_version=11), tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", values(20, 3, 8, 8))
    recipe = tmp_path / "short.toml"
    recipe.write_text("epochs = 0\nmin_steps = 4\nbatch_size = 4\n", encoding="utf-8")
    result = run(
        python, "fcpts_onnx", "prune", path, tmp_path / "out.onnx", "--target", "0.5",
        "--calib", tmp_path / "x.npy", "--engine", "ort", "--recipe", recipe,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    saved = onnx.load(str(tmp_path / "out.onnx"))
    assert (saved.opset_import[0].version, saved.ir_version) == (22, 11)


def test_what_has_no_gradient_is_said(python: Path, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Softsign", ["a"], ["y"]),
    ]
    proto = networks.make(nodes, {"w": values(6, 4)}, {"x": ["N", 6]}, {"y": ["N", 4]})
    path = networks.save(proto, tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", values(20, 6))
    result = run(
        python, "fcpts_onnx", "prune", path, tmp_path / "out.onnx", "--target", "0.5",
        "--calib", tmp_path / "x.npy", "--engine", "ort",
    )  # fmt: skip
    assert result.returncode == 1
    assert "has not been registered: Softsign for node Softsign -> y" in result.stderr
    assert "Use --engine torch" in result.stderr
    assert not (tmp_path / "out.onnx").exists()


def test_without_the_package_it_says_what_to_install(tmp_path: Path) -> None:
    model = load(networks.save(networks.perceptron(), tmp_path / "m.onnx"))
    with pytest.raises(FcptsError, match=r"fcpts-onnx\[ort-training\]") as caught:
        OrtEngine(Twin(model, ["first"]), {"x": torch.zeros(2, 6)})
    assert "environment" in str(caught.value)
