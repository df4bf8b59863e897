"""The matrix of versions: what is installed in each row, and what becomes of a failure."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tools import versions_matrix
from tools.versions_matrix import Row, interpreters, pins

DEPENDENCIES = ["click>=8.1", "onnx>=1.19", "onnxruntime>=1.21", "torch>=2.7"]


@pytest.mark.parametrize(
    ("end", "torch", "expected"),
    [
        ("lowest", None, ("onnx==1.19", "onnxruntime==1.21", "torch==2.7")),
        ("lowest", "2.13.0", ("onnx==1.19", "onnxruntime==1.21", "torch==2.13.0")),
        ("newest", None, ()),
        ("newest", "2.13.0", ("torch==2.13.0",)),
    ],
)
def test_pins(end: str, torch: str | None, expected: tuple[str, ...]) -> None:
    assert pins(DEPENDENCIES, end, torch) == expected


def test_interpreters_are_of_different_versions_and_run() -> None:
    found = interpreters("3.11")
    minors = [version.rsplit(".", 1)[0] for version in found]
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in minors
    assert len(set(minors)) == len(minors)
    assert interpreters("99.0") == {}


def test_a_row_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def tested(row: Row, tests: list[str]) -> tuple[list[str], list[str], bool]:
        assert tests == ["tests/test_model.py", "-k", "not slow"]
        is_well = row.end == "newest"
        said = ["1 passed"] if is_well else ["FAILED tests/test_model.py::test_it", "1 failed"]
        return ["1", "2", "3", "4"], said, is_well

    python = Path(sys.executable)
    monkeypatch.setattr(versions_matrix, "interpreters", lambda _: {"3.11.7": python})
    monkeypatch.setattr(versions_matrix, "tested", tested)
    options = ["--tests", "tests/test_model.py -k 'not slow'"]
    result = CliRunner().invoke(versions_matrix.main, options)
    assert result.exit_code == 1
    assert "| 3.11.7 | lowest | 1 | 2 | 3 | 4 | 1 failed | 0 |" in result.output
    assert "FAILED tests/test_model.py::test_it" in result.output
    result = CliRunner().invoke(versions_matrix.main, [*options, "--end", "newest"])
    assert result.exit_code == 0
    assert "lowest" not in result.output
