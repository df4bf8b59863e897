"""Prune the demo network again and again in one process, and see that nothing piles up.

    python -m tools.soak --minutes 60

Prints the resident memory over time and what is left in the folders for results and for temporary
files, both of which are the script's own. Exits with 1 where memory grew by more than the limit
after the first calls, or a file is left. Reads /proc: Linux only.
"""

from __future__ import annotations

import getpass
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import click

import fcpts_onnx
from fcpts_onnx import Recipe
from fcpts_onnx.demo import demo_folder

FIRST = 10
"""Calls after which memory is looked at: caches and pools are filled by then."""
LIMIT = 50.0  # MB
_RECIPE = Recipe(epochs=0, min_steps=20)
_RESULT = "sparse.onnx"
_CACHE = f"torchinductor_{getpass.getuser()}"  # torch's own, one a user, and empty


@click.command()
@click.option("--minutes", type=click.FloatRange(0), default=60.0, show_default=True)
@click.option("--every", type=click.IntRange(1), default=50, show_default=True, help="Calls a row.")
def main(minutes: float, every: int) -> None:
    """Prune for so many minutes, and for some calls at least."""
    start, memory = time.monotonic(), []
    with own_folders() as (results, scratch):
        click.echo("| minutes | calls | resident MB |\n|---|---|---|")
        while len(memory) <= FIRST or time.monotonic() - start < 60 * minutes:
            prune(results / _RESULT)
            memory.append(resident())
            if len(memory) % every == 0 or len(memory) == FIRST:
                row(time.monotonic() - start, memory)
        row(time.monotonic() - start, memory)
        left = [path for folder in (results, scratch) for path in folder.rglob("*")]
        left = [path for path in left if path.name not in (_RESULT, _CACHE)]
    grown = memory[-1] - memory[FIRST - 1]
    click.echo(f"Grown by {grown:.1f} MB since call {FIRST}; {len(left)} files left.")
    for path in left:
        click.echo(f"Left: {path}")
    sys.exit(int(grown > LIMIT or bool(left)))


@contextmanager
def own_folders() -> Iterator[tuple[Path, Path]]:
    """A folder for results, and one that everything in the process takes for temporary files."""
    with tempfile.TemporaryDirectory() as folder:
        results, scratch = Path(folder) / "results", Path(folder) / "scratch"
        results.mkdir()
        scratch.mkdir()
        ours = {"TMPDIR": str(scratch)}
        with patch.dict(os.environ, ours), patch.object(tempfile, "tempdir", str(scratch)):
            yield results, scratch


def prune(output: Path) -> None:
    """A short run on the demo network."""
    folder = demo_folder()
    fcpts_onnx.prune(
        folder / "digits.onnx", output, target=0.9, calib=folder / "calib", preprocess="unit",
        recipe=_RECIPE, samples=256,
    )  # fmt: skip


def resident() -> float:
    """The memory that the process has, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def row(seconds: float, memory: list[float]) -> None:
    click.echo(f"| {seconds / 60:.1f} | {len(memory)} | {memory[-1]:.1f} |")


if __name__ == "__main__":
    main()
