"""A float model in 8 bits: zeros stay, outputs are near, and what cannot be is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import helper

import fcpts_onnx
from fcpts_onnx.cli import main
from fcpts_onnx.errors import FcptsError, ModelError, OutputError
from fcpts_onnx.model import load
from fcpts_onnx.runtime import Runtime
from tests import networks


@pytest.fixture
def sparse(place: Path) -> Path:
    """Six of ten weights zero."""
    fcpts_onnx.prune(
        place / "in.onnx", place / "out.onnx", target=0.6, calib=place / "images",
        recipe=str(place / "quick.toml"),
    )  # fmt: skip
    return place / "out.onnx"


def test_zeros_stay_and_outputs_are_near(sparse: Path, place: Path) -> None:
    found = fcpts_onnx.quantize(sparse, place / "out8.onnx", calib=place / "images")
    before, after = load(sparse), load(place / "out8.onnx")
    total = 0
    for weight in found.weights:
        stored = after.array(f"{weight.name}_quantized")
        assert stored.dtype == np.int8
        assert not stored[before.array(weight.name) == 0].any()
        assert not after.array(f"{weight.name}_zero_point").any()
        assert weight.zeros == int((stored == 0).sum())
        total += weight.zeros
    assert (found.zeros_before, found.count) == (192, 320)
    assert found.zeros == total >= 192
    assert found.outputs[0].cosine > 0.99
    assert found.against == str(sparse)
    image = networks.values(2, 3, 8, 8)
    exact, rounded = (Runtime(model).run({"image": image})["scores"] for model in (before, after))
    np.testing.assert_allclose(exact, rounded, atol=0.1 * np.abs(exact).max())


def test_against_another_model(sparse: Path, place: Path) -> None:
    found = fcpts_onnx.quantize(
        sparse, place / "out8.onnx", calib=place / "images", against=place / "in.onnx"
    )
    itself = fcpts_onnx.quantize(sparse, place / "out8.onnx", calib=place / "images")
    assert found.outputs[0].kl > itself.outputs[0].kl


def test_external_data(place: Path) -> None:
    onnx.save(networks.cnn(), str(place / "e.onnx"), save_as_external_data=True, size_threshold=100)
    found = fcpts_onnx.quantize(place / "e.onnx", place / "e8.onnx", calib=place / "images")
    assert found.file_bytes[0] > (place / "e.onnx").stat().st_size
    (place / "e.onnx").unlink()
    assert load(place / "e8.onnx").array("conv.w_quantized").dtype == np.int8


def test_what_onnxruntime_cannot_quantize(
    sparse: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("no such\n thing")

    monkeypatch.setattr("fcpts_onnx.int8.quantize_static", refuse)
    with pytest.raises(
        ModelError, match=r"out\.onnx: onnxruntime cannot quantize it: no such thing"
    ):
        fcpts_onnx.quantize(sparse, place / "out8.onnx", calib=place / "images")
    assert not (place / "out8.onnx").exists()
    result = prune(place, "--then-quantize", str(place / "out8.onnx"))
    assert result.exit_code == 1
    assert f"The sparse model itself is in {place / 'out.onnx'}" in result.output


def test_a_zero_that_does_not_stay_one(
    sparse: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shifted(proto: onnx.ModelProto, target: str, *_: object, **__: object) -> None:
        for tensor in proto.graph.initializer:
            if tensor.name == "conv.w":
                array = onnx.numpy_helper.to_array(tensor) + np.float32(1)
                tensor.CopyFrom(onnx.numpy_helper.from_array(array, "conv.w"))
        onnx.save(proto, target)

    monkeypatch.setattr("fcpts_onnx.int8.quantize_static", shifted)
    with pytest.raises(OutputError, match=r"gave zeros of 'conv.w' other values"):
        fcpts_onnx.quantize(sparse, place / "out8.onnx", calib=place / "images")
    assert not (place / "out8.onnx").exists()


def test_nothing_that_is_read_is_replaced(sparse: Path, place: Path) -> None:
    for target in (sparse, place / "in.onnx"):
        with pytest.raises(FcptsError):
            fcpts_onnx.quantize(sparse, target, calib=place / "images", against=place / "in.onnx")


def prune(place: Path, *more: str) -> object:
    return CliRunner().invoke(main, [
        "prune", str(place / "in.onnx"), str(place / "out.onnx"), "--target", "0.6", "--calib",
        str(place / "images"), "--recipe", str(place / "quick.toml"), *more,
    ])  # fmt: skip


def test_nothing_is_written_beside_the_model(sparse: Path, place: Path) -> None:
    kept = place / "out-inferred.onnx"  # a name that onnxruntime uses
    kept.write_text("mine")
    before = sorted(place.rglob("*"))
    fcpts_onnx.quantize(sparse, place / "out8.onnx", calib=place / "images")
    assert kept.read_text() == "mine"
    assert sorted(place.rglob("*")) == sorted([*before, place / "out8.onnx"])


def test_a_model_in_float_is_not_replaced(sparse: Path, place: Path) -> None:
    other = networks.save(networks.perceptron(), place / "other.onnx").read_bytes()
    with pytest.raises(OutputError, match=r"other\.onnx: is a model in float"):
        fcpts_onnx.quantize(sparse, place / "other.onnx", calib=place / "images")
    given = ["--calib", place / "images", "--target", "0.6", "--then-quantize"]
    command = ["prune", place / "in.onnx", place / "new.onnx", *given, place / "other.onnx"]
    result = CliRunner().invoke(main, [str(part) for part in command])
    assert (result.exit_code, (place / "new.onnx").exists()) == (1, False)
    assert "other.onnx: is a model in float" in result.output
    assert (place / "other.onnx").read_bytes() == other


def test_external_data_of_others_is_not_replaced(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large models are written in two files; that of the data has the name of the other."""
    monkeypatch.setattr("fcpts_onnx.int8._LARGEST_FILE", 100)
    source, target, data = (place / name for name in ("in.onnx", "out8.onnx", "out8.onnx.data"))
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "product")
    weight = {"w": networks.values(64, 64)}
    proto = networks.make([node], weight, {"x": ["N", 64]}, {"y": ["N", 64]})
    networks.save(proto, source)
    np.save(place / "x.npy", networks.values(16, 64))
    for _ in range(2):  # its own may be replaced
        fcpts_onnx.quantize(source, target, calib=place / "x.npy")
        assert data.exists()
    target.unlink()
    data.unlink()
    onnx.save(proto, str(source), save_as_external_data=True, location=data.name)
    before = data.read_bytes()
    with pytest.raises(
        OutputError, match=r"out8\.onnx\.data: exists and is not of .* another name"
    ):
        fcpts_onnx.quantize(source, target, calib=place / "x.npy")
    result = prune(place, "--calib", str(place / "x.npy"), "--then-quantize", str(target))
    assert (result.exit_code, (place / "out.onnx").exists()) == (1, False)
    assert "out8.onnx.data: exists and is not of" in result.output
    assert data.read_bytes() == before


def test_calibration_data_is_never_replaced(sparse: Path, place: Path) -> None:
    np.savez(place / "c.npz", image=networks.values(8, 3, 8, 8))
    before = (place / "c.npz").read_bytes()
    with pytest.raises(OutputError, match="is read for this run"):
        fcpts_onnx.quantize(sparse, place / "c.npz", calib=place / "c.npz")
    for command in (
        ["quantize", sparse, place / "c.npz", "--calib", place / "c.npz"],
        [
            "quantize",
            sparse,
            place / "q.onnx",
            "--calib",
            place / "c.npz",
            "--json",
            place / "q.onnx",
        ],
    ):
        assert CliRunner().invoke(main, [str(part) for part in command]).exit_code == 2
    more = ("--calib", str(place / "c.npz"), "--then-quantize", str(place / "c.npz"))
    assert prune(place, *more).exit_code == 1
    assert (place / "c.npz").read_bytes() == before


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """onnxruntime warns of a tensor that nothing reads, in C++."""
    proto = networks.cnn()
    proto.graph.initializer.append(onnx.numpy_helper.from_array(networks.values(3), "unused"))
    path = networks.save(proto, tmp_path / "in.onnx")
    fcpts_onnx.quantize(path, tmp_path / "out.onnx", calib=[networks.values(8, 3, 8, 8)])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["old opset", "constant nodes", "old, constant nodes"])
def test_models_that_are_prepared(kind: str, place: Path) -> None:
    proto = networks.cnn()
    if kind.startswith("old"):
        proto = networks.cnn(opset=11, ir_version=3 if "nodes" in kind else 8)
    if "nodes" in kind:
        for tensor in list(proto.graph.initializer):
            proto.graph.initializer.remove(tensor)
            node = onnx.helper.make_node("Constant", [], [tensor.name], value=tensor)
            proto.graph.node.insert(0, node)
    networks.save(proto, place / "m.onnx")
    fcpts_onnx.quantize(place / "m.onnx", place / "m8.onnx", calib=place / "images")
    assert load(place / "m8.onnx").array("conv.w_quantized").dtype == np.int8


def test_models_that_are_refused(place: Path) -> None:
    fcpts_onnx.quantize(place / "in.onnx", place / "q.onnx", calib=place / "images")
    with pytest.raises(ModelError, match=r"q\.onnx: has 8-bit values already"):
        fcpts_onnx.quantize(place / "q.onnx", place / "q2.onnx", calib=place / "images")
    half = networks.in_half(networks.cnn())
    networks.save(half, place / "half.onnx")
    with pytest.raises(ModelError, match="has weights in float16"):
        fcpts_onnx.quantize(place / "half.onnx", place / "q2.onnx", calib=place / "images")
    double = networks.in_double(networks.cnn())
    networks.save(double, place / "double.onnx")
    with pytest.raises(ModelError, match="has weights in double"):
        fcpts_onnx.quantize(place / "double.onnx", place / "q2.onnx", calib=place / "images")
    assert not (place / "q2.onnx").exists()


def test_a_constant_in_double_is_no_weight(place: Path) -> None:
    proto = networks.cnn()
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.float64(2), "two"))
    proto.graph.node.insert(0, onnx.helper.make_node("Cast", ["two"], ["factor"], to=1))
    proto.graph.node[-1].output[0] = "half"
    proto.graph.node.append(onnx.helper.make_node("Mul", ["half", "factor"], ["scores"]))
    networks.save(proto, place / "m.onnx")
    fcpts_onnx.quantize(place / "m.onnx", place / "m8.onnx", calib=place / "images")
    assert load(place / "m8.onnx").array("conv.w_quantized").dtype == np.int8


def test_a_model_that_is_left_in_float(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def left(proto: onnx.ModelProto, target: str, *_: object, **__: object) -> None:
        onnx.save(proto, target)

    monkeypatch.setattr("fcpts_onnx.int8.quantize_static", left)
    with pytest.raises(ModelError, match=r"in\.onnx: onnxruntime left all its weights in float"):
        fcpts_onnx.quantize(place / "in.onnx", place / "q.onnx", calib=place / "images")
    assert not (place / "q.onnx").exists()


def test_interrupted_after_pruning(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fcpts_onnx.quantize", interrupt)
    result = prune(place, "--then-quantize", str(place / "out8.onnx"))
    assert result.exit_code == 130
    assert f"Interrupted; the sparse model itself is in {place / 'out.onnx'}" in result.output


def test_after_pruning(place: Path) -> None:
    result = prune(place, "--then-quantize", str(place / "out8.onnx"))
    assert result.exit_code == 0, result.output
    last = result.output.splitlines()[-2:]
    assert last[0].startswith(f"{place / 'out8.onnx'}: 8 bits, ")
    assert "of 320 weights are zero" in last[0]
    assert last[1].startswith(f"Output scores against {place / 'in.onnx'}, 16 samples: KL ")
    for names in (("--then-quantize", "out.onnx"), ("--then-quantize", "in.onnx")):
        assert prune(place, names[0], str(place / names[1])).exit_code == 2
