"""prune: what it is asked for, writes and says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from fcpts_onnx.model import load
from tests import networks
from tests.cli.door import prune, run


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


def test_another_dense_model_is_not_replaced_by_mistake(place: Path) -> None:
    networks.save(networks.perceptron(), place / "out.onnx")
    other = (place / "out.onnx").read_bytes()
    result = prune(place)
    assert result.exit_code == 1
    assert "out.onnx: is a dense model, with 0 zeros of 176 weights" in result.output
    assert (place / "out.onnx").read_bytes() == other
    assert prune(place, "--overwrite").exit_code == 0


def test_a_model_with_one_sparse_layer_is_replaced(place: Path) -> None:
    """Of all its weights hardly any is zero, of those that are pruned most are."""
    proto = networks.make(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"], "small"),
            helper.make_node("MatMul", ["a", "v"], ["y"], "large"),
        ],
        {"w": networks.values(4, 64), "v": networks.values(64, 256)},
        {"x": ["N", 4]}, {"y": ["N", 256]},
    )  # fmt: skip
    networks.save(proto, place / "in.onnx")
    np.save(place / "x.npy", networks.values(64, 4))
    for target in ("0.6", "0.5"):
        result = run(
            "prune", place / "in.onnx", place / "out.onnx", "--target", target, "--include",
            "small", "--calib", place / "x.npy", "--recipe", place / "quick.toml",
        )  # fmt: skip
        assert result.exit_code == 0, result.output


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
    result = prune(place, "--calib", place / "images.npy", "--augment", "flip")
    assert result.exit_code == 1
    assert "--augment flip is for images" in result.output
    (place / "views.toml").write_text(networks.QUICK + 'augment = ["flip"]\n')
    arguments = ("--calib", place / "images.npy", "--recipe", place / "views.toml")
    assert prune(place, *arguments, "--json", place / "r.json").exit_code == 0
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
    assert "Rates: those of" not in result.output
    result = prune(place, "--allocate", place / "r.json", target="0.5")
    assert "r.json come to 60.00% zeros, the target is 50.00%: all give or take" in result.output
    (place / "rates.json").write_text('{"conv.w": 0.5}')
    result = prune(place, "--allocate", place / "rates.json")
    assert result.exit_code == 1
    assert "has no rate for depthwise.w, fc.w" in result.output
    result = prune(place, "--allocate", place / "rates.json", "--json", place / "rates.json")
    assert "--json names --allocate itself." in result.output
    assert (place / "rates.json").read_text() == '{"conv.w": 0.5}'


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
    # What only learning needs is not computed.
    assert found["settings"]["augment"] == []
    assert not any(found["settings"][name] for name in ("feature_weight", "centred", "compensated"))
    assert "Feature" not in result.output


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


def test_few_samples_are_warned_of(place: Path) -> None:
    assert "Warning: 16 samples are few" in prune(place).output


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


def test_wrong_usage_is_said_before_labelled_images_are_looked_at(place: Path) -> None:
    for options, message in (
        (("--recipe", "nope"), "Recipe 'nope' is unknown"),
        (("--exclude", "nope*"), "--exclude 'nope*' matches no weight"),
        (("--calib", "nowhere"), "nowhere: no such file or folder"),
    ):
        result = prune(place, "--data", place / "nowhere", *options)
        assert result.exit_code == 1
        assert message in result.output
    result = prune(place, "--data", place / "nowhere", target="1.5")
    assert "no such folder of labelled images" not in result.output
    assert "no such folder of labelled images" in prune(place, "--data", place / "nowhere").output


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


def test_hardware(place: Path) -> None:
    """Of this network only the first layer gains on the chip, up to 45 zeros."""
    result = run("inspect", place / "in.onnx", "--hardware", "cv22", "--json", place / "i.json")
    assert result.exit_code == 0, result.output
    assert "Useful: zeros beyond this share of a layer" in result.output
    assert "in all 14.2%" in " ".join(result.output.split())
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
