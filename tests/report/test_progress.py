"""Bars on a terminal, nothing or lines elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fcpts_onnx.report.progress import bar_reporter, count_reporter, progress_reporter
from fcpts_onnx.results import Progress


@pytest.mark.parametrize("terminal", [True, False])
def test_images(terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=80)
    with count_reporter(console, "Images") as report:
        report(30, 120)
    text = console.file.getvalue()
    assert ("30/120" in text) == terminal
    assert bool(text) == terminal


@pytest.mark.parametrize("terminal", [True, False])
def test_learning(terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=80)
    with progress_reporter(console) as report:
        for step in range(1, 101):
            report(Progress(step, 100, 0.5, step / 200, 3.0 * step, {}))
    text = console.file.getvalue()
    if terminal:
        assert "to start" in text  # no loss is shown that nothing has
        assert "loss 0.000" not in text
        assert "loss 0.500  sparsity 50.0%" in text
    else:
        lines = text.splitlines()
        assert len(lines) == 10
        assert lines[4] == "step 50/100  loss 0.5000  sparsity 25.00%  150 s left"


@pytest.mark.parametrize("terminal", [True, False])
def test_several_runs(terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=80)
    with bar_reporter(console) as report:
        for steps in (100, 50):
            report(Progress(steps, steps, 0.5, 0.7, 9.0, {}))
        report(Progress(1, 80, 0.25, 0.7, 9.0, {}))
    text = console.file.getvalue()
    assert ("loss 0.250  sparsity 70.0%" in text) == terminal
    assert bool(text) == terminal


def test_a_loss_that_rounds_to_nothing_has_no_sign() -> None:
    console = Console(file=io.StringIO(), force_terminal=False, width=80)
    with progress_reporter(console) as report:
        report(Progress(10, 100, -1e-9, 0.0, 30.0, {}))
    assert "loss 0.0000" in console.file.getvalue()
