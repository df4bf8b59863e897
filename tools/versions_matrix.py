"""Run the tests with each Python that is present and the versions at both ends of what is admitted.

    python -m tools.versions_matrix --tests "tests --ignore tests/ops"

Each row is an environment of its own: the lowest onnx, onnxruntime and torch that pyproject.toml
admits, or the newest there are; all else as pip chooses. Prints a table in Markdown, on stderr
which tests failed, and exits with 1 where one did. The operators' tests are for the newest onnx
and onnxruntime: older ones lack operators, and compute some wrongly, which parity tells the user.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
VARIED = ("onnx", "onnxruntime", "torch")
SHOWN = (*VARIED, "numpy")
_LONGEST = 200  # characters of a reason
_VERSION = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
_SHOW = f"from importlib.metadata import version; print(*map(version, {SHOWN}))"


@dataclass(frozen=True)
class Row:
    """An environment to be tested in.

    Attributes:
        python: the interpreter.
        version: its version.
        end: "lowest" or "newest".
        pins: what has to be installed beside the package, as pip takes it.
    """

    python: Path
    version: str
    end: str
    pins: tuple[str, ...]


@click.command()
@click.option("--python", "versions", multiple=True, metavar="3.N", help="Default: all there are.")
@click.option("--end", "ends", multiple=True, type=click.Choice(["lowest", "newest"]))
@click.option("--torch", metavar="VERSION", help="This one in all rows: some come with gigabytes.")
@click.option("--tests", default="tests", show_default=True, help="Arguments of pytest.")
def main(versions: tuple[str, ...], ends: tuple[str, ...], torch: str | None, tests: str) -> None:
    """Install and test row by row."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    least = str(project["requires-python"]).removeprefix(">=")
    rows = [
        Row(python, version, end, pins(project["dependencies"], end, torch))
        for version, python in interpreters(least).items()
        if not versions or version.rsplit(".", 1)[0] in versions
        for end in ends or ("lowest", "newest")
    ]
    head = ("Python", "", *SHOWN, "tests", "seconds")
    click.echo(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    failed = not rows
    for row in rows:
        start = time.monotonic()
        found, lines, is_well = tested(row, shlex.split(tests))
        cells = (row.version, row.end, *found, lines[-1], f"{time.monotonic() - start:.0f}")
        click.echo(f"| {' | '.join(cells)} |")
        for line in lines[:-1]:
            click.echo(line, err=True)
        failed |= not is_well
    sys.exit(int(failed))


def interpreters(least: str) -> dict[str, Path]:
    """Pythons on the path and in pyenv from a version on, the newest of each minor version."""
    found: dict[tuple[int, ...], Path] = {}
    for path in _candidates():
        answer = subprocess.run([path, "-c", _VERSION], capture_output=True, text=True)
        if answer.returncode == 0:
            found.setdefault(_numbers(answer.stdout.strip()), path)
    kept = {key[:2]: key for key in sorted(found) if key >= _numbers(least)}
    return {".".join(map(str, key)): found[key] for key in kept.values()}


def pins(dependencies: list[str], end: str, torch: str | None) -> tuple[str, ...]:
    """What fixes the versions at one end: the lower bounds, or nothing for the newest."""
    bounds = [entry.partition(">=") for entry in dependencies]
    chosen = {name: least for name, _, least in bounds if name in VARIED and end == "lowest"}
    if torch is not None:
        chosen["torch"] = torch
    return tuple(f"{name}=={version}" for name, version in chosen.items())


def tested(row: Row, tests: list[str]) -> tuple[list[str], list[str], bool]:
    """The versions that were installed, what failed and pytest's sum, and whether all passed."""
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder) / "bin" / "python"
        _run([row.python, "-m", "venv", folder])
        package = f"{ROOT}[test]"
        installed = _run([python, "-m", "pip", "install", "-q", package, *row.pins])
        if installed.returncode:
            return ["?"] * len(SHOWN), [f"not installed: {_last(installed.stderr)}"], False
        versions = _run([python, "-c", _SHOW]).stdout.split()
        ended = _run([python, "-m", "pytest", "-p", "no:cacheprovider", *tests])
    said = ended.stdout or ended.stderr
    lines = [line for line in said.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return versions, [*lines, _last(said)], ended.returncode == 0


def _candidates() -> Iterator[str]:
    names = [f"python3.{minor}" for minor in range(11, 30)]
    yield from filter(None, map(shutil.which, names))
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from map(str, sorted(root.glob("versions/*/bin/python")))


def _run(command: list[str | Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def _last(text: str) -> str:
    """The last line of what a program said, fit for a table."""
    lines = text.strip().splitlines() or ["nothing was said"]
    return lines[-1].strip(" =").replace("|", "/")[:_LONGEST]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


if __name__ == "__main__":
    main()
