"""Run after run in one process: nothing is left, and what is left or grows is told."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tools import soak


def run() -> Result:
    return CliRunner().invoke(soak.main, ["--minutes", "0", "--every", "5"])


def test_a_few_runs_leave_nothing() -> None:
    before = tempfile.gettempdir()
    result = run()
    assert result.exit_code == 0, result.output
    assert "| 11 |" in result.output
    assert "0 files left." in result.output
    assert tempfile.gettempdir() == before


def test_growth_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter(range(0, 1000, 60))
    monkeypatch.setattr(soak, "prune", lambda _: None)
    monkeypatch.setattr(soak, "resident", lambda: float(next(sizes)))
    result = run()
    assert result.exit_code == 1
    assert "Grown by 60.0 MB since call 10; 0 files left." in result.output


def test_files_that_are_left_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def litter(output: Path) -> None:
        output.touch()
        os.close(tempfile.mkstemp(prefix="forgotten")[0])
        (output.parent / ".half").touch()

    monkeypatch.setattr(soak, "prune", litter)
    monkeypatch.setattr(soak, "resident", lambda: 1.0)
    result = run()
    assert result.exit_code == 1
    assert "Left: " in result.output
    assert "/.half" in result.output
    assert "/forgotten" in result.output
