"""What is logged, and that nothing else reaches the user's terminal."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

import fcpts_onnx
from fcpts_onnx.cli import main
from tests import networks
from tests.networks import values


def prune(place: Path, *before: str) -> str:
    """What a run has on stderr."""
    result = CliRunner().invoke(
        main,
        [
            *before, "prune", str(place / "in.onnx"), str(place / "out.onnx"), "--target", "0.6",
            "--calib", str(place / "images"), "--recipe", str(place / "quick.toml"),
        ],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return result.stderr


def test_by_default_there_is_nothing(place: Path) -> None:
    """In a program of its own, so that what is imported and what C++ prints is heard too."""
    line = [
        sys.executable, "-m", "fcpts_onnx", "prune", "in.onnx", "out.onnx", "--target", "0.6",
        "--calib", "images", "--recipe", "quick.toml", "--then-quantize", "out8.onnx",
        "--report", "page.html",
    ]  # fmt: skip
    ended = subprocess.run(line, cwd=place, capture_output=True, text=True, check=True)
    assert ended.stderr == ""


def test_v_says_what_is_done_and_how_long_it_took(place: Path) -> None:
    said = prune(place, "-v")
    assert f"INFO fcpts_onnx.model: read {place / 'in.onnx'}: 6 nodes, opsets " in said
    for step in ("load", "budget", "calibrate", "check", "learn", "write"):
        assert f"INFO fcpts_onnx.clock: {step}: " in said
    assert "DEBUG" not in said


def test_vv_says_what_a_report_needs(place: Path) -> None:
    said = prune(place, "-vv")
    assert "DEBUG fcpts_onnx.cli.group: main -vv prune " in said
    assert ", onnxruntime " in said
    assert ": 2 Conv, 1 Gemm, 1 GlobalAveragePool, 1 Relu, 1 Reshape; 5 tensors learned" in said
    assert "DEBUG fcpts_onnx.sparsity.course: step 6 of 6: loss " in said


def test_loggers_are_left_as_they_were(place: Path) -> None:
    names = ("fcpts_onnx", "py.warnings")
    before = [(logging.getLogger(n).level, [*logging.getLogger(n).handlers]) for n in names]
    prune(place, "-vv")
    assert before == [(logging.getLogger(n).level, logging.getLogger(n).handlers) for n in names]


def test_warnings_of_others_come_with_vv_only(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", warning(Image.open))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert prune(place) == ""
        assert "from below" not in prune(place, "-v")
        assert "UserWarning: from below" in prune(place, "-vv")


def warning(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with a warning."""

    def warned(*arguments: Any, **options: Any) -> Any:
        warnings.warn("from below", stacklevel=1)
        return function(*arguments, **options)

    return warned


def test_the_library_sets_up_no_logging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does what it calls: the quantizer's advice would give the root logger a handler."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    path = networks.save(networks.cnn(), tmp_path / "in.onnx")
    fcpts_onnx.quantize(path, tmp_path / "out.onnx", calib=[values(8, 3, 8, 8)])
    assert root.handlers == []
    assert root.filters == []
    assert logging.getLogger("fcpts_onnx").handlers == []
