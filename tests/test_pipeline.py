"""The Python API, end to end: on small models through every door, and on every shared model."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

import fcpts_onnx
from fcpts_onnx import FcptsError, Progress, PruneResult, Recipe
from fcpts_onnx.model import load
from fcpts_onnx.parity import tolerance
from tests import networks
from tests.networks import save_images, values
from tests.shared import CIFAR10, MODELS, SHARED, model_files, needs_shared
from tests.test_write import assert_only_values_differ, may_change
from tools.bench_real import Real, real_models

QUICK = Recipe(epochs=0, min_steps=6, batch_size=4, interval=1)


def test_readme_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    networks.save(networks.cnn(), tmp_path / "in.onnx")
    save_images(tmp_path / "imgs", 12)
    for name in ("a", "b", "c", "d"):
        save_images(tmp_path / "labelled" / name, 2)
    monkeypatch.chdir(tmp_path)
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    code = readme.split("```python\n")[1].split("```")[0]
    exec(code.replace("seed=0", "seed=0, recipe=QUICK"), {"QUICK": QUICK})
    assert (tmp_path / "out.onnx").exists()


def test_result_and_reports(tmp_path: Path) -> None:
    path = networks.save(networks.perceptron(), tmp_path / "in.onnx")
    lines: list[str] = []
    seen: list[Progress] = []
    result = fcpts_onnx.prune(
        path, tmp_path / "out.onnx", target=0.5, calib=[values(30, 6)], recipe=QUICK,
        say=lines.append, report=seen.append,
    )  # fmt: skip
    assert (result.zeros, result.count) == (88, 176)
    assert result.history == tuple(seen)
    assert lines[0].startswith("Calibration: 30 samples of 6 for 'x', values ")
    assert lines[1].startswith("Warning: 30 samples are few")
    assert lines[2].startswith("Twin: agrees with onnxruntime within ")
    assert set(result.seconds) == {"load", "budget", "calibrate", "check", "learn", "write"}
    assert result.validation.model == str(tmp_path / "out.onnx")
    assert set(result.validation.changed) == {"first", "second", "bias"}
    assert result.validation.twin_error < 1e-5


WRONG = {
    "an unknown loss": ({"losses": {"y": "l1"}}, "--loss l1 is unknown"),
    "an unknown output": ({"losses": {"x": "kl"}}, "--loss names x; what is learned against is"),
    "an engine that is not here": ({"engine": "ort"}, "--engine ort needs onnxruntime-training"),
    "views where nothing is learned": (
        {"augment": ["flip"], "allocate": "erk", "reconstruct": "none"},
        "--augment: for learning by gradients alone, which --reconstruct none does without",
    ),
    "rates of other weights": (
        {"allocate": "rates.json"},
        "no rate for second: add one for each; has rates for x",
    ),
    "fewer threads than none": ({"threads": -3}, "-3 threads; expected 1 or more, or 0"),
    "an unknown device": ({"hardware": "cv33"}, "cv33 is unknown; expected cv2, .*, mnn"),
    "a share above one": ({"target": 1.5}, "target"),
    "a text for a list": ({"exclude": "fc*"}, r"exclude is 'fc\*'; expected a list of such"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_options_are_said_before_samples_are_read(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, message = WRONG[case]
    if "engine" in options and find_spec("onnxruntime.training"):
        pytest.skip("onnxruntime-training is installed")
    (tmp_path / "rates.json").write_text('{"first": 0.5, "x": 0.5}')
    monkeypatch.chdir(tmp_path)
    path = networks.save(networks.perceptron(), tmp_path / "in.onnx")
    with pytest.raises(FcptsError, match=message):
        fcpts_onnx.prune(path, "out.onnx", **{"target": 0.5, "calib": unread()} | options)


def unread() -> Iterator[np.ndarray]:
    yield pytest.fail("samples were read")


def test_what_cannot_be_taken_layer_by_layer_is_said_before_samples_are_read(
    tmp_path: Path,
) -> None:
    nodes = [onnx.helper.make_node("MatMul", [x, "w"], [y]) for x, y in ("xh", "hy")]
    proto = networks.make(nodes, {"w": values(6, 6)}, {"x": ["N", 6]}, {"y": ["N", 6]})
    path = networks.save(proto, tmp_path / "in.onnx")
    with pytest.raises(FcptsError, match="Layer by layer cannot take w: used by several nodes"):
        fcpts_onnx.prune(
            path, tmp_path / "out.onnx", target=0.5, calib=unread(), allocate="erk",
            reconstruct="wanda",
        )  # fmt: skip


def test_views_are_for_images(tmp_path: Path) -> None:
    path = networks.save(networks.perceptron(), tmp_path / "in.onnx")
    with pytest.raises(FcptsError, match="--augment flip is for images, and Python has arrays"):
        fcpts_onnx.prune(
            path, tmp_path / "out.onnx", target=0.5, calib=[values(30, 6)], augment=["flip"]
        )


def named(proto: onnx.ModelProto, outputs: list[str]) -> onnx.ModelProto:
    """The perceptron with names of classes as texts, and shares as scikit-learn's converter."""
    node, letters, of_ml = onnx.helper.make_node, ["a", "b", "c", "d", "e"], "ai.onnx.ml"
    nodes = {
        "y": [],
        "names": [
            node("ArgMax", ["y"], ["best"], axis=1, keepdims=0),
            node(
                "LabelEncoder", ["best"], ["names"], domain=of_ml, keys_int64s=range(5),
                values_strings=letters,
            ),
        ],
        "shares": [node("ZipMap", ["y"], ["shares"], domain=of_ml, classlabels_strings=letters)],
    }  # fmt: skip
    share = onnx.helper.make_tensor_type_proto(networks.FLOAT, None)
    shares = onnx.helper.make_map_type_proto(onnx.TensorProto.STRING, share)
    known = {
        "y": proto.graph.output[0],
        "names": onnx.helper.make_tensor_value_info("names", onnx.TensorProto.STRING, ["N"]),
        "shares": onnx.helper.make_value_info(
            "shares", onnx.helper.make_sequence_type_proto(shares)
        ),
    }
    proto.graph.node.extend(part for name in outputs for part in nodes[name])
    wanted = [onnx.ValueInfoProto.FromString(known[n].SerializeToString()) for n in outputs]
    del proto.graph.output[:]
    proto.graph.output.extend(wanted)
    proto.opset_import.append(onnx.helper.make_opsetid(of_ml, 2))
    return proto


@pytest.mark.parametrize("outputs", [["y", "names"], ["names"], ["y", "shares"]])
def test_texts_and_maps_as_outputs(outputs: list[str], tmp_path: Path) -> None:
    path = networks.save(named(networks.perceptron(), outputs), tmp_path / "in.onnx")
    result = fcpts_onnx.prune(
        path, tmp_path / "out.onnx", target=0.5, calib=[values(30, 6)], recipe=QUICK
    )
    assert [output.name for output in result.validation.outputs] == outputs[:-1]
    assert result.validation.twin_error < 1e-5


@pytest.mark.parametrize("batch", [None, 1])
def test_what_is_no_tensor_of_numbers_is_not_compared(batch: int | None, tmp_path: Path) -> None:
    proto = named(networks.perceptron(), ["y", "shares", "names"])
    if batch is not None:
        proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    path = networks.save(proto, tmp_path / "in.onnx")
    found = fcpts_onnx.validate(path, path, calib=[values(30, 6)])
    assert [(output.name, output.agreement) for output in found.outputs] == [("y", 1.0)]


def test_several_inputs(tmp_path: Path) -> None:
    nodes = [
        onnx.helper.make_node("MatMul", ["a", "w"], ["p"]),
        onnx.helper.make_node("MatMul", ["b", "v"], ["q"]),
        onnx.helper.make_node("Add", ["p", "q"], ["y"]),
    ]
    constants = {"w": values(6, 5, seed=1), "v": values(4, 5, seed=2)}
    proto = networks.make(nodes, constants, {"a": ["N", 6], "b": ["N", 4]}, {"y": ["N", 5]})
    path = networks.save(proto, tmp_path / "in.onnx")
    np.savez(tmp_path / "x.npz", a=values(20, 6), b=values(20, 4))
    result = fcpts_onnx.prune(
        path, tmp_path / "out.onnx", target=0.4, calib=tmp_path / "x.npz", recipe=QUICK
    )
    assert result.zeros == 20


@pytest.mark.parametrize("stated", [1, "N"])
def test_a_baked_batch_size(stated: int | str, tmp_path: Path) -> None:
    path = networks.save(networks.cnn(batch=stated, baked=True), tmp_path / "in.onnx")
    result = fcpts_onnx.prune(
        path, tmp_path / "out.onnx", target=0.5, calib=[values(10, 3, 8, 8)], recipe=QUICK
    )
    assert result.parity.per_sample
    assert result.zeros == 160


def test_a_batch_norm_that_is_switched_off(tmp_path: Path) -> None:
    proto = networks.batch_norm()
    scale = next(n for n in proto.graph.node if n.op_type == "BatchNormalization").input[1]
    tensor = next(t for t in proto.graph.initializer if t.name == scale)
    tensor.CopyFrom(numpy_helper.from_array(np.zeros(tensor.dims, np.float32), scale))
    path = networks.save(proto, tmp_path / "in.onnx")
    shape = [dim.dim_value or 16 for dim in proto.graph.input[0].type.tensor_type.shape.dim]
    result = fcpts_onnx.prune(
        path, tmp_path / "out.onnx", target=0.5, calib=[values(*shape)], recipe=QUICK
    )
    assert result.zeros == round(0.5 * result.count)


def test_external_data_that_was_lost_is_written_anew(tmp_path: Path) -> None:
    """And stays there: the name that the former file had for it is free."""
    path, out = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(networks.cnn(), str(path), save_as_external_data=True, size_threshold=64)
    for target in (0.5, 0.6):
        fcpts_onnx.prune(path, out, target=target, calib=[values(10, 3, 8, 8)], recipe=QUICK)
        zeros = sum(weight.zeros for weight in fcpts_onnx.inspect(out).weights)
        assert zeros == round(target * 320)
        (tmp_path / "out.onnx.data").unlink()


def test_in_place_through_a_link(tmp_path: Path) -> None:
    """The link becomes a file of its own, with its own data; what it led to stays."""
    folder, said = tmp_path / "links", list[str]()
    folder.mkdir()
    onnx.save(networks.cnn(), tmp_path / "in.onnx", save_as_external_data=True, size_threshold=64)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("in.onnx*")}
    (folder / "in.onnx").symlink_to(tmp_path / "in.onnx")
    (folder / "in.onnx.data").symlink_to(tmp_path / "in.onnx.data")
    where = folder / "in.onnx"
    fcpts_onnx.prune(
        where, where, target=0.5, calib=[values(10, 3, 8, 8)], recipe=QUICK, overwrite=True,
        say=said.append,
    )  # fmt: skip
    assert sum(weight.zeros for weight in fcpts_onnx.inspect(where).weights) == 160
    assert f"{where}: is a link and becomes a file; what it leads to stays as it is" in said
    assert {path.name: path.read_bytes() for path in tmp_path.glob("in.onnx*")} == before


def test_external_data_and_overwriting_in_place(tmp_path: Path) -> None:
    path = tmp_path / "in.onnx"
    onnx.save(
        networks.cnn(), str(path), save_as_external_data=True, size_threshold=64,
        location="in.onnx.data",
    )  # fmt: skip
    for target in (0.5, 0.6):
        result = fcpts_onnx.prune(
            path, path, target=target, calib=[values(10, 3, 8, 8)], recipe=QUICK, overwrite=True
        )
        assert result.zeros == round(320 * target)
        ort.InferenceSession(str(path))
        data = [file.name for file in tmp_path.iterdir() if file.suffix == ".data"]
        assert len(data) == 1


def stored_zeros(path: Path, names: list[str]) -> int:
    """Zeros counted from the file by hand: of integers, what DequantizeLinear makes zero."""
    proto = onnx.load(str(path))
    tensors = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    tensors |= {
        node.output[0]: numpy_helper.to_array(node.attribute[0].t)
        for node in proto.graph.node
        if node.op_type == "Constant" and node.attribute[0].name == "value"
    }
    readers = {n.input[0]: n for n in proto.graph.node if n.op_type == "DequantizeLinear"}
    zeros = 0
    for name in names:
        point = 0
        if tensors[name].dtype.kind in "iu" and len(readers[name].input) > 2:
            point = tensors[readers[name].input[2]].astype(np.int32)
            axis = next((a.i for a in readers[name].attribute if a.name == "axis"), 1)
            if point.ndim:
                point = np.moveaxis(point.reshape(-1, *[1] * (tensors[name].ndim - 1)), 0, axis)
        zeros += int((tensors[name].astype(np.float32) == point).sum())
    return zeros


@pytest.mark.parametrize("how", [{}, {"allocate": "uniform", "reconstruct": "none"}], ids=str)
@pytest.mark.parametrize("point", [0, 3])
def test_channels_of_scale_zero(how: dict[str, str], point: int, tmp_path: Path) -> None:
    """Whatever is stored in them is zero; what is stored for a zero is counted all the same."""
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scale", "point"], ["w"], axis=1),
        helper.make_node("MatMul", ["x", "w"], ["a"], "one"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "v"], ["y"], "two"),
    ]
    stored = np.random.default_rng(0).integers(-100, 100, (6, 16), np.int8)
    scale = np.full(16, 0.01, np.float32)
    scale[3:9] = 0.0
    constants = {
        "q": stored, "scale": scale, "point": np.full(16, point, np.int8), "v": values(16, 5),
    }  # fmt: skip
    proto = networks.make(nodes, constants, {"x": ["N", 6]}, {"y": ["N", 5]})
    path, output = networks.save(proto, tmp_path / "in.onnx"), tmp_path / "out.onnx"
    for target in (0.1, 0.5):
        result = fcpts_onnx.prune(
            path, output, target=target, calib=[values(64, 6, scale=1.0)], recipe=QUICK, **how
        )
        assert result.zeros == stored_zeros(output, ["q", "v"]) == round(target * 176)
        assert all(np.isfinite(step.loss) for step in result.history)


def test_the_table_of_real_models_names_every_file() -> None:
    found = {real.path for real in real_models(SHARED)}
    assert found == set(model_files()) or not MODELS.is_dir()


@needs_shared
@pytest.mark.parametrize("real", real_models(SHARED), ids=lambda real: real.path.stem)
def test_real_models(real: Real, tmp_path: Path) -> None:
    path, output = real.path, tmp_path / "out.onnx"

    def prune() -> PruneResult:
        return fcpts_onnx.prune(
            path, output, target=0.7, calib=real.samples(8), preprocess=real.preprocess, samples=8,
            recipe=Recipe(epochs=0, min_steps=2, batch_size=4, interval=1),
        )  # fmt: skip

    if real.refused is not None:
        with pytest.raises(FcptsError) as caught:
            prune()
        assert real.refused in str(caught.value)
        assert list(tmp_path.iterdir()) == []
        return
    result = prune()
    assert result.zeros == round(0.7 * result.count)
    assert (
        stored_zeros(output, [weight.name for weight in result.validation.weights]) == result.zeros
    )
    assert set(result.validation.changed) <= may_change(onnx.load(str(path)))
    assert_only_values_differ(path, output, set(result.validation.changed))
    assert result.parity.error < tolerance(load(path))


@needs_shared
def test_accuracy_survives_on_a_real_network(tmp_path: Path) -> None:
    """A short run: 40 steps on 600 images keep what pruning at once loses."""
    output = tmp_path / "out.onnx"
    fcpts_onnx.prune(
        MODELS / "resnet20_cifar10.onnx", output, target=0.5, calib=CIFAR10 / "calib",
        samples=600, recipe=Recipe(epochs=0, min_steps=40, learning_rate=0.005),
    )  # fmt: skip
    assert fcpts_onnx.evaluate(output, data=CIFAR10 / "val").scores["top-1"] > 0.85
