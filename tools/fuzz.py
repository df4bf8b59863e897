"""Feed broken models to load, find, twin and write: each has to be taken, or refused in words.

    python -m tools.fuzz --minutes 2 --models ../shared/models --out found/
    python -m tools.fuzz --replay found/crash-17.onnx

Real models and small ones are changed in their bytes or in the fields of their protobuf. A case is
told by --seed and its number. What ends otherwise than with an FcptsError is stored with the
reason: a crash, more than 30 seconds, more than 2 GiB.
"""

from __future__ import annotations

import multiprocessing
import resource
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import click
import numpy as np

from fcpts_onnx import FcptsError
from fcpts_onnx.examine import inspect
from fcpts_onnx.model import load
from fcpts_onnx.preparation import learning_twin
from fcpts_onnx.weights import count_zeros, find_weights
from fcpts_onnx.write import save
from tests import networks
from tools.mutations import mutated

__all__ = ["Outcome", "Tally", "examined", "main"]

_MEMORY = 2**31  # bytes, on top of what the package takes itself
_CASES_A_WORKER = 400
_LARGEST_SOURCE = 2_500_000  # bytes, for the number of cases


@dataclass(frozen=True)
class Outcome:
    """How a case ended.

    Attributes:
        kind: "accepted", "rejected", "crash", "hang" or "memory".
        reason: the error's class; of a crash, all that is known.
    """

    kind: str
    reason: str = ""

    @property
    def is_fault(self) -> bool:
        """Whether the package has to be corrected."""
        return self.kind not in ("accepted", "rejected")


@dataclass
class Tally:
    """What became of all cases so far."""

    kinds: Counter[str] = field(default_factory=Counter)
    rejections: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0

    def add(self, outcome: Outcome, seconds: float) -> None:
        self.kinds[outcome.kind] += 1
        self.slowest = max(self.slowest, seconds)
        if outcome.kind == "rejected":
            self.rejections[outcome.reason] += 1

    def lines(self) -> Iterator[str]:
        """The table."""
        yield f"cases     {self.kinds.total():,}, the slowest took {self.slowest:.1f} s"
        yield f"accepted  {self.kinds['accepted']:,}"
        yield f"rejected  {self.kinds['rejected']:,}"
        yield from (f"  {name}: {count:,}" for name, count in self.rejections.most_common())
        yield from (f"{kind:9} {self.kinds[kind]:,}" for kind in ("crash", "hang", "memory"))


def examined(path: Path) -> Outcome:
    """Load a file, find its weights, build the twin, and write it with half of each zero."""
    try:
        _run(path)
    except FcptsError as error:
        return Outcome("rejected", type(error).__name__)
    except Exception as error:
        kind = "memory" if isinstance(error, MemoryError) else "crash"
        return Outcome(kind, traceback.format_exc())
    return Outcome("accepted")


def _run(path: Path) -> None:
    model = load(path)
    found = find_weights(model)
    weights = [weight for weight in found if weight.excluded is None]
    learning_twin(model, weights, ())
    inspect(path)
    arrays = {}
    for weight in weights:
        values = model.array(weight.name).copy()
        zero = 0 if weight.grid is None else weight.grid.zero_point
        values[..., ::2] = np.broadcast_to(zero, values.shape)[..., ::2]
        arrays[weight.name] = values
    with tempfile.TemporaryDirectory() as folder:
        stage = Path(folder) / "sparse.onnx"
        save(model, arrays, stage, Path(folder))
        sparse = load(stage)
        if any(2 * count_zeros(sparse, weight) < weight.count for weight in weights):
            raise RuntimeError("The written file lacks zeros.")


def _serve(pipe: Connection, path: Path) -> None:
    """Examine the file whenever asked, within the limit of memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + _MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pipe.send(True)  # what has been imported until here is not the case's time
    while pipe.recv():
        outcome = examined(path)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if peak > _MEMORY and not outcome.is_fault:
            outcome = Outcome("memory", f"It took {peak / 2**30:.1f} GiB.")
        pipe.send(outcome)


class _Worker:
    """A process that examines one case after another, and may die of it."""

    def __init__(self, path: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, path), daemon=True)
        self._process.start()
        other.close()
        self._pipe.recv()
        self.left = _CASES_A_WORKER

    def examine(self, limit: float) -> Outcome:
        """What became of the case in the file, in so many seconds."""
        self.left -= 1
        try:
            self._pipe.send(True)
            if self._pipe.poll(limit):
                outcome: Outcome = self._pipe.recv()
                self.left = 0 if outcome.is_fault else self.left
                return outcome
        except (EOFError, OSError):
            self.left = 0
            self._process.join()
            return Outcome("crash", f"The process ended with {self._process.exitcode}.")
        self.left = 0
        return Outcome("hang", f"It took more than {limit:g} s.")

    def stop(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.join()


def _sources(folders: Sequence[Path]) -> list[bytes]:
    """What cases are made of: models of these folders, and small ones."""
    files = sorted(file for folder in folders for file in folder.glob("*.onnx"))
    small = (
        networks.cnn(), networks.perceptron(), networks.batch_norm(), networks.detector(),
        networks.in_half(networks.cnn()), networks.cnn(opset=9, baked=True, batch=1),
    )  # fmt: skip
    contents = [file.read_bytes() for file in files if file.stat().st_size <= _LARGEST_SOURCE]
    return contents + [proto.SerializeToString() for proto in small]


def _fuzz(
    sources: Sequence[bytes], seed: int, seconds: float, limit: float, out: Path | None
) -> Tally:
    tally, number = Tally(), 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.onnx"
        path.with_name("weights.bin").write_bytes(bytes(4096))
        worker = _Worker(path)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            generator = np.random.default_rng([seed, number])
            path.write_bytes(mutated(sources[generator.integers(len(sources))], generator))
            if not worker.left:
                worker.stop()
                worker = _Worker(path)
            start = time.monotonic()
            outcome = worker.examine(limit)
            tally.add(outcome, time.monotonic() - start)
            if outcome.is_fault and out is not None:
                stored = out / f"{outcome.kind}-{seed}-{number}.onnx"
                shutil.copyfile(path, stored)
                stored.with_suffix(".txt").write_text(outcome.reason, encoding="utf-8")
            number += 1
        worker.stop()
    return tally


@click.command()
@click.option("--minutes", default=2.0, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--models", multiple=True, type=click.Path(path_type=Path), help="Folder of .onnx; repeatable."
)
@click.option("--limit", default=30.0, show_default=True, help="Seconds that a case may take.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for what has to be corrected.")
@click.option("--replay", type=click.Path(path_type=Path), help="Examine this file alone.")
def main(
    minutes: float,
    seed: int,
    models: tuple[Path, ...],
    limit: float,
    out: Path | None,
    replay: Path | None,
) -> None:
    """Break models and see that each is taken or refused in words; exit code 1 if one is not."""
    if replay is not None:
        outcome = examined(replay)
        click.echo(f"{outcome.kind} {outcome.reason}")
        raise SystemExit(int(outcome.is_fault))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    tally = _fuzz(_sources(models), seed, 60 * minutes, limit, out)
    click.echo("\n".join(tally.lines()))
    raise SystemExit(int(any(tally.kinds[kind] for kind in ("crash", "hang", "memory"))))


if __name__ == "__main__":
    main()
