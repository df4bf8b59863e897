"""Zeros where an engine makes time of them: by hand, within the target, and learned so."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from onnx import helper

import fcpts_onnx
from fcpts_onnx.cli import main
from fcpts_onnx.errors import TargetError
from fcpts_onnx.evaluate import probe
from fcpts_onnx.evaluate.probe import SHARES
from fcpts_onnx.hardware import gains_from, least_zeros
from fcpts_onnx.model import load
from fcpts_onnx.sparsity.budget import Budget
from fcpts_onnx.sparsity.pattern import PATTERNS
from fcpts_onnx.weights import Weight, find_weights
from tests import networks

needs_mnn = pytest.mark.skipif(
    importlib.util.find_spec("MNN") is None, reason="needs MNN (pip install MNN)"
)


def weight(name: str, count: int, zeros: int = 0) -> Weight:
    return Weight(name, (count // 10, 10), "float32", "Gemm", ("n",), 0, zeros)


@pytest.mark.parametrize(
    ("times", "share"),
    [
        ({0.0: 10, 0.5: 12, 0.7: 9, 0.9: 5}, 0.7),
        ({0.0: 10, 0.5: 9, 0.7: 8, 0.9: 5}, 0.5),
        ({0.0: 10, 0.5: 9, 0.7: 11, 0.9: 5}, 0.9),  # what comes after has to be faster too
        ({0.0: 10, 0.5: 12, 0.7: 11, 0.9: 9.7}, None),  # so little is chance
    ],
    ids=str,
)
def test_from_where_on(times: dict[float, float], share: float | None) -> None:
    assert gains_from(times) == share


def test_the_best_bargains_first() -> None:
    """Half of 3,000 weights: b saves most a zero, then a; c would go beyond the target."""
    weights = [weight(name, 1000, zeros) for name, zeros in (("a", 100), ("b", 0), ("c", 0))]
    times = {
        "a": {0.0: 10.0, 0.7: 8.0},
        "b": {0.0: 10.0, 0.7: 2.0},
        "c": {0.0: 10.0, 0.7: 9.0},
    }
    assert least_zeros(times, weights, 0.5) == {"b": 700, "a": 700}
    assert least_zeros(times, weights, 0.3) == {}  # 0.7 in one layer is far beyond 0.3 in all
    assert least_zeros({"a": {0.0: 10.0, 0.7: 11.0}}, weights, 0.5) == {}
    times["b"] = {0.0: 0.01, 0.7: 0.002}  # next to nothing of all time
    assert "b" not in least_zeros(times, weights, 0.5)


@pytest.mark.parametrize("pattern", ["unstructured", "1x4"])
def test_the_budget_keeps_to_it_all_along_the_ramp(pattern: str) -> None:
    weights = [weight(name, 1000, zeros) for name, zeros in (("a", 100), ("b", 0), ("c", 300))]
    asked = {"a": 800, "b": 700, "c": 200}
    budget = Budget.of(weights, 0.6, pattern=PATTERNS[pattern], asked=asked)
    there = 400 if pattern == "unstructured" else 0
    for zeros in range(there, budget.zeros + 1, 100):
        found = budget.counts({"a": 0.0, "b": 0.0, "c": 1e9}, zeros)
        share = (zeros - there) / (budget.zeros - there)
        assert sum(found.values()) == zeros
        assert found["b"] >= 700 * share - budget.unit
        if pattern == "unstructured":
            assert found["a"] >= int(100 + 700 * share)
            assert found["c"] >= 300
    end = budget.counts({"a": 0.0, "b": 0.0, "c": 1e9})
    assert end["a"] >= 800
    assert end["b"] >= 700


@needs_mnn
def test_a_probe(tmp_path: Path) -> None:
    """A time for each layer at each share; with nearly all zeros the wide one is faster."""
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["h"], "a"),
        helper.make_node("Relu", ["h"], ["r"], "r"),
        helper.make_node("Conv", ["r", "b"], ["y"], "b"),
    ]
    constants = {"a": networks.values(256, 128, 1, 1), "b": networks.values(8, 256, 1, 1)}
    networks.save(
        networks.make(nodes, constants, {"x": ["N", 128, 16, 16]}, {"y": ["N", 8, 16, 16]}),
        tmp_path / "m.onnx",
    )
    model = load(tmp_path / "m.onnx")
    times = probe(model, find_weights(model))
    assert set(times) == {"a", "b"}
    assert set(times["a"]) == set(SHARES)
    assert gains_from(times["a"]) is not None
    result = CliRunner().invoke(main, ["inspect", str(tmp_path / "m.onnx"), "--hardware", "mnn"])
    assert result.exit_code == 0, result.output
    assert "faster from" in result.output


def test_pruned_for_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if MNN ran one layer faster from 80 % on, and no other."""
    times = {0.0: 10.0, 0.5: 11.0, 0.8: 5.0, 0.95: 2.0}
    monkeypatch.setattr("fcpts_onnx.aim.check_installed", lambda _: None)
    monkeypatch.setattr("fcpts_onnx.aim.probe", lambda *_: {"conv.w": times})
    lines: list[str] = []
    result = fcpts_onnx.prune(
        place / "in.onnx", place / "out.onnx", target=0.65, calib=place / "images",
        hardware="mnn", recipe=str(place / "quick.toml"), say=lines.append,
    )  # fmt: skip
    saved = load(place / "out.onnx").array("conv.w")
    assert np.mean(saved == 0) >= 0.8
    assert result.zeros == round(0.65 * 320)
    assert any(line.startswith("MNN: 1 of 3 layers are faster") for line in lines)
    with pytest.raises(TargetError, match="--hardware has no say"):
        fcpts_onnx.prune(
            place / "in.onnx", place / "out.onnx", pattern="2:4", calib=place / "images",
            hardware="mnn",
        )  # fmt: skip
