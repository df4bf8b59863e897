"""Commands that look at files: inspect, validate, diff, report; eval, recipe and demo."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from fcpts_onnx.recipe import Recipe, recipe_names
from tests import networks
from tests.cli.door import listing, prune, run
from tests.cli.faults import last_node


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


def test_inspect_writes_8_bit_weights_as_json(place: Path) -> None:
    """Without the arrays of their scales."""
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scale", "point"], ["w"], axis=1),
        helper.make_node("MatMul", ["x", "w"], ["y"], "product"),
    ]
    constants = {
        "q": np.arange(96, dtype=np.uint8).reshape(6, 16), "scale": np.full(16, 0.1, np.float32),
        "point": np.full(16, 3, np.uint8),
    }  # fmt: skip
    networks.save(
        networks.make(nodes, constants, {"x": ["N", 6]}, {"y": ["N", 16]}), place / "8.onnx"
    )
    result = run("inspect", place / "8.onnx", "--json", place / "i.json")
    assert result.exit_code == 0, result.output
    (weight,) = json.loads((place / "i.json").read_text())["weights"]
    assert (weight["name"], weight["dtype"], weight["zeros"]) == ("q", "uint8", 1)
    assert "grid" not in weight


def test_inspect_tells_what_is_in_the_way(place: Path) -> None:
    last_node("RandomNormalLike")(place)
    result = run("inspect", place / "in.onnx")
    assert result.exit_code == 0, result.output
    assert "It cannot be pruned: " in result.output
    assert "RandomNormalLike (opset 17): the RandomNormalLike" in result.output


def test_sizes(place: Path) -> None:
    lines = run("inspect", place / "in.onnx", "--sizes").output.splitlines()
    assert any(
        line.split() == ["dense", "1.28", "KB", "640", "bytes", "320", "bytes"] for line in lines
    )
    assert any(line.startswith("zip") for line in lines)


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


def test_json_replaces_nothing_but_json(place: Path) -> None:
    before = listing(place)
    result = run("inspect", place / "in.onnx", "--json", place / "in.onnx")
    assert result.exit_code == 1
    assert "in.onnx: exists and is not JSON. Name another file." in result.output
    assert prune(place, "--json", str(place / "out.onnx")).exit_code == 2
    assert listing(place) == before


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


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_is_shown_so_that_it_can_be_used(name: str, tmp_path: Path) -> None:
    result = run("recipe", "show", name)
    assert result.exit_code == 0
    (tmp_path / f"{name}.toml").write_text(result.output)
    assert Recipe.load(tmp_path / f"{name}.toml") == Recipe.load(name)


def test_demo(tmp_path: Path) -> None:
    result = run("demo", "--json", tmp_path / "demo.json")
    assert result.exit_code == 0, result.output
    assert "58,896 of 65,440 weights are zero (90.0000%)" in result.output
    assert "dense: top-1 9" in result.output
    assert "sparse: top-1 9" in result.output
    assert result.output.endswith("Your own model: fcpts-onnx prune --help\n")
    stored = json.loads((tmp_path / "demo.json").read_text())
    assert stored["dense"]["scores"]["top-1"] > 0.97
    assert stored["sparse"]["scores"]["top-1"] > 0.93
