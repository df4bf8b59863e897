"""Bad input: one error that says what to do, exit code 1, and nothing written."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from fcpts_onnx.write import save
from tests import networks
from tests.cli.door import listing, prune, run
from tests.cli.faults import external, last_node, model, weights
from tests.networks import QUICK, save_images


@dataclass(frozen=True)
class Bad:
    """A fault brought into the place, and what has to be said of it."""

    name: str
    spoil: Callable[[Path], object]
    message: str
    options: tuple[str, ...] = ()
    target: str = "0.6"

    def __str__(self) -> str:
        return self.name


def images(**settings: object) -> Callable[[Path], object]:
    """Other calibration images."""

    def spoil(place: Path) -> None:
        for path in (place / "images").iterdir():
            path.unlink()
        if settings:
            save_images(place / "images", **settings)

    return spoil


def unreadable_images(place: Path) -> None:
    for path in (place / "images").iterdir():
        path.write_text("not an image")


def huge_images(place: Path) -> None:
    """A header that promises more pixels than Pillow takes."""
    for path in (place / "images").iterdir():
        content = bytearray(path.read_bytes())
        content[16:24] = (60_000).to_bytes(4, "big") * 2
        content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
        path.write_bytes(bytes(content))


def no_layer(proto: onnx.ModelProto) -> None:
    del proto.graph.node[:]
    proto.graph.node.append(helper.make_node("GlobalAveragePool", ["image"], ["scores"]))
    proto.graph.output[0].type.tensor_type.shape.CopyFrom(
        helper.make_tensor_value_info("x", 1, ["N", 3, 1, 1]).type.tensor_type.shape
    )


def text_constant(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.append(helper.make_tensor("text", onnx.TensorProto.STRING, [1], ["a"]))
    proto.graph.node[-1].output[0] = "before"
    proto.graph.node.append(helper.make_node("Add", ["before", "text"], ["scores"], "measure"))


BAD = [
    Bad("missing model", lambda p: (p / "in.onnx").unlink(), "in.onnx: cannot be read: No such"),
    Bad("text", lambda p: (p / "in.onnx").write_text("text" * 99), "not an ONNX model, or cut"),
    Bad(
        "truncated",
        lambda p: (p / "in.onnx").write_bytes((p / "in.onnx").read_bytes()[:-99]),
        "not an ONNX model, or cut short",
    ),
    Bad("external missing", external("weights.bin", write=False), "'weights.bin', is missing"),
    Bad("external outside", external("../weights.bin", write=True), "outside the model's folder"),
    Bad(
        "unknown opset",
        model(lambda proto: proto.opset_import[0].CopyFrom(helper.make_opsetid("", 77))),
        "has opset 77; supported are 7 to",
    ),
    Bad("unsupported operator", last_node("RandomNormalLike"),
        "RandomNormalLike (opset 17): the RandomNormalLike"),
    Bad(
        "nothing left",
        lambda _: None,
        "has no prunable weight: conv.w is --exclude *",
        ("--exclude", "*"),
    ),
    Bad("glob", lambda _: None, "--include 'x*' matches no weight", ("--include", "x*")),
    Bad("target 0", lambda _: None, "target is 0; expected a share", target="0"),
    Bad("target 1", lambda _: None, "target is 1; expected a share", target="1"),
    Bad("target 70", lambda _: None, "target is 70; expected a share", target="70"),
    Bad("target NaN", lambda _: None, "target is nan; expected a share", target="nan"),
    Bad("target too low", weights(0.0), "below the 0.0844 of zeros already there", target="0.05"),
    Bad("target too high", lambda _: None, "would empty a layer", target="0.99"),
    Bad("no images", images(), "no images"),
    Bad("no folder", lambda p: (p / "images").rename(p / "else"), "images: no such file or folder"),
    Bad("unreadable images", unreadable_images, "None of the 16 images can be read, the first"),
    Bad(
        "channels",
        lambda p: networks.save(networks.cnn(channels=5), p / "in.onnx"),
        "Input 'image' has 5 channels",
    ),
    Bad(
        "grey",
        lambda p: networks.save(networks.cnn(channels=1), p / "in.onnx"),
        "has one channel, the preprocessing has three",
    ),
    Bad(
        "not an image input",
        lambda p: networks.save(networks.perceptron(), p / "in.onnx"),
        "images need four dimensions",
    ),
    Bad("size", lambda _: None, "asks for a height of 9; input 'image' has 8", ("--size", "9x8")),
    Bad("preprocessing", lambda _: None, "'cifar10' is unknown", ("--preprocess", "cifar10")),
    Bad("recipe", lambda p: (p / "quick.toml").write_text("epoch = 1"), "unknown epoch"),
    Bad("NaN in weights", weights(float("nan")), "NaN or Inf in the weights conv.w"),
    Bad("Inf in weights", weights(float("inf")), "NaN or Inf in the weights conv.w"),
    Bad("NaN in outputs", last_node("Log"), "output 'scores' has NaN or Inf on this data"),
    Bad("diverging", lambda p: (p / "quick.toml").write_text(QUICK + "learning_rate = 1e3\n"
        'optimizer = "sgd"\n'), "Learning diverged: the loss is "),
    Bad("no CUDA", lambda _: None, "no usable CUDA device", ("--device", "cuda")),
    Bad("no layer", model(no_layer), "Gemm or MatMul has a constant weight"),
    Bad("text constant", model(text_constant), "reading 'text' of type string: measure"),
    Bad("type that torch lacks", last_node("Cast", to=17), "Cast (opset 17) with to=17: the Cast"),
    Bad("huge images", huge_images, "None of the 16 images can be read, the first"),
    Bad("JSON in a missing folder", lambda _: None, "nowhere does not exist",
        ("--json", "nowhere/result.json")),
    Bad("target -1", lambda _: None, "target is -1; expected a share", target="-1"),
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_bad_input(place: Path, bad: Bad) -> None:
    if bad.name == "no CUDA" and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    bad.spoil(place)
    before = listing(place)
    result = prune(place, *bad.options, target=bad.target)
    assert result.exit_code == 1, result.output
    assert "Error: " in result.output
    assert bad.message in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert listing(place) == before


def test_several_unsupported_operators_are_all_named(place: Path) -> None:
    proto = networks.cnn()
    proto.graph.node[-1].output[0] = "before"
    proto.graph.node.append(helper.make_node("RandomNormalLike", ["before"], ["a"], "one"))
    proto.graph.node.append(helper.make_node("RandomNormalLike", ["a"], ["b"], "two"))
    proto.graph.node.append(helper.make_node("RandomUniformLike", ["b"], ["scores"], "three"))
    networks.save(proto, place / "in.onnx")
    before = listing(place)
    result = prune(place)
    assert result.exit_code == 1
    assert "RandomNormalLike (opset 17): one, two" in result.output
    assert "RandomUniformLike (opset 17): three" in result.output
    assert listing(place) == before


def test_an_unreadable_image_is_named_and_skipped(place: Path) -> None:
    (place / "images" / "003.png").write_text("not an image")
    result = prune(place)
    assert result.exit_code == 0, result.output
    assert f"Skipped: {place / 'images' / '003.png'}: " in result.output
    assert "Calibration: 15 images" in result.output


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere/out.onnx", "nowhere does not exist. Make it first"),
        ("images", "images: is a folder"),
        ("in.onnx", "in.onnx: is the input itself. Pass --overwrite"),
        ("weights.bin", "weights.bin: is read for this run"),
        ("calib.npy", "calib.npy: is read for this run"),
    ],
)
def test_output_that_cannot_be(place: Path, target: str, message: str) -> None:
    external("weights.bin", write=True)(place)
    np.save(place / "calib.npy", networks.values(8, 3, 8, 8))
    before = listing(place)
    result = run(
        "prune", place / "in.onnx", place / target, "--target", ".5",
        "--calib", place / "calib.npy",
    )  # fmt: skip
    assert result.exit_code == 1
    assert message in result.output
    assert listing(place) == before


NOT_A_NUMBER = [
    ("validate", "in.onnx", "bad.onnx", "--calib", "images"),
    ("validate", "bad.onnx", "in.onnx", "--calib", "images"),
    ("eval", "bad.onnx", "--data", "labelled"),
]


@pytest.mark.parametrize("arguments", NOT_A_NUMBER, ids=" ".join)
def test_outputs_that_are_not_numbers(
    place: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(place)
    shutil.copy("in.onnx", "good.onnx")
    weights(float("nan"))(place)
    (place / "in.onnx").rename("bad.onnx")
    (place / "good.onnx").rename("in.onnx")
    result = run(*arguments, "--json", "result.json")
    assert result.exit_code == 1
    assert "bad.onnx: output 'scores' has NaN or Inf on this data" in result.output
    assert not (place / "result.json").exists()


OTHER_COMMANDS = [
    (("inspect", "nothing.onnx"), "nothing.onnx: cannot be read: No such file"),
    (("inspect", "quick.toml"), "quick.toml: not an ONNX model"),
    (("validate", "in.onnx", "nothing.onnx", "--calib", "images"), "nothing.onnx: cannot be read"),
    (("validate", "in.onnx", "in.onnx", "--calib", "nowhere"), "nowhere: no such file or folder"),
    (("eval", "in.onnx", "--data", "nowhere"), "nowhere: no such folder of labelled images"),
    (("eval", "in.onnx", "--data", "hollow"), "no images in its folders"),
    (("eval", "in.onnx", "--data", "images"), "lies outside one"),
    (("eval", "in.onnx", "--data", "labelled", "--labels", "nowhere"), "cannot be read as a list"),
    (("demo", "--target", "1.5"), "target is 1.5; expected a share"),
]


@pytest.mark.parametrize(("arguments", "message"), OTHER_COMMANDS)
def test_bad_input_to_other_commands(
    place: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(place)
    (place / "hollow" / "ant").mkdir(parents=True)
    before = listing(place)
    result = run(*arguments, "--json", "result.json")
    assert result.exit_code == 1, result.output
    assert message in " ".join(result.output.split())
    assert listing(place) == before


def test_a_mean_of_other_values_is_refused(place: Path) -> None:
    result = prune(place, "--mean", "123.675,116.28,103.53")
    assert result.exit_code == 1
    assert "is of pixels from 0 to 255, and they are scaled by 0.00392" in result.output


def test_what_onnxruntime_refuses_is_said_before_images_are_read(place: Path) -> None:
    proto = onnx.load(place / "in.onnx")
    proto.graph.node[1].name = proto.graph.node[0].name
    onnx.save(proto, place / "in.onnx")
    (place / "none").mkdir()
    result = prune(place, "--calib", str(place / "none"))
    assert result.exit_code == 1
    assert "in.onnx: onnxruntime cannot load it: " in " ".join(result.output.split())


def test_what_cannot_be_quantized_is_said_before_a_run(place: Path) -> None:
    proto = onnx.load(place / "in.onnx")
    for tensor in proto.graph.initializer:
        if tensor.name == "conv.w":
            half = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    onnx.save(proto, place / "in.onnx")
    result = prune(place, "--then-quantize", str(place / "q.onnx"))
    assert result.exit_code == 1
    assert "the quantizer takes float32 only" in result.output


def test_a_file_that_breaks_its_promise_is_not_put_in_place(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_zero_more(
        dense: object, arrays: dict[str, np.ndarray], *rest: object, **options: object
    ) -> None:
        spoiled = {name: array.copy() for name, array in arrays.items()}
        kept = np.argwhere(spoiled["conv.w"])[0]
        spoiled["conv.w"][tuple(kept)] = 0
        save(dense, spoiled, *rest, **options)

    monkeypatch.setattr("fcpts_onnx.publish.save", one_zero_more)
    before = listing(place)
    result = prune(place)
    assert result.exit_code == 1
    assert "The saved file has 193 zeros instead of 192" in result.output
    assert listing(place) == before
