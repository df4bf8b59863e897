"""What a target is a share of: of zeros, of the layers' time, or of the weights' size."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import fcpts_onnx
from fcpts_onnx import PruneResult
from fcpts_onnx.cli import main
from fcpts_onnx.errors import FcptsError
from fcpts_onnx.hardware import estimate, zeros_for_time
from fcpts_onnx.model import load
from fcpts_onnx.report.run import read_run
from fcpts_onnx.weights import Weight, find_weights


def prune(place: Path, *options: str) -> Result:
    arguments = [
        "prune", place / "in.onnx", place / "out.onnx", "--calib", place / "images",
        "--recipe", place / "quick.toml", "--json", place / "run.json", *options,
    ]  # fmt: skip
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def pruned(place: Path, *options: str) -> PruneResult:
    result = prune(place, *options)
    assert result.exit_code == 0, result.output
    return read_run(place / "run.json")


def weight(name: str) -> Weight:
    return Weight(name, (100, 10), "float32", "Gemm", ("n",), 0, 0)


@pytest.mark.parametrize("target", [0.3, 0.6])
def test_size(place: Path, target: float) -> None:
    """What inspect says of 8 bits with a bitmask is that much smaller, and no more than needed."""
    found = pruned(place, "--objective", "size", "--target", str(target))
    assert found.zeros == math.ceil(320 * target + 320 / 8)
    (bitmask,) = (size for size in found.weight_values.sizes if size.name == "bitmask")
    assert (1 - target) * 320 - 1 < bitmask.int8 <= (1 - target) * 320
    assert (found.objective, found.goal) == ("size", target)


@pytest.mark.parametrize("target", [0.05, 0.1])
def test_latency_on_a_chip(place: Path, target: float) -> None:
    """The estimate of the written file comes to what is asked for."""
    options = ("--objective", "latency", "--hardware", "cv22", "--target", str(target))
    found = pruned(place, *options)
    assert found.estimate.time == pytest.approx(1 - target, abs=0.015)
    model = load(place / "out.onnx")
    zeros = {w.name: int((model.array(w.name) == 0).sum()) for w in find_weights(model)}
    assert sum(zeros.values()) == found.zeros
    assert estimate(model, find_weights(model), zeros, "cv22").time == found.estimate.time


def test_latency_as_measured(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if MNN ran one layer faster from 80 % on, and no other."""
    times = {"conv.w": {0.0: 10.0, 0.5: 11.0, 0.8: 5.0}, "fc.w": {0.0: 2.0, 0.5: 2.0, 0.8: 2.0}}
    monkeypatch.setattr("fcpts_onnx.aim.check_installed", lambda _: None)
    monkeypatch.setattr("fcpts_onnx.aim.probe", lambda *_: times)
    options = ("--objective", "latency", "--hardware", "mnn", "--target")
    pruned(place, *options, "0.4")
    saved = load(place / "out.onnx")
    assert int((saved.array("conv.w") == 0).sum()) == round(0.8 * 216)
    assert np.count_nonzero(saved.array("fc.w")) == saved.array("fc.w").size
    result = prune(place, *options, "0.6")
    assert result.exit_code == 1
    assert "zeros save at most 0.4167 of its layers' time on mnn" in result.output


def test_shares_rise_together() -> None:
    """Layers alike get zeros alike; one that gains nothing gets none."""
    falling = {0.0: 10.0, 0.25: 7.5, 0.5: 5.0, 0.75: 2.5}
    times = {"a": falling, "b": falling, "c": dict.fromkeys(falling, 4.0)}
    weights, most = [weight(name) for name in "abc"], dict.fromkeys("abc", 900)
    assert zeros_for_time(times, weights, most, 10 / 24) == ({"a": 500, "b": 500}, 10 / 24)
    # What is left of a step goes to one of them.
    zeros, saved = zeros_for_time(times, weights, most, 12 / 24)
    assert (sorted(zeros.values()), saved) == ([500, 750], 12.5 / 24)
    # No more than a layer may have.
    zeros, saved = zeros_for_time(times, weights, {**most, "a": 300}, 0.9)
    assert (zeros, saved) == ({"a": 250, "b": 750}, 10 / 24)


def test_zeros_that_are_there_count() -> None:
    """A layer that saves what is asked for already is not joined by another."""
    falling = {0.0: 10.0, 0.25: 7.5, 0.5: 5.0, 0.75: 2.5}
    there = Weight("a", (100, 10), "float32", "Gemm", ("n",), 0, 760)
    times = {"a": falling, "b": falling}
    zeros, saved = zeros_for_time(times, [there, weight("b")], dict.fromkeys("ab", 900), 0.3)
    assert (zeros, saved) == ({"a": 750}, 0.375)


def test_what_is_reached_is_not_refused_by_rounding() -> None:
    times = {name: {0.0: 0.1, 0.1: 0.09, 0.2: 0.08} for name in "abc"}
    weights, most = [weight(name) for name in "abc"], dict.fromkeys("abc", 900)
    for target in (0.1, 0.2 - 1e-9, 0.15, 0.05):
        assert zeros_for_time(times, weights, most, target)[1] >= target


def test_names_that_are_not_known(place: Path) -> None:
    given = {"target": 0.5, "calib": place / "images", "recipe": str(place / "quick.toml")}
    for option in ({"objective": "speed"}, {"storage": "Sparse"}):
        with pytest.raises(FcptsError, match="; expected"):
            fcpts_onnx.prune(place / "in.onnx", place / "out.onnx", **given, **option)
    assert not (place / "out.onnx").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("latency", "--target", "0.5"), "--objective latency needs --hardware"),
        (("size", "--target", "1.5"), "expected a share between 0 and 1"),
        (("size", "--target", "0.86"), "the weights can be at most 0."),
        (("size", "--target", "0.5", "--pattern", "1x4"), "leave --pattern out"),
        (("size", "--pattern", "2:4"), "leave --pattern out"),
    ],
)
def test_what_does_not_go_together(place: Path, options: tuple[str, ...], message: str) -> None:
    result = prune(place, "--objective", *options)
    assert result.exit_code == 1
    assert message in result.output
    assert not (place / "out.onnx").exists()


def test_time_that_is_saved_already(place: Path) -> None:
    options = ("--objective", "latency", "--hardware", "cv22", "--target")
    assert prune(place, *options, "0.1").exit_code == 0
    (place / "out.onnx").rename(place / "in.onnx")
    result = prune(place, *options, "0.05")
    assert result.exit_code == 1
    assert "of its layers' time on cv22 already, and 0.05 is asked for. Ask for more." in (
        " ".join(result.output.split())
    )


def test_a_network_of_open_size(place: Path) -> None:
    """How long a layer takes depends on how large images are."""
    proto = load(place / "in.onnx").proto
    for dim in proto.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_param = "size"
    (place / "in.onnx").write_bytes(proto.SerializeToString())
    options = ("--objective", "latency", "--hardware", "cv22", "--target", "0.1")
    result = prune(place, *options)
    assert result.exit_code == 1
    assert "does not say how large the outputs of" in result.output
    result = prune(place, *options, "--size", "8")
    assert result.exit_code == 0, result.output
    assert "asked for 0.1 of the layers' time saved, which takes " in result.output
    assert "cv22, an estimate: at best 0.9" in result.output
