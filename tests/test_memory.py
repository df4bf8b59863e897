"""Memory: predicted before learning, kept to by batches in pieces, and a clear end without it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from onnx import helper

import fcpts_onnx
from fcpts_onnx import Recipe
from fcpts_onnx.cli import main
from fcpts_onnx.errors import FcptsError
from fcpts_onnx.machine import available
from fcpts_onnx.model import load
from fcpts_onnx.sparsity.losses import reconstruction_loss
from fcpts_onnx.sparsity.task import Task
from fcpts_onnx.twin import Twin
from tests import networks

SIZE = 48
WIDTH = 64
MIB = 2**20


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """A network whose activations take far more than its weights: some 3.5 MiB a sample."""
    nodes, constants, last = [], {}, "image"
    for place in range(3):
        inputs = 3 if place == 0 else WIDTH
        constants[f"w{place}"] = networks.values(WIDTH, inputs, 3, 3, seed=place, scale=0.1)
        nodes.append(
            helper.make_node("Conv", [last, f"w{place}"], [f"c{place}"], pads=[1, 1, 1, 1])
        )
        nodes.append(helper.make_node("Relu", [f"c{place}"], [f"r{place}"]))
        last = f"r{place}"
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["y"]))
    proto = networks.make(
        nodes, constants, {"image": ["N", 3, SIZE, SIZE]}, {"y": ["N", WIDTH, 1, 1]}
    )
    np.save(tmp_path / "calib.npy", networks.values(24, 3, SIZE, SIZE))
    return networks.save(proto, tmp_path / "in.onnx")


def prune(model: Path, lines: list[str], **options: Any) -> dict[str, np.ndarray]:
    recipe = Recipe(epochs=0, min_steps=4, batch_size=24, precision="float32", interval=1)
    fcpts_onnx.prune(
        model, model.parent / "out.onnx", target=0.5, calib=model.parent / "calib.npy",
        recipe=recipe, say=lines.append, **options,
    )  # fmt: skip
    written = load(model.parent / "out.onnx")
    return {name: written.array(name) for name in ("w0", "w1", "w2")}


def predicted(lines: list[str]) -> str:
    return next(line for line in lines if line.startswith("Memory: about"))


def test_pieces_learn_the_same(wide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What the process takes already differs from run to run.
    monkeypatch.setattr("fcpts_onnx.memory.taken", lambda _: 0)
    with monkeypatch.context() as patch:
        patch.setattr("fcpts_onnx.memory._LARGEST_REUSED", 2**40)
        whole: list[str] = []
        expected = prune(wide, whole)
        assert "pieces" not in predicted(whole)
        few: list[str] = []
        found = [prune(wide, few, memory=40 * MIB)]
        assert "with each batch in " in predicted(few)
    monkeypatch.setattr("fcpts_onnx.memory._LARGEST_REUSED", 6 * MIB)
    large: list[str] = []
    found.append(prune(wide, large))  # 13.5 MiB in one tensor
    assert predicted(large).endswith("with each batch in 3 micro-batches")
    for name, values in expected.items():
        for other in found:
            same = (other[name] == 0) == (values == 0)
            assert same.mean() > 0.99
            np.testing.assert_allclose(other[name][same], values[same], atol=2e-3)


def test_pieces_learn_the_same_of_values_that_are_no_classes(tmp_path: Path) -> None:
    """Their error is relative to a variance, which is that of many samples, not of a piece."""
    weight, target = networks.values(6, 3), networks.values(400, 6)
    proto = networks.make(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "fc")], {"w": weight},
        {"x": ["N", 6]}, {"y": ["N", 3]},
    )  # fmt: skip
    networks.save(proto, tmp_path / "in.onnx")
    recipe = Recipe(epochs=0, min_steps=40, batch_size=16, precision="float32")
    losses = []
    for count in (1, 5, 16):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("fcpts_onnx.run.pieces_that_fit", lambda *_, n=count: n)
            found = fcpts_onnx.prune(
                tmp_path / "in.onnx", tmp_path / "out.onnx", target=0.5, calib=target,
                losses={"y": "mse"}, recipe=recipe,
            )  # fmt: skip
        losses.append([progress.loss for progress in found.history])
    assert losses[0][-1] > 0.01
    for other in losses[1:]:
        np.testing.assert_allclose(other, losses[0], rtol=1e-3)


def test_the_loss_is_taken_in_full_precision(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in learning: torch has no cross entropy of probabilities in bfloat16 on a GPU."""
    halves: list[bool] = []

    def seen(*given: Any) -> torch.Tensor:
        halves.append(torch.is_autocast_enabled("cpu"))
        return reconstruction_loss(*given)

    monkeypatch.setattr("fcpts_onnx.memory.reconstruction_loss", seen)
    recipe = Recipe(epochs=0, min_steps=1, batch_size=4, precision="bfloat16")
    fcpts_onnx.prune(
        place / "in.onnx", place / "out.onnx", target=0.5, calib=place / "images", recipe=recipe
    )
    assert halves
    assert not any(halves)


def test_what_is_settled_before_learning_takes_parts_too(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is seen of more samples than a piece has would take more than was said."""
    counts: list[int] = []
    forward = Twin.forward

    def counted(twin: Twin, inputs: dict[str, torch.Tensor], *rest: Any, **options: Any) -> Any:
        counts.append(len(next(iter(inputs.values()))))
        return forward(twin, inputs, *rest, **options)

    def chosen(*_: object) -> int:
        assert max(counts) == 16
        counts.clear()
        return 8

    def stop(_: object) -> None:  # what is written is passed in sixteens again
        raise InterruptedError

    monkeypatch.setattr(Twin, "forward", counted)
    monkeypatch.setattr("fcpts_onnx.run.pieces_that_fit", chosen)
    networks.save_images(place / "images", 64)
    recipe = Recipe(epochs=0, min_steps=1, batch_size=32, feature_weight=1.0, augment=("crop",))
    with pytest.raises(InterruptedError):
        fcpts_onnx.prune(
            place / "in.onnx", place / "out.onnx", target=0.5, calib=place / "images",
            recipe=recipe, report=stop,
        )  # fmt: skip
    assert max(counts) == 4


def test_what_a_container_may_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that are only kept for later do not count as taken."""
    gib = 2**30
    (tmp_path / "memory.max").write_text(f"{2 * gib}\n")
    (tmp_path / "memory.current").write_text(f"{2 * gib}\n")
    stat = f"anon {gib}\nfile {gib}\ninactive_file {gib // 2}\nactive_file {gib // 4}\n"
    (tmp_path / "memory.stat").write_text(stat)
    monkeypatch.setattr("fcpts_onnx.machine._GROUPS", tmp_path)
    assert available(torch.device("cpu")) <= gib * 3 // 4
    (tmp_path / "memory.current").write_text(f"{gib}\n")
    assert available(torch.device("cpu")) <= gib * 7 // 4
    if free := next(
        (line for line in Path("/proc/meminfo").read_text().splitlines() if "MemAvail" in line), ""
    ):
        least = min(gib * 7 // 4, 1024 * int(free.split()[1]))
        assert available(torch.device("cpu")) >= 0.8 * least


def test_too_little_is_said_before_any_work(wide: Path) -> None:
    with pytest.raises(FcptsError, match=r"takes about .* with one sample at a time; --memory"):
        prune(wide, [], memory=50 * MIB)
    assert not (wide.parent / "out.onnx").exists()


@pytest.mark.parametrize("count", [1, 2, 5, 7, 30])
def test_pieces_are_the_whole_batch(count: int) -> None:
    task = Task(None, None, (), None, Recipe(), (), pieces=count)
    batch = {"x": torch.arange(7), "y": torch.arange(14).reshape(7, 2)}
    parts = task.pieces_of(batch)
    assert len(parts) == min(count, 7)
    assert sum(share for _, share in parts) == pytest.approx(1)
    assert sorted(torch.cat([part["x"] for part, _ in parts]).tolist()) == list(range(7))
    assert all(torch.equal(part["y"][:, 0], 2 * part["x"]) for part, _ in parts)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_there_is() -> None:
    room = available(torch.device("cpu"))
    assert room is not None
    assert 0 < room < 2**50


LIMITED = """
import resource, sys
from fcpts_onnx.cli import main
import torch
used = next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmSize")) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv.pop(1)), resource.RLIM_INFINITY))
main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_a_limit_of_the_system(wide: Path) -> None:
    """It ends with a message that says what to do, not with a traceback."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(150 * MIB), "prune", "in.onnx", "out.onnx",
         "--target", "0.5", "--calib", "calib.npy", "--threads", "1"],
        cwd=wide.parent, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "of memory left for this process" in done.stderr
    assert not (wide.parent / "out.onnx").exists()


@pytest.mark.parametrize(("text", "bytes_"), [("800M", 800 * MIB), ("1.5g", 1536 * MIB)])
def test_sizes(text: str, bytes_: int, monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    seen: list[int] = []
    monkeypatch.setattr("fcpts_onnx.rehearse", lambda *_, **options: seen.append(options["memory"]))
    monkeypatch.setattr("fcpts_onnx.cli.learning.show_rehearsal", lambda *_: None)
    arguments = [
        "prune", str(place / "in.onnx"), str(place / "out.onnx"), "--target", "0.5", "--calib",
        str(place / "images"), "--dry-run", "--memory",
    ]  # fmt: skip
    assert CliRunner().invoke(main, [*arguments, text]).exit_code == 0
    assert seen == [bytes_]
    assert CliRunner().invoke(main, [*arguments, "lots"]).exit_code == 2
