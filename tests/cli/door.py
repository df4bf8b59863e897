"""How the tests come in: commands through click's runner, and what lies in a folder."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from fcpts_onnx.cli import main


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def prune(place: Path, *options: str, target: str = "0.6") -> Result:
    return run(
        "prune", place / "in.onnx", place / "out.onnx", "--target", target,
        "--calib", place / "images", "--recipe", place / "quick.toml", *options,
    )  # fmt: skip


def listing(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


RUNNER = "from fcpts_onnx.cli import main; main()"
