"""Tables and lines on the terminal, and names that look like markup."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from fcpts_onnx.cli import main
from fcpts_onnx.report.terminal import (
    show_comparison,
    show_evaluation,
    show_inspection,
    show_quantization,
    show_validation,
)
from fcpts_onnx.results import (
    Comparison,
    Evaluation,
    Inspection,
    Output,
    Quantization,
    Sparsity,
    Trial,
    Validation,
)
from fcpts_onnx.weights import Weight
from tests import networks


def shown(show: object, result: object) -> list[str]:
    console = Console(width=100, file=io.StringIO())
    show(console, result)
    return console.file.getvalue().splitlines()


def test_inspection() -> None:
    weights = (
        Weight("[bold]w[/bold]", (8, 4), "float32", "Gemm", ("one", "two"), 0, 2),
        Weight("q", (16,), "int8", "Conv", ("c",), 0, 0, excluded="stored as int8"),
    )
    lines = shown(
        show_inspection, Inspection("m.onnx", 17, ("x: float32 [?, 4]",), weights, ("b",))
    )
    assert lines[0] == "m.onnx: opset 17; input x: float32 [?, 4]"
    assert " ".join(lines[2].split()) == "[bold]w[/bold] (shared by 2) Gemm 8x4 32 2 66.7% yes"
    assert " ".join(lines[3].split()) == "q Conv 16 16 0 33.3% no: stored as int8"
    assert lines[4].startswith("1 of 2 weights can be pruned: 32 values, 2 zero already (6.25%).")


def test_models_without_a_single_value_to_prune() -> None:
    empty = Weight("w", (0, 4), "float32", "Gemm", ("n",), 0, 0, excluded="empty")
    lines = shown(show_inspection, Inspection("m.onnx", 17, ("x",), (empty,), ()))
    assert "0.0%" in lines[2]
    nothing = Validation("m.onnx", 1, (Sparsity("w", (0, 4), 0, 0),), (), True, ())
    assert "0.00%" in shown(show_validation, nothing)[1]
    quantized = Quantization("m.onnx", "o.onnx", 1, 0, (), "dense", (), (2000, 1000))
    assert "0 of 0 weights are zero (0.00%)" in shown(show_quantization, quantized)[0]


def test_a_tree() -> None:
    """By dots and slashes; a part that leads to one thing only stands with it."""
    names = ("net.a.0.w", "net.a.1.w", "onnx::MatMul_7", "head.[bold]w", "w")
    weights = tuple(
        Weight(name, (8, 4), "float32", "Gemm", ("/net/b/MatMul",), 0, zeros)
        for zeros, name in enumerate(names)
    )
    console = Console(width=100, file=io.StringIO())
    show_inspection(console, Inspection("m.onnx", 17, ("x",), weights, ()), tree=True)
    lines = console.file.getvalue().splitlines()
    assert lines[1:9] == [
        "m.onnx",
        "├── net  96 (3.1% zero)",
        "│   ├── a  64 (1.6% zero)",
        "│   │   ├── 0.w  Gemm 8x4, 32 (0.0% zero)",
        "│   │   └── 1.w  Gemm 8x4, 32 (3.1% zero)",
        "│   └── b.MatMul.onnx::MatMul_7  Gemm 8x4, 32 (6.2% zero)",
        "├── head.[bold]w  Gemm 8x4, 32 (9.4% zero)",
        "└── w  Gemm 8x4, 32 (12.5% zero)",
    ]
    console = Console(width=100, file=io.StringIO())
    found = Inspection("m.onnx", 17, ("x",), weights[-1:], (), densities={"w": 0.25})
    show_inspection(console, found, tree=True)
    assert "w  Gemm 8x4, 32 (12.5% zero), useful 75.0%" in console.file.getvalue()


def test_a_tree_of_names_that_are_each_others_beginning() -> None:
    names = ("fc", "fc.1", "fc/1", "a.b", "a/b")
    weights = tuple(Weight(name, (8, 4), "float32", "Gemm", ("n",), 0, 0) for name in names)
    console = Console(width=100, file=io.StringIO())
    show_inspection(console, Inspection("m.onnx", 17, ("x",), weights, ()), tree=True)
    text = console.file.getvalue()
    assert text.count("Gemm 8x4, 32") == 5
    assert "fc  96" in text
    assert "a.b  64" in text


def test_validation_of_outputs_that_are_no_classes() -> None:
    found = Validation(
        model="out.onnx",
        samples=10,
        weights=(Sparsity("w", (2, 5), 10, 7),),
        changed=("w",),
        same_graph=True,
        outputs=(Output("map", 0.98765, None, None),),
    )
    lines = shown(show_validation, found)
    assert lines[1].split() == ["w", "2x5", "10", "7", "70.00%"]
    assert lines[2] == "out.onnx: 7 of 10 weights are zero (70.0000%)"
    assert lines[3] == "Values differ in 1 tensors; nothing else differs"
    assert lines[4] == "Output map against dense, 10 samples: cosine 0.9877"


def test_evaluation() -> None:
    found = Evaluation(
        "m.onnx", "data", 5000, 10, {"top-1": 0.9162, "top-5": 0.9971}, ("x.png: broken",)
    )
    assert shown(show_evaluation, found) == [
        "Skipped: x.png: broken",
        "m.onnx: top-1 91.62%, top-5 99.71% on 5,000 images of 10 classes in data",
    ]


NASTY = "\x1b]0;title\x07\x1b[2J\x9b31m[red]\r\n\u202e[/red]"
SHOWN = r"\x1b]0;title\x07\x1b[2J\x9b31m[red]\r\n\u202e[/red]"


def test_comparison() -> None:
    """Where its figures come from, and what a method is called beside others of its name."""
    trial = Trial("fcpts", 0.7, 0, "a.onnx", 70, 100, 0.012, 0.981, seconds=61.2, recipe="fast")
    missed = Trial("str", 0.7, 0, "b.onnx", 55, 100)
    assert [
        line.rstrip() for line in shown(show_comparison, Comparison("m", None, (trial, missed)))
    ] == [
        "zeros  method       seed  KL on calib  same top-1 on calib  seconds",
        "  70%  fcpts, fast     0        0.012               98.10%       61",
        "  70%  str             0                                          0",
        "str at 70%: cannot hold a target: 55.00% zeros",
    ]


@pytest.mark.parametrize(
    "command", [["inspect"], ["inspect", "--tree"], ["diff", "other.onnx"], ["prune", "out.onnx"]]
)
def test_names_that_steer_a_terminal_are_shown_as_escapes(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In tables, trees, lines, and errors."""
    proto = networks.perceptron()
    proto.graph.node[2].op_type, proto.graph.node[2].name = "TfIdfVectorizer", NASTY
    proto.graph.node[2].domain = "own"
    proto.opset_import.add(domain="own", version=1)
    proto.graph.initializer[0].name = proto.graph.node[0].input[1] = NASTY
    monkeypatch.chdir(tmp_path)
    networks.save(proto, tmp_path / "in.onnx")
    proto.graph.initializer[0].raw_data = bytes(4 * 96)
    networks.save(proto, tmp_path / "other.onnx")
    calib = ["--target", "0.5", "--calib", "."] if command[0] == "prune" else []
    result = CliRunner().invoke(main, [command[0], "in.onnx", *command[1:], *calib])
    assert SHOWN in result.output
    assert all(character.isprintable() or character == "\n" for character in result.output)
