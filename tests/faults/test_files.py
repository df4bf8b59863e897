"""Files that change, vanish or cannot be written while a run is on: all of a result or nothing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import fcpts_onnx
from fcpts_onnx import Progress
from fcpts_onnx.errors import FcptsError
from fcpts_onnx.model import load
from tests import networks

COUNT = 320
LIMITED = (
    "import resource, sys; size = int(sys.argv.pop(1)); "
    "resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)); "
    "from fcpts_onnx.cli import main; main()"
)


def pruned_while(place: Path, happens: Callable[[], Any], **options: Any) -> int:
    """Prune; in the middle of learning something happens. The zeros of what was written."""

    def report(progress: Progress) -> None:
        if progress.step == 3:
            happens()

    fcpts_onnx.prune(
        place / "in.onnx", place / "out.onnx", target=0.6, calib=place / "images",
        recipe=str(place / "quick.toml"), report=report, **options,
    )  # fmt: skip
    model = load(place / "out.onnx")
    names = ("conv.w", "depthwise.w", "fc.w")
    return sum(int((model.array(name) == 0).sum()) for name in names)


def left(place: Path) -> list[str]:
    """What a run has left behind beside its output."""
    return sorted(path.name for path in place.glob("*out.onnx*"))


def another(place: Path) -> None:
    networks.save(networks.cnn(opset=16), place / "in.onnx")


def cut_short(place: Path) -> None:
    (place / "in.onnx").write_bytes((place / "in.onnx").read_bytes()[:-100])


def gone(place: Path) -> None:
    (place / "in.onnx").unlink()


@pytest.mark.parametrize("change", [another, cut_short, gone])
def test_the_input_is_changed(place: Path, change: Callable[[Path], None]) -> None:
    with pytest.raises(FcptsError, match=r"was changed while it was pruned|cannot be read"):
        pruned_while(place, lambda: change(place))
    assert left(place) == []


def test_external_data_is_changed(place: Path) -> None:
    """Of a tensor that is not learned, and so is read when the file is written."""
    proto = onnx.load(place / "in.onnx")
    onnx.save(
        proto, place / "in.onnx", save_as_external_data=True, location="in.data", size_threshold=64
    )
    data = place / "in.data"

    def change() -> None:
        data.write_bytes(bytes(reversed(data.read_bytes())))

    with pytest.raises(FcptsError, match="was changed while it was pruned"):
        pruned_while(place, change)
    assert left(place) == []


def test_calibration_files_vanish(place: Path) -> None:
    """They were read by then."""
    assert pruned_while(place, lambda: shutil.rmtree(place / "images")) == 0.6 * COUNT


def test_a_folder_takes_the_outputs_name(place: Path) -> None:
    with pytest.raises(FcptsError, match=r"out\.onnx: cannot be written"):
        pruned_while(place, lambda: (place / "out.onnx").mkdir())
    assert left(place) == ["out.onnx"]
    assert list((place / "out.onnx").iterdir()) == []


def test_the_outputs_folder_vanishes(place: Path) -> None:
    (place / "deep").mkdir()
    with pytest.raises(FcptsError, match="cannot be written"):
        fcpts_onnx.prune(
            place / "in.onnx", place / "deep" / "out.onnx", target=0.6, calib=place / "images",
            recipe=str(place / "quick.toml"),
            report=lambda _: shutil.rmtree(place / "deep", ignore_errors=True),
        )  # fmt: skip
    assert not (place / "deep").exists()


def test_what_is_kept_on_the_way_vanishes(place: Path) -> None:
    zeros = pruned_while(
        place, lambda: shutil.rmtree(place / "out.onnx.fcpts"), checkpoint_every=1e-9
    )
    assert zeros == 0.6 * COUNT


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files")
@pytest.mark.parametrize("room", [100, 2_000, 6_000, 60_000])
def test_a_disk_that_is_full(room: int, place: Path) -> None:
    """Wherever it ends, each file is whole or not there: the state, the model, JSON, the page."""
    proto = networks.cnn()
    for tensor in proto.graph.initializer:  # with zeros, as what may be replaced has
        if tensor.name == "fc.w":
            tensor.CopyFrom(numpy_helper.from_array(np.zeros((4, 8), np.float32), "fc.w"))
    former = networks.save(proto, place / "out.onnx").read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(room), "prune", "in.onnx", "out.onnx",
         "--target", "0.6", "--calib", "images", "--recipe", "quick.toml", "--threads", "1",
         "--checkpoint-every", "0.001s", "--json", "run.json", "--report", "run.html"],
        cwd=place, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == 1
    assert "cannot be written: File too large" in done.stderr
    written = (place / "out.onnx").read_bytes()
    if written != former:
        assert load(place / "out.onnx").array("conv.w").any()
    for name, end in (("run.json", "}\n"), ("run.html", "</html>\n")):
        if (place / name).exists():
            assert (place / name).read_text().endswith(end)
    assert not list(place.glob(".*"))
