"""Several processes as one: the same result as one alone, written and told once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests import networks
from tests.networks import save_images

# Few steps of plain descent: over many, rounding takes weights across their thresholds.
RECIPE = (
    "min_steps = 4\nepochs = 0\nbatch_size = 8\ninterval = 1\nprecision = 'float32'\n"
    "optimizer = 'sgd'\nlearning_rate = 0.05\nfeature_weight = 3.0\n"
)


def run(place: Path, processes: int, *arguments: str) -> subprocess.CompletedProcess:
    """Run Python in so many processes, on one thread each."""
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    return subprocess.run(
        [sys.executable, *(launcher if processes > 1 else []), *arguments],
        cwd=place, capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip


def prune(place: Path, output: str, processes: int, *options: str) -> subprocess.CompletedProcess:
    return run(
        place, processes, "-m", "fcpts_onnx", "prune", "in.onnx", output, "--target", "0.5",
        "--calib", "images", "--recipe", "quick.toml", *options,
    )  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Path:
    networks.save(networks.cnn(), tmp_path / "in.onnx")
    save_images(tmp_path / "images", 64)
    (tmp_path / "quick.toml").write_text(RECIPE)
    return tmp_path


def arrays(path: Path) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def test_two_processes_give_what_one_gives(place: Path) -> None:
    alone = prune(place, "one.onnx", 1)
    assert alone.returncode == 0, alone.stderr
    together = prune(place, "two.onnx", 2, "--json", "two.json")
    assert together.returncode == 0, together.stderr
    assert together.stdout.count("weights are zero") == 1
    assert (place / "two.json").exists()
    one, two = arrays(place / "one.onnx"), arrays(place / "two.onnx")
    for name, value in one.items():
        np.testing.assert_array_equal(value == 0, two[name] == 0)
        np.testing.assert_allclose(value, two[name], atol=1e-5)


def test_two_processes_keep_to_one_time(place: Path) -> None:
    found = prune(place, "two.onnx", 2, "--time-budget", "4s")
    assert found.returncode == 0, found.stderr
    saved = arrays(place / "two.onnx")
    assert sum(int((saved[name] == 0).sum()) for name in saved if name.endswith(".w")) == 160


TWO_RUNS = """
import fcpts_onnx
for target in (0.3, 0.6):
    fcpts_onnx.prune(
        "in.onnx", f"{target}.onnx", target=target, calib="images", recipe="quick.toml"
    )
"""


def test_a_run_keeps_nothing_of_the_one_before(place: Path) -> None:
    (place / "two.py").write_text(TWO_RUNS)
    found = run(place, 2, "two.py")
    assert found.returncode == 0, found.stderr
    for target, zeros in (("0.3", 96), ("0.6", 192)):
        saved = arrays(place / f"{target}.onnx")
        assert sum(int((saved[n] == 0).sum()) for n in saved if n.endswith(".w")) == zeros


def test_the_demo_wants_one_process(place: Path) -> None:
    found = run(place, 2, "-m", "fcpts_onnx", "demo")
    assert "The demo runs in one process" in found.stderr


def test_more_processes_than_samples_in_a_batch(place: Path) -> None:
    (place / "quick.toml").write_text(RECIPE.replace("batch_size = 8", "batch_size = 1"))
    found = prune(place, "two.onnx", 2)
    assert found.returncode != 0
    assert "2 processes cannot share batches of 1 samples" in found.stderr
    assert not (place / "two.onnx").exists()
