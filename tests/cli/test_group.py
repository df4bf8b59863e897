"""What all commands share: help, exit codes, signals, permissions, terminals."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from fcpts_onnx.cli import main
from tests import networks
from tests.cli.door import RUNNER, listing, run
from tests.networks import save_images


def help_examples() -> list[str]:
    """Every command line that a help text shows."""
    text = "".join(run(*names, "--help").output for names in ((), *((n,) for n in main.commands)))
    return sorted(
        {line.strip() for line in text.splitlines() if line.startswith("    fcpts-onnx ")}
    )


def test_help_examples_work(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    (place / "model.onnx").write_bytes((place / "in.onnx").read_bytes())
    np.savez(place / "inputs.npz", image=networks.values(8, 3, 8, 8))
    networks.save(networks.detector(), place / "ssd.onnx")
    save_images(place / "JPEGImages", 2)
    (place / "Annotations").mkdir()
    for image in (place / "JPEGImages").iterdir():
        (place / "Annotations" / f"{image.stem}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (place / "ssd.toml").write_text('kind = "fastestdet"\nclasses = ["cat", "dog"]\n')
    examples = help_examples()
    assert len(examples) == 23
    for line in sorted(examples, key=lambda line: "prune" not in line):
        arguments = shlex.split(line)[1:]
        if arguments[0] == "demo" or "ort,mnn" in arguments:
            continue
        if not {"prune", "compare"}.isdisjoint(arguments):
            arguments += ["--recipe", "quick.toml"]
        result = run(*arguments)
        assert result.exit_code == 0, f"{line}: {result.output}"


@pytest.mark.parametrize(
    "arguments",
    [
        ["prune"],
        ["prune", "a.onnx", "b.onnx", "--calib", "x"],
        ["prune", "a.onnx", "b.onnx", "--calib", "x", "--target", "lots"],
        ["prune", "a.onnx", "b.onnx", "--calib", "x", "--target", ".5", "--mean", "a,b"],
        ["prune", "a.onnx", "b.onnx", "--calib", "x", "--target", ".5", "--size", "0x8"],
        ["prune", "a.onnx", "b.onnx", "--calib", "x", "--target", ".5", "--keep-dense", "middle"],
        ["prune", "a.onnx", "b.onnx", "--calib", "x", "--target", ".5", "--device", "tpu"],
        ["prune", "a.onnx", "b.onnx", "--calib", "x", "--target", ".5", "--augment", "spin"],
        ["prune", "a.onnx", "b.onnx", "--calib", "x", "--target", ".5", "--allocate", "best"],
        ["prune", "a.onnx", "b.onnx", "--calib", "x", "--target", ".5", "--time-budget", "soon"],
        ["prune", "a.onnx", "b.onnx", "--calib", "x", "--target", ".5", "--time-budget", "0"],
        ["inspect", "a.onnx", "--loud"],
        ["bench", "a.onnx", "b.onnx", "--runtime", "tvm"],
        ["bench", "a.onnx", "b.onnx", "--size", "²"],
        ["squeeze"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


class OnWindows:
    """The module `os`, as it is there in name."""

    name = "nt"

    def __getattr__(self, attribute: str) -> Any:
        return getattr(os, attribute)


def test_patterns_are_not_taken_for_files(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What click does on Windows, whose shells expand none."""
    (place / "fc-old.onnx").touch()
    monkeypatch.chdir(place)
    monkeypatch.setattr("click.core.os", OnWindows())
    line = ["fcpts-onnx", "inspect", "in.onnx", "--exclude", "fc*", "--json", "i.json"]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit, match="0"):
        main()
    weights = {w["name"]: w for w in json.loads((place / "i.json").read_text())["weights"]}
    assert weights["fc.w"]["excluded"]
    assert not weights["conv.w"]["excluded"]


def test_names_that_the_terminal_cannot_show(place: Path) -> None:
    (place / "in.onnx").rename(place / "模型.onnx")
    done = subprocess.run(
        [sys.executable, "-m", "fcpts_onnx", "inspect", "模型.onnx", "--json", "i.json"],
        cwd=place, capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "\\u6a21\\u578b.onnx: opset 17" in done.stdout
    assert (place / "i.json").exists()


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Root may read and write everything; step down for the while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def locked() -> Iterator[Path]:
    """A folder that others can enter, with a folder in it that nobody may read or write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        networks.save(networks.cnn(), folder / "in.onnx")
        save_images(folder / "images", 4)
        save_images(folder / "secret", 4)
        (folder / "secret").chmod(0)
        (folder / "closed").mkdir(mode=0o555)
        (folder / "open").mkdir()
        (folder / "open").chmod(0o777)
        yield folder
        (folder / "secret").chmod(stat.S_IRWXU)


@pytest.mark.usefixtures("unprivileged")
@pytest.mark.parametrize(
    ("output", "calib", "message"),
    [
        ("closed/out.onnx", "images", "cannot be written: Permission denied"),
        ("/proc/out.onnx", "images", "cannot be written"),
        ("open/out.onnx", "secret", "secret: cannot be read: Permission denied"),
    ],
)
def test_places_without_permission(locked: Path, output: str, calib: str, message: str) -> None:
    before = sorted(locked.rglob("*"))
    result = run(
        "prune", locked / "in.onnx", locked / output, "--target", ".5", "--calib", locked / calib
    )
    assert result.exit_code == 1, result.output
    assert message in result.output
    assert sorted(locked.rglob("*")) == before


def test_out_of_disk(place: Path) -> None:
    before = listing(place)
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900)); "
    finished = subprocess.run(
        [sys.executable, "-c", limited + RUNNER, "prune", "in.onnx", "out.onnx", "--target", ".5",
         "--calib", "images", "--recipe", "quick.toml"],
        cwd=place, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert finished.returncode == 1, finished.stderr
    assert "out.onnx: cannot be written: File too large. Nothing was written." in finished.stderr
    assert listing(place) == before


def test_ctrl_c(place: Path) -> None:
    (place / "quick.toml").write_text("epochs = 0\nmin_steps = 100000\nbatch_size = 4\n")
    before = listing(place)
    # A shell that starts the tests in the background makes its children ignore the signal.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", heard + RUNNER, "prune", "in.onnx", "out.onnx",
         "--target", ".5", "--calib", "images", "--recipe", "quick.toml"],
        cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Twin:"):
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    if "--resume" in errors:  # it was learning by then
        shutil.rmtree(place / "out.onnx.fcpts")
    else:
        assert errors.strip() == "Interrupted; nothing was written."
    assert listing(place) == before


def test_completion(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a shell asks for, and gets."""
    monkeypatch.setenv("COMP_WORDS", "fcpts-onnx pr")
    monkeypatch.setenv("COMP_CWORD", "1")
    monkeypatch.setenv("_FCPTS_ONNX_COMPLETE", "bash_complete")
    result = CliRunner().invoke(main, prog_name="fcpts-onnx")
    assert result.output == "plain,prune\n"
