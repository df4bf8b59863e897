"""Two models timed on engines: times, sizes, what engines refuse and what they get wrong."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from click.testing import CliRunner
from onnx import helper

import fcpts_onnx
from fcpts_onnx import Latency
from fcpts_onnx.cli import main
from fcpts_onnx.errors import FcptsError, OutputError
from fcpts_onnx.evaluate import check_installed
from fcpts_onnx.evaluate.engines import ENGINES
from fcpts_onnx.evaluate.latency import _apart
from fcpts_onnx.evaluate.runner import Runner
from fcpts_onnx.results import Timing
from tests import networks

HAS_MNN = importlib.util.find_spec("MNN") is not None
needs_mnn = pytest.mark.skipif(not HAS_MNN, reason="needs MNN (pip install MNN)")


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A network of a wide layer, and the same with nine of ten weights zero."""
    weight = networks.values(256, 128, 1, 1)
    mask = np.random.default_rng(1).random(weight.shape) < 0.1
    for name, values in (("dense", weight), ("sparse", weight * mask)):
        proto = networks.make(
            [helper.make_node("Conv", ["x", "w"], ["y"], "conv")],
            {"w": values}, {"x": ["N", 128, 16, 16]}, {"y": ["N", 256, 16, 16]},
        )  # fmt: skip
        networks.save(proto, tmp_path / f"{name}.onnx")
    return tmp_path / "dense.onnx", tmp_path / "sparse.onnx"


def timing(found: Latency, engine: str, model: str) -> Timing:
    (only,) = (t for t in found.timings if (t.engine, t.model) == (engine, model))
    return only


def test_onnxruntime(pair: tuple[Path, Path]) -> None:
    turns: list[tuple[int, int]] = []
    found = fcpts_onnx.bench(*pair, runs=8, report=lambda *turn: turns.append(turn))
    assert (found.runs, found.threads, found.inputs) == (10, 1, {"x": [1, 128, 16, 16]})
    assert turns == [(1, 2), (2, 2)]
    for model, path in zip(("dense", "sparse"), pair, strict=True):
        one = timing(found, "ort", model)
        assert one.spread[0] <= one.milliseconds <= one.spread[1]
        assert (one.bytes, one.apart, one.error) == (path.stat().st_size, 0.0, None)
        assert one.loading > 0
    assert found.speed_ups["ort"] > 0


def test_8_bits_are_timed_in_kernels_of_8_bits(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As applications run them; what others are held against is computed as the graph says."""
    made, session = [], ort.InferenceSession

    def noted(source: object, options: ort.SessionOptions, **more: object) -> object:
        made.append(options.get_session_config_entry("session.disable_quant_qdq"))
        return session(source, options, **more)

    monkeypatch.setattr(ort, "InferenceSession", noted)
    engine = ENGINES["ort"](pair[0], {"x": networks.values(1, 128, 16, 16)}, 1, tmp_path)
    engine.load()
    engine.run()
    assert made == ["0"]
    assert engine.outputs()["y"].shape == (1, 256, 16, 16)
    assert made == ["0", "1"]


@needs_mnn
def test_mnn_skips_zeros(pair: tuple[Path, Path]) -> None:
    found = fcpts_onnx.bench(*pair, engines=("mnn", "mnn-sparse"), runs=5)
    assert {t.engine for t in found.timings} == {"mnn", "mnn-sparse"}
    for one in found.timings:
        assert one.error is None
        assert one.apart < 1e-4
        assert len(one.layers) >= 1
        assert all(milliseconds >= 0 for milliseconds in one.layers.values())
    # Its file leaves zeros out only where it was told to look for them.
    assert timing(found, "mnn", "sparse").bytes > 0.9 * timing(found, "mnn", "dense").bytes
    assert timing(found, "mnn-sparse", "sparse").bytes < 0.4 * timing(found, "mnn", "dense").bytes


@needs_mnn
def test_whole_numbers_and_what_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MNN gives places as int32; its own files are gone in the end."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"], "conv"),
        helper.make_node("ArgMax", ["h"], ["y"], "best", axis=1),
    ]
    proto = networks.make(
        nodes, {"w": networks.values(8, 4, 1, 1)}, {"x": [1, 4, 6, 6]}, {"y": [1, 1, 6, 6]}
    )
    proto.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    path = networks.save(proto, tmp_path / "m.onnx")
    found = fcpts_onnx.bench(path, path, engines=("mnn",), runs=1)
    assert [(t.apart, t.error) for t in found.timings] == [(0.0, None)] * 2
    assert list(scratch.iterdir()) == []


def test_a_number_for_an_input(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"], "conv"),
        helper.make_node("Mul", ["h", "gain"], ["y"], "scaled"),
    ]
    inputs = {"x": [1, 4, 6, 6], "gain": []}
    proto = networks.make(nodes, {"w": networks.values(8, 4, 1, 1)}, inputs, {"y": [1, 8, 6, 6]})
    path = networks.save(proto, tmp_path / "m.onnx")
    assert fcpts_onnx.bench(path, path, runs=1).inputs == {"x": [1, 4, 6, 6], "gain": []}


def test_what_an_engine_refuses_is_said_in_its_row(tmp_path: Path) -> None:
    """A type that MNN takes no inputs of."""
    proto = networks.in_half(networks.perceptron())
    path = networks.save(proto, tmp_path / "half.onnx")
    found = fcpts_onnx.bench(path, path, engines=("ort", "mnn"), runs=1)
    assert timing(found, "ort", "dense").error is None
    assert timing(found, "mnn", "dense").error == "MNN takes no inputs of type float16."
    assert "mnn" not in found.speed_ups


def test_open_lengths(tmp_path: Path) -> None:
    proto = networks.make(
        [helper.make_node("Conv", ["x", "w"], ["y"], "conv")],
        {"w": networks.values(4, 3, 1, 1)},
        {"x": ["N", 3, None, None]},
        {"y": ["N", 4, None, None]},
    )  # fmt: skip
    path = networks.save(proto, tmp_path / "m.onnx")
    with pytest.raises(FcptsError, match=r"'x' has shape \[1, 3, None, None\].*--size"):
        fcpts_onnx.bench(path, path, runs=1)
    assert fcpts_onnx.bench(path, path, runs=1, size=(4, 6)).inputs == {"x": [1, 3, 4, 6]}


def test_models_that_cannot_be_compared(pair: tuple[Path, Path], tmp_path: Path) -> None:
    other = networks.save(networks.cnn(), tmp_path / "other.onnx")
    with pytest.raises(OutputError, match="has other inputs than"):
        fcpts_onnx.bench(pair[0], other)


def test_an_engine_that_is_not_there(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FcptsError, match="'tvm' is unknown; expected ort, mnn, mnn-sparse"):
        fcpts_onnx.bench(*pair, engines=("tvm",))
    monkeypatch.setattr(sys.modules[check_installed.__module__], "find_spec", lambda _: None)
    with pytest.raises(FcptsError, match=r"pip install 'fcpts-onnx\[mnn\]'"):
        fcpts_onnx.bench(*pair, engines=("mnn",))


@pytest.mark.parametrize(
    ("found", "apart"),
    [
        ([2.0, np.nan, 1.0], 0.0),
        ([2.0, np.nan, 0.0], 0.5),
        ([np.nan, np.nan, 1.0], None),
        ([2.0, 3.0, 1.0], None),
        ([2.0, np.nan], None),
    ],
    ids=str,
)
def test_outputs_that_are_no_numbers(found: list[float], apart: float | None) -> None:
    expected = {"y": np.array([2.0, np.nan, 1.0], np.float32)}
    assert _apart({"y": np.array(found, np.float32)}, expected) == apart


def test_a_script_that_is_not_made_to_be_imported(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """It runs once: engines' processes have nothing to do with it."""
    script = tmp_path / "script.py"
    script.write_text(
        "import fcpts_onnx\nprint('once')\n"
        f"found = fcpts_onnx.bench({str(pair[0])!r}, {str(pair[1])!r}, runs=1)\n"
        "print([timing.error for timing in found.timings])\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(fcpts_onnx.__file__).parent.parent)},
    )  # fmt: skip
    assert done.stdout.splitlines() == ["once", "[None, None]"]


def test_a_process_that_dies(pair: tuple[Path, Path]) -> None:
    with ExitStack() as stack:
        runner = Runner(stack, "ort", "dense", pair[0], {}, 1)
        assert "onnxruntime cannot run it" in runner.error
        inputs = {"x": networks.values(1, 128, 16, 16)}
        runner = Runner(stack, "ort", "dense", pair[0], inputs, 1)
        runner._process.kill()
        runner.take_turn()
        assert runner.error == "ort ended its process without a word"


FINE = Timing("ort", "dense", 2.0, (1.9, 2.1), 4000, 7.0, 0.0)
FOUND = Latency(
    "a.onnx", "b.onnx", {"x": [1, 3, 8, 8]}, 2, 100,
    (
        FINE,
        replace(FINE, model="sparse", milliseconds=1.0),
        replace(FINE, engine="mnn", layers={"conv": 1.5, "tiny": 0.001}),
        replace(FINE, engine="mnn", model="sparse", apart=0.25, layers={"conv": 0.5, "tiny": 1.0}),
        replace(FINE, engine="mnn-sparse"),
        Timing("mnn-sparse", "sparse", error="no Loop"),
    ),
)  # fmt: skip


def test_what_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcpts_onnx.bench", lambda *_, **__: FOUND)
    shown = CliRunner().invoke(main, ["bench", "a.onnx", "b.onnx", "--layers"])
    assert shown.exit_code == 0
    lines = [" ".join(line.split()) for line in shown.output.splitlines()]
    assert lines[0].startswith("100 runs each, in turns; 2 threads; input x 1x3x8x8;")
    assert lines[2] == "ort 2 (1.9 to 2.1) 1 (1.9 to 2.1) 2.00 4 KB 4 KB 7 / 7"
    assert lines[4] == "mnn-sparse 2 (1.9 to 2.1) 4 KB 7 / -"
    assert "mnn, sparse: differs from onnxruntime by 0.25" in lines
    assert "mnn-sparse, sparse: no Loop" in lines
    assert "conv 1.500 0.500 3.00" in lines
    assert not any(line.startswith("tiny") for line in lines)


def test_what_is_wrong_is_red_unless_colours_are_not_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fcpts_onnx.bench", lambda *_, **__: FOUND)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    command = ["bench", "a.onnx", "b.onnx"]
    assert "\x1b[31mmnn, sparse: differs" in CliRunner().invoke(main, command).output
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[31m" not in CliRunner().invoke(main, command).output


def test_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcpts_onnx.bench", lambda *_, **__: FOUND)
    failed = CliRunner().invoke(main, ["bench", "a.onnx", "b.onnx", "--strict"])
    assert failed.exit_code == 1
    assert "--strict: mnn (sparse), mnn-sparse (sparse) are not known to give" in failed.output
    right = replace(FOUND, timings=FOUND.timings[:2])
    monkeypatch.setattr("fcpts_onnx.bench", lambda *_, **__: right)
    assert CliRunner().invoke(main, ["bench", "a.onnx", "b.onnx", "--strict"]).exit_code == 0
