"""The command line, through its public door: output, exit codes, and nothing written on failure."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result
from onnx import helper, numpy_helper

from fcpts_onnx.cli import main
from fcpts_onnx.model import load
from fcpts_onnx.recipe import Recipe, recipe_names
from fcpts_onnx.write import save
from tests import networks
from tests.networks import QUICK, save_images


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def prune(place: Path, *options: str, target: str = "0.6") -> Result:
    return run(
        "prune", place / "in.onnx", place / "out.onnx", "--target", target,
        "--calib", place / "images", "--recipe", place / "quick.toml", *options,
    )  # fmt: skip


def test_only_models_are_replaced(place: Path) -> None:
    image = next((place / "images").iterdir())
    before = image.read_bytes()
    options = ("--target", "0.6", "--calib", place / "images", "--recipe", place / "quick.toml")
    for arguments in (
        ("prune", place / "in.onnx", image, *options),
        ("prune", place / "in.onnx", place / "out.onnx", *options, "--then-quantize", image),
        ("quantize", place / "in.onnx", image, "--calib", place / "labelled"),
    ):
        result = run(*arguments)
        assert result.exit_code != 0
        assert "exists and is not an ONNX model. Name another file." in result.output
    assert image.read_bytes() == before
    assert not (place / "out.onnx").exists()


def test_the_dense_model_is_not_replaced_by_mistake(place: Path) -> None:
    assert prune(place).exit_code == 0
    dense = (place / "in.onnx").read_bytes()
    swapped = [
        "prune", place / "out.onnx", place / "in.onnx", "--target", "0.6", "--calib",
        place / "images", "--recipe", place / "quick.toml",
    ]  # fmt: skip
    result = run(*swapped)
    assert result.exit_code == 1
    assert "is a model of the same weights with 0 zeros" in result.output
    assert (place / "in.onnx").read_bytes() == dense
    assert prune(place, target="0.5").exit_code == 0  # what was written before may go
    assert run(*swapped, "--overwrite").exit_code == 0


def test_a_mean_of_other_values_is_refused(place: Path) -> None:
    result = prune(place, "--mean", "123.675,116.28,103.53")
    assert result.exit_code == 1
    assert "is of pixels from 0 to 255, and they are scaled by 0.00392" in result.output


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


class OnWindows:
    """The module `os`, as it is there in name."""

    name = "nt"

    def __getattr__(self, attribute: str) -> Any:
        return getattr(os, attribute)


def test_patterns_are_not_taken_for_files(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What click does on Windows, whose shells expand none."""
    (place / "fc-old.onnx").touch()
    monkeypatch.chdir(place)
    monkeypatch.setattr("click.core.os", OnWindows())
    line = ["fcpts-onnx", "inspect", "in.onnx", "--exclude", "fc*", "--json", "i.json"]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit, match="0"):
        main()
    weights = {w["name"]: w for w in json.loads((place / "i.json").read_text())["weights"]}
    assert weights["fc.w"]["excluded"]
    assert not weights["conv.w"]["excluded"]


def test_names_that_the_terminal_cannot_show(place: Path) -> None:
    (place / "in.onnx").rename(place / "模型.onnx")
    done = subprocess.run(
        [sys.executable, "-m", "fcpts_onnx", "inspect", "模型.onnx", "--json", "i.json"],
        cwd=place, capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "\\u6a21\\u578b.onnx: opset 17" in done.stdout
    assert (place / "i.json").exists()


def test_prune(place: Path) -> None:
    before = (place / "in.onnx").read_bytes()
    result = prune(place, "--json", str(place / "result.json"))
    assert result.exit_code == 0, result.output
    for line in (
        "Calibration: 16 images of 8x8x3, values ",
        "Twin: agrees with onnxruntime within ",
        "step 6/6  loss ",
        "192 of 320 weights are zero (60.0000%), asked for 60%",
        "Output scores against dense, 16 samples: KL ",
    ):
        assert line in result.output
    assert (place / "in.onnx").read_bytes() == before
    model = load(place / "out.onnx")
    zeros = {
        name: int((model.array(name) == 0).sum()) for name in ("conv.w", "depthwise.w", "fc.w")
    }
    assert sum(zeros.values()) == round(0.6 * 320)
    stored = json.loads((place / "result.json").read_text())
    assert stored["zeros"] == 192
    assert {w["name"]: w["zeros"] for w in stored["validation"]["weights"]} == zeros
    assert stored["validation"]["same_graph"] is True


def test_same_seed_same_file(place: Path) -> None:
    written = []
    for seed in ("1", "1", "2"):
        assert prune(place, "--seed", seed, "--quiet").exit_code == 0
        written.append((place / "out.onnx").read_bytes())
    assert written[0] == written[1] != written[2]


def test_quiet_prints_nothing(place: Path) -> None:
    assert prune(place, "--quiet").output == ""


def test_selection(place: Path) -> None:
    result = prune(place, "--exclude", "depthwise*", "--keep-dense", "last", target="0.5")
    assert result.exit_code == 0, result.output
    before, after = load(place / "in.onnx"), load(place / "out.onnx")
    assert int((after.array("conv.w") == 0).sum()) == 108
    for name in ("depthwise.w", "fc.w", "fc.b"):
        np.testing.assert_array_equal(after.array(name), before.array(name))


def test_overwrite(place: Path) -> None:
    arguments = (
        "prune", place / "in.onnx", place / "in.onnx", "--target", "0.5",
        "--calib", place / "images", "--recipe", place / "quick.toml",
    )  # fmt: skip
    before = (place / "in.onnx").read_bytes()
    result = run(*arguments)
    assert result.exit_code == 1
    assert "is the input itself. Pass --overwrite" in result.output
    assert (place / "in.onnx").read_bytes() == before
    assert run(*arguments, "--overwrite").exit_code == 0
    assert int((load(place / "in.onnx").array("conv.w") == 0).sum()) > 50


def test_inspect(place: Path) -> None:
    result = run("inspect", place / "in.onnx", "--exclude", "fc", "--json", place / "i.json")
    assert result.exit_code == 0, result.output
    assert "opset 17; input image: float32 [?, 3, 8, 8]" in result.output
    assert "conv.w" in result.output
    assert "no: --exclude fc" in result.output
    assert "2 of 3 weights can be pruned: 288 values" in result.output
    assert "Learned against scores: divergence of scores along axis 1 (kl)" in result.output
    stored = json.loads((place / "i.json").read_text())
    assert [weight["excluded"] for weight in stored["weights"]] == [None, None, "--exclude fc"]


def test_inspect_tells_what_is_in_the_way(place: Path) -> None:
    last_node("RandomNormalLike")(place)
    result = run("inspect", place / "in.onnx")
    assert result.exit_code == 0, result.output
    assert "It cannot be pruned: " in result.output
    assert "RandomNormalLike (opset 17): the RandomNormalLike" in result.output


def test_a_loss_that_is_asked_for(place: Path) -> None:
    result = prune(place, "--loss", "scores=mse")
    assert result.exit_code == 0, result.output
    assert "Output scores: squared error, relative to its variance (mse)" in result.output
    for loss, message in (
        ("other=kl", "--loss names other; what is learned against is scores."),
        ("scores=l1", "--loss l1 is unknown; expected kl, bce, mse."),
    ):
        result = prune(place, "--loss", loss)
        assert result.exit_code == 1
        assert message in result.output
    assert prune(place, "--loss", "scores").exit_code == 2


def test_views_and_time_that_are_asked_for(place: Path) -> None:
    result = prune(place, "--augment", "mix", "--time-budget", "0.1m", "--json", place / "r.json")
    assert result.exit_code == 0, result.output
    found = json.loads((place / "r.json").read_text())
    assert sum(found["seconds"].values()) < 9
    assert found["history"][-1]["step"] > 6  # what the recipe says
    plain, views = (
        (prune(place, "--augment", kinds), (place / "out.onnx").read_bytes())
        for kinds in ("none", "flip,mix")
    )
    assert plain[0].exit_code == views[0].exit_code == 0
    assert plain[1] != views[1]


@pytest.mark.parametrize(
    ("epochs_to_mix", "asked", "expected"),
    [(1.6, (), []), (1.5, (), ["mix"]), (1.6, ("--augment", "mix"), ["mix"])],
)
def test_mixtures_in_long_runs_only(
    epochs_to_mix: float, asked: tuple[str, ...], expected: list[str], place: Path
) -> None:
    recipe = f'{networks.QUICK}augment = ["mix"]\nepochs_to_mix = {epochs_to_mix}\n'
    (place / "mixing.toml").write_text(recipe, encoding="utf-8")
    arguments = ("--recipe", place / "mixing.toml", "--json", place / "r.json", *asked)
    result = prune(place, *arguments)
    assert result.exit_code == 0, result.output
    assert json.loads((place / "r.json").read_text())["settings"]["augment"] == expected
    left_out = "Views: no mix, which pays from 1.6 epochs on; here are 1.5" in result.output
    assert left_out == (not expected)


def test_a_short_time_leaves_mixtures_out(place: Path) -> None:
    """The recipe has epochs enough, and more than fit."""
    long = 'epochs = 1e6\nbatch_size = 4\naugment = ["mix"]\nepochs_to_mix = 9e5\n'
    (place / "long.toml").write_text(long, encoding="utf-8")
    arguments = ("--recipe", place / "long.toml", "--json", place / "r.json", "--time-budget", "9s")
    result = prune(place, *arguments)
    assert result.exit_code == 0, result.output
    assert json.loads((place / "r.json").read_text())["settings"]["augment"] == []
    assert "Views: no mix, which pays from 900000 epochs on; here are " in result.output


def test_arrays_are_learned_from_as_they_are(place: Path) -> None:
    np.save(place / "images.npy", networks.values(16, 3, 8, 8))
    arguments = ("--calib", place / "images.npy", "--augment", "flip", "--json", place / "r.json")
    assert prune(place, *arguments).exit_code == 0
    assert json.loads((place / "r.json").read_text())["settings"]["augment"] == []


def test_zeros_shared_by_a_rule_or_a_file(place: Path) -> None:
    assert prune(place, "--allocate", "erk", "--json", place / "r.json").exit_code == 0
    found = json.loads((place / "r.json").read_text())
    assert found["allocate"] == "erk"
    rates = {entry["name"]: entry["zeros"] for entry in found["validation"]["weights"]}
    result = prune(place, "--allocate", place / "r.json", "--json", place / "again.json")
    assert result.exit_code == 0, result.output
    again = json.loads((place / "again.json").read_text())
    assert {e["name"]: e["zeros"] for e in again["validation"]["weights"]} == rates
    (place / "rates.json").write_text('{"conv.w": 0.5}')
    result = prune(place, "--allocate", place / "rates.json")
    assert result.exit_code == 1
    assert "has no rate for depthwise.w, fc.w" in result.output


@pytest.mark.parametrize("reconstruct", ["layerwise", "sparsegpt", "wanda", "none"])
def test_layer_by_layer(reconstruct: str, place: Path) -> None:
    options = ("--allocate", "l2norm", "--reconstruct", reconstruct)
    result = prune(place, *options, "--json", place / "r.json")
    assert result.exit_code == 0, result.output
    found = json.loads((place / "r.json").read_text())
    assert (found["zeros"], found["reconstruct"]) == (192, reconstruct)
    assert found["validation"]["twin_error"] < 1e-4
    changed = {"conv.w", "depthwise.w", "fc.w"}
    biases = {"conv.b", "fc.b"} if reconstruct == "layerwise" else set()
    assert set(found["validation"]["changed"]) == changed | biases


def test_wrong_usage_is_said_before_labelled_images_are_looked_at(place: Path) -> None:
    for options, message in (
        (("--recipe", "nope"), "Recipe 'nope' is unknown"),
        (("--exclude", "nope*"), "--exclude 'nope*' matches no candidate"),
        (("--calib", "nowhere"), "nowhere: no such file or folder"),
    ):
        result = prune(place, "--data", place / "nowhere", *options)
        assert result.exit_code == 1
        assert message in result.output
    result = prune(place, "--data", place / "nowhere", target="1.5")
    assert "no such folder of labelled images" not in result.output
    assert "no such folder of labelled images" in prune(place, "--data", place / "nowhere").output


def test_layer_by_layer_does_not_learn_rates(place: Path) -> None:
    result = prune(place, "--reconstruct", "wanda")
    assert result.exit_code == 1
    assert "wanda does not learn how layers share zeros: say how with --allocate" in result.output
    result = prune(place, "--reconstruct", "none", "--allocate", "erk", "--time-budget", "9s")
    assert "--time-budget: for learning by gradients alone" in result.output


def test_a_time_that_is_over_before_learning(place: Path) -> None:
    result = prune(place, "--time-budget", "0.01s")
    assert result.exit_code == 1
    assert "The time budget of 0.01 s leaves nothing to learn in" in result.output
    assert not (place / "out.onnx").exists()


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_is_shown_so_that_it_can_be_used(name: str, tmp_path: Path) -> None:
    result = run("recipe", "show", name)
    assert result.exit_code == 0
    (tmp_path / f"{name}.toml").write_text(result.output)
    assert Recipe.load(tmp_path / f"{name}.toml") == Recipe.load(name)


def test_few_samples_are_warned_of(place: Path) -> None:
    assert "Warning: 16 samples are few" in prune(place).output


def test_validate(place: Path) -> None:
    assert prune(place).exit_code == 0
    result = run("validate", place / "in.onnx", place / "out.onnx", "--calib", place / "images")
    assert result.exit_code == 0, result.output
    assert "192 of 320 weights are zero (60.0000%)" in result.output
    assert "Values differ in 5 tensors; nothing else differs" in result.output
    assert "same top-1" in result.output


def test_validate_tells_of_another_graph(place: Path) -> None:
    networks.save(networks.cnn(opset=15), place / "other.onnx")
    result = run("validate", place / "in.onnx", place / "other.onnx", "--calib", place / "images")
    assert result.exit_code == 0, result.output
    assert "Values differ in 0 tensors; the graphs differ beyond tensor values" in result.output
    networks.save(networks.perceptron(), place / "other.onnx")
    result = run("validate", place / "in.onnx", place / "other.onnx", "--calib", place / "images")
    assert result.exit_code == 1
    assert "has outputs ['y']" in result.output


def test_hardware(place: Path) -> None:
    """Of this network only the first layer gains on the chip, up to 45 zeros."""
    result = run("inspect", place / "in.onnx", "--hardware", "cv22", "--json", place / "i.json")
    assert result.exit_code == 0, result.output
    assert "Useful: zeros beyond this share" in result.output
    densities = json.loads((place / "i.json").read_text())["densities"]
    assert densities == {"conv.w": pytest.approx(0.7901, abs=1e-4), "depthwise.w": 1, "fc.w": 1}
    for target, least, most in ((0.1, 32, 32), (0.2, 45, 64)):
        result = run(
            "prune", place / "in.onnx", place / "out.onnx", "--target", target, "--hardware",
            "cv22", "--calib", place / "images", "--recipe", place / "quick.toml",
            "--json", place / "p.json",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        stored = json.loads((place / "p.json").read_text())
        assert (stored["hardware"], stored["zeros"]) == ("cv22", round(320 * target))
        zeros = {weight["name"]: weight["zeros"] for weight in stored["validation"]["weights"]}
        assert least <= zeros["conv.w"] <= most
    assert run("inspect", place / "in.onnx", "--hardware", "tpu").exit_code == 2
    result = run("inspect", place / "in.onnx", "--size", "32")
    assert result.exit_code == 1
    assert "say which with --hardware" in result.output


def test_eval(place: Path) -> None:
    result = run(
        "eval", place / "in.onnx", "--data", place / "labelled", "--json", place / "e.json"
    )
    assert result.exit_code == 0, result.output
    assert "in.onnx: top-1 " in result.output
    assert "on 12 images of 4 classes in " in result.output
    first = json.loads((place / "e.json").read_text())
    assert first["scores"]["top-5"] == 1.0
    # With the classes in another order, other images are right.
    names, shares = ["ant", "bee", "cat", "dog"], []
    for turn in range(4):
        (place / "labels.txt").write_text("\n".join(names[turn:] + names[:turn]))
        arguments = ("--data", place / "labelled", "--labels", place / "labels.txt")
        assert run("eval", place / "in.onnx", *arguments, "--json", place / "e.json").exit_code == 0
        shares.append(json.loads((place / "e.json").read_text())["scores"]["top-1"])
    assert shares[0] == first["scores"]["top-1"]
    assert sum(shares) == pytest.approx(1.0)


def help_examples() -> list[str]:
    """Every command line that a help text shows."""
    text = "".join(run(*names, "--help").output for names in ((), *((n,) for n in main.commands)))
    return sorted(
        {line.strip() for line in text.splitlines() if line.startswith("    fcpts-onnx ")}
    )


def test_help_examples_work(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    for name in ("model.onnx", "sparse.onnx"):
        (place / name).write_bytes((place / "in.onnx").read_bytes())
    np.savez(place / "inputs.npz", image=networks.values(8, 3, 8, 8))
    networks.save(networks.detector(), place / "ssd.onnx")
    save_images(place / "JPEGImages", 2)
    (place / "Annotations").mkdir()
    for image in (place / "JPEGImages").iterdir():
        (place / "Annotations" / f"{image.stem}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (place / "ssd.toml").write_text('kind = "fastestdet"\nclasses = ["cat", "dog"]\n')
    examples = help_examples()
    assert len(examples) == 23
    for line in sorted(examples, key=lambda line: "prune" not in line):
        arguments = shlex.split(line)[1:]
        if arguments[0] == "demo" or "ort,mnn" in arguments:
            continue
        if not {"prune", "compare"}.isdisjoint(arguments):
            arguments += ["--recipe", "quick.toml"]
        result = run(*arguments)
        assert result.exit_code == 0, f"{line}: {result.output}"


@pytest.mark.parametrize(
    "arguments",
    [
        ["prune"],
        ["prune", "a.onnx", "b.onnx", "--calib", "x"],
        ["prune", "a.onnx", "b.onnx", "--calib", "x", "--target", "lots"],
        ["prune", "a.onnx", "b.onnx", "--calib", "x", "--target", ".5", "--mean", "a,b"],
        ["prune", "a.onnx", "b.onnx", "--calib", "x", "--target", ".5", "--size", "0x8"],
        ["prune", "a.onnx", "b.onnx", "--calib", "x", "--target", ".5", "--keep-dense", "middle"],
        ["prune", "a.onnx", "b.onnx", "--calib", "x", "--target", ".5", "--device", "tpu"],
        ["prune", "a.onnx", "b.onnx", "--calib", "x", "--target", ".5", "--augment", "spin"],
        ["prune", "a.onnx", "b.onnx", "--calib", "x", "--target", ".5", "--allocate", "best"],
        ["prune", "a.onnx", "b.onnx", "--calib", "x", "--target", ".5", "--time-budget", "soon"],
        ["prune", "a.onnx", "b.onnx", "--calib", "x", "--target", ".5", "--time-budget", "0"],
        ["inspect", "a.onnx", "--loud"],
        ["bench", "a.onnx", "b.onnx", "--runtime", "tvm"],
        ["squeeze"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


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


def model(change: Callable[[onnx.ModelProto], object]) -> Callable[[Path], object]:
    """Replace the model by a changed one."""

    def spoil(place: Path) -> None:
        proto = networks.cnn()
        change(proto)
        networks.save(proto, place / "in.onnx")

    return spoil


def weights(value: float) -> Callable[[Path], object]:
    """Put a value into the first weight."""

    def change(proto: onnx.ModelProto) -> None:
        array = networks.values(8, 3, 3, 3, seed=1)
        array[0] = value
        proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(array, "conv.w"))

    return model(change)


def last_node(op: str, **attributes: object) -> Callable[[Path], object]:
    """Put one more node before the output."""

    def change(proto: onnx.ModelProto) -> None:
        proto.graph.node[-1].output[0] = "before"
        node = helper.make_node(op, ["before"], ["scores"], f"the {op}", **attributes)
        proto.graph.node.append(node)

    return model(change)


def external(location: str, *, write: bool) -> Callable[[Path], object]:
    """Move the weights into a file that is not there, or not where it may be."""

    def spoil(place: Path) -> None:
        path = place / "in.onnx"
        onnx.save(networks.cnn(), str(path), save_as_external_data=True, size_threshold=64,
                  location="weights.bin")  # fmt: skip
        proto = onnx.load(str(path), load_external_data=False)
        for tensor in proto.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        path.write_bytes(proto.SerializeToString())
        if not write:
            (place / "weights.bin").unlink()

    return spoil


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
    Bad("glob", lambda _: None, "--include 'x*' matches no candidate", ("--include", "x*")),
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
]  # fmt: skip


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


def huge_images(place: Path) -> None:
    """A header that promises more pixels than Pillow takes."""
    for path in (place / "images").iterdir():
        content = bytearray(path.read_bytes())
        content[16:24] = (60_000).to_bytes(4, "big") * 2
        content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
        path.write_bytes(bytes(content))


BAD += [
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


def listing(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


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


def test_measured_on_labelled_images(place: Path) -> None:
    """Both models, as eval has them; labels that do not fit are said before any work."""
    given = ("--data", str(place / "labelled"))
    result = prune(
        place, *given, "--json", str(place / "a.json"), "--report", str(place / "a.html")
    )
    assert result.exit_code == 0, result.output
    dense, sparse = json.loads((place / "a.json").read_text())["accuracy"]
    for name, found in (("in.onnx", dense), ("out.onnx", sparse)):
        run("eval", place / name, *given, "--json", place / "eval.json")
        assert json.loads((place / "eval.json").read_text()) == found
    assert f"dense: top-1 {dense['scores']['top-1']:.2%}" in result.output
    assert "of 12 labelled images" in (place / "a.html").read_text()
    (place / "out.onnx").unlink()
    result = prune(place, "--data", str(place / "images"))
    assert result.exit_code == 1
    assert "step 1/6" not in result.output
    assert not (place / "out.onnx").exists()


def test_a_report_beside_the_file_and_from_json(place: Path) -> None:
    result = prune(place, "--json", str(place / "a.json"), "--report", str(place / "a.html"))
    assert result.exit_code == 0, result.output
    text = (place / "a.html").read_text()
    assert "prune" in json.loads((place / "a.json").read_text())["command"]
    assert run("report", place / "a.json", place / "b.html").exit_code == 0
    assert (place / "b.html").read_text() == text
    assert run("report", place / "a.json").exit_code == 0  # replaces the page beside it
    assert run("report", place / "a.json", place / "a.json").exit_code == 2
    assert run("report", place / "in.onnx").exit_code == 1
    assert "cannot be read as JSON" in run("report", place / "images").output
    assert f"Written: {place / 'b.html'}" in run(
        "report", place / "a.json", place / "b.html"
    ).output.replace("\n", "")
    assert "exists and is not HTML" in run("report", place / "a.json", place / "in.onnx").output


def test_a_stamp(place: Path) -> None:
    assert prune(place, "--stamp").exit_code == 0
    for _ in range(2):
        (entry,) = onnx.load(str(place / "out.onnx")).metadata_props
        said = json.loads(entry.value)
        assert (entry.key, said["zeros"], said["seed"]) == ("fcpts-onnx", 192, 0)
        shutil.copy(place / "out.onnx", place / "in.onnx")
        result = prune(place, "--stamp")  # once more takes the place of the first
        assert result.exit_code == 0, result.output
    assert prune(place).exit_code == 0  # and goes where it would no longer be true
    assert not onnx.load(str(place / "out.onnx")).metadata_props


def test_sizes(place: Path) -> None:
    lines = run("inspect", place / "in.onnx", "--sizes").output.splitlines()
    assert any(
        line.split() == ["dense", "1.28", "KB", "640", "bytes", "320", "bytes"] for line in lines
    )
    assert any(line.startswith("zip") for line in lines)


def test_diff(place: Path) -> None:
    prune(place)
    result = run("diff", place / "in.onnx", place / "out.onnx", "--json", place / "d.json")
    assert result.exit_code == 0, result.output
    assert "beyond those differs: nothing" in result.output
    found = json.loads((place / "d.json").read_text())
    changed = {tensor["name"]: tensor["zeros"][1] for tensor in found["tensors"]}
    assert changed["conv.w"] + changed["depthwise.w"] + changed["fc.w"] == 192
    same = run("diff", place / "in.onnx", place / "in.onnx")
    assert same.output == "Values differ in 0 tensors; beyond those differs: nothing\n"


def test_json_replaces_nothing_but_json(place: Path) -> None:
    before = listing(place)
    result = run("inspect", place / "in.onnx", "--json", place / "in.onnx")
    assert result.exit_code == 1
    assert "in.onnx: exists and is not JSON. Name another file." in result.output
    assert prune(place, "--json", str(place / "out.onnx")).exit_code == 2
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


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Root may read and write everything; step down for the while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def locked() -> Iterator[Path]:
    """A folder that others can enter, with a folder in it that nobody may read or write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        networks.save(networks.cnn(), folder / "in.onnx")
        save_images(folder / "images", 4)
        save_images(folder / "secret", 4)
        (folder / "secret").chmod(0)
        (folder / "closed").mkdir(mode=0o555)
        (folder / "open").mkdir()
        (folder / "open").chmod(0o777)
        yield folder
        (folder / "secret").chmod(stat.S_IRWXU)


@pytest.mark.usefixtures("unprivileged")
@pytest.mark.parametrize(
    ("output", "calib", "message"),
    [
        ("closed/out.onnx", "images", "cannot be written: Permission denied"),
        ("/proc/out.onnx", "images", "cannot be written"),
        ("open/out.onnx", "secret", "secret: cannot be read: Permission denied"),
    ],
)
def test_places_without_permission(locked: Path, output: str, calib: str, message: str) -> None:
    before = sorted(locked.rglob("*"))
    result = run(
        "prune", locked / "in.onnx", locked / output, "--target", ".5", "--calib", locked / calib
    )
    assert result.exit_code == 1, result.output
    assert message in result.output
    assert sorted(locked.rglob("*")) == before


RUNNER = "from fcpts_onnx.cli import main; main()"


def test_out_of_disk(place: Path) -> None:
    before = listing(place)
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900)); "
    finished = subprocess.run(
        [sys.executable, "-c", limited + RUNNER, "prune", "in.onnx", "out.onnx", "--target", ".5",
         "--calib", "images", "--recipe", "quick.toml"],
        cwd=place, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert finished.returncode == 1, finished.stderr
    assert "out.onnx: cannot be written: File too large. Nothing was written." in finished.stderr
    assert listing(place) == before


def test_ctrl_c(place: Path) -> None:
    (place / "quick.toml").write_text("epochs = 0\nmin_steps = 100000\nbatch_size = 4\n")
    before = listing(place)
    # A shell that starts the tests in the background makes its children ignore the signal.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", heard + RUNNER, "prune", "in.onnx", "out.onnx",
         "--target", ".5", "--calib", "images", "--recipe", "quick.toml"],
        cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Twin:"):
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    if "--resume" in errors:  # it was learning by then
        shutil.rmtree(place / "out.onnx.fcpts")
    else:
        assert errors.strip() == "Interrupted; nothing was written."
    assert listing(place) == before


def test_demo(tmp_path: Path) -> None:
    result = run("demo", "--json", tmp_path / "demo.json")
    assert result.exit_code == 0, result.output
    assert "58,896 of 65,440 weights are zero (90.0000%)" in result.output
    assert "dense: top-1 9" in result.output
    assert "sparse: top-1 9" in result.output
    stored = json.loads((tmp_path / "demo.json").read_text())
    assert stored["dense"]["scores"]["top-1"] > 0.97
    assert stored["sparse"]["scores"]["top-1"] > 0.93


def test_completion(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a shell asks for, and gets."""
    monkeypatch.setenv("COMP_WORDS", "fcpts-onnx pr")
    monkeypatch.setenv("COMP_CWORD", "1")
    monkeypatch.setenv("_FCPTS_ONNX_COMPLETE", "bash_complete")
    result = CliRunner().invoke(main, prog_name="fcpts-onnx")
    assert result.output == "plain,prune\n"
