"""A rehearsal: the counts of the run, a pace, and nothing written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import fcpts_onnx
from fcpts_onnx import Recipe
from fcpts_onnx.cli import main
from fcpts_onnx.errors import FcptsError

RECIPE = Recipe(epochs=30, min_steps=7, batch_size=4)


def test_what_a_run_would_come_to(place: Path) -> None:
    """Sixteen images, four at a time, thirty times over."""
    before = sorted(place.rglob("*"))
    found = fcpts_onnx.rehearse(
        place / "in.onnx", target=0.6, calib=place / "images", recipe=RECIPE
    )
    assert (found.zeros, found.count, found.steps) == (192, 320, 120)
    assert found.pace > 0
    assert found.seconds >= 120 * found.pace
    assert found.peak_bytes > 50e6  # torch alone takes more
    assert sorted(place.rglob("*")) == before


def test_a_time_budget(place: Path) -> None:
    found = fcpts_onnx.rehearse(
        place / "in.onnx", target=0.6, calib=place / "images", recipe=RECIPE, time_budget=1000.0
    )
    assert found.seconds == pytest.approx(1000, abs=1)
    assert found.steps > 1000


def test_a_budget_that_is_over_before_learning(place: Path) -> None:
    with pytest.raises(FcptsError, match="leaves nothing to learn in"):
        fcpts_onnx.rehearse(
            place / "in.onnx", target=0.6, calib=place / "images", recipe=RECIPE, time_budget=1e-3
        )


def test_a_method_that_holds_no_target(place: Path) -> None:
    found = fcpts_onnx.rehearse(place / "in.onnx", target=0.6, calib=place / "images", recipe="str")
    assert found.zeros is None


def test_what_takes_no_steps(place: Path) -> None:
    with pytest.raises(FcptsError, match="--reconstruct wanda takes none"):
        fcpts_onnx.rehearse(
            place / "in.onnx", target=0.6, calib=place / "images", allocate="erk",
            reconstruct="wanda",
        )  # fmt: skip


def test_from_the_command_line(place: Path) -> None:
    arguments = [
        "prune", str(place / "in.onnx"), str(place / "out.onnx"), "--target", "0.6", "--calib",
        str(place / "images"), "--dry-run", "--json", str(place / "r.json"),
    ]  # fmt: skip
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    last = result.output.splitlines()[-1]
    assert last.startswith(
        "It would make 192 of 320 weights zero (60.0000% asked for) in 2,000 steps of "
    )
    assert last.endswith("Nothing was written.")
    assert json.loads((place / "r.json").read_text())["steps"] == 2000
    result = CliRunner().invoke(main, [*arguments, "--report", str(place / "r.html")])
    assert result.exit_code == 2
    assert "--dry-run writes and measures nothing: leave out --report" in result.output
    assert not (place / "out.onnx").exists()
