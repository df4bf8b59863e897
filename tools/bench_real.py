"""Try real models by others: what can be pruned, parity, and what pruning to 70 % does to them.

    python -m tools.bench_real --shared ../shared --steps 100 --out tools/results/real_models

Each model is pruned for the same few steps, which shows that it is served and not how well: the
accuracy of whole runs is measured by `tools/bench_accuracy.py`. `tests/real_models.toml` says what
each model needs.
"""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

import fcpts_onnx
from fcpts_onnx import FcptsError, Preprocess, Recipe
from fcpts_onnx.model import load
from tools.bench_accuracy import machine, write_results
from tools.bench_networks import reason

__all__ = ["Real", "real_models"]

TABLE = Path(__file__).resolve().parent.parent / "tests" / "real_models.toml"
TARGET = 0.7


@dataclass(frozen=True)
class Real:
    """A model by others, and what it needs.

    Attributes:
        path: the file.
        images: calibration images; None for random values.
        preprocess: how they become the model's input.
        labelled: labelled images in class folders, if there are any.
        refused: the beginning of why it cannot be pruned; None when it can.
    """

    path: Path
    images: Path | None
    preprocess: Preprocess
    labelled: Path | None
    refused: str | None

    def samples(self, count: int) -> Path | list[dict[str, np.ndarray]]:
        """What to calibrate with: the folder of images, or random values for each input."""
        if self.images is not None:
            return self.images
        generator, feed = np.random.default_rng(0), {}
        for spec in load(self.path).inputs:
            shape = (count, *(size or 64 for size in (spec.shape or ())[1:]))
            if spec.dtype.kind == "f":
                feed[spec.name] = generator.normal(size=shape).astype(spec.dtype)
            else:
                feed[spec.name] = generator.integers(0, 100, shape).astype(spec.dtype)
        return [feed]


def real_models(shared: Path) -> list[Real]:
    """The models of the table, from a folder with models/ and data/."""
    return [
        _real(name, entry, shared)
        for name, entry in tomllib.loads(TABLE.read_text(encoding="utf-8")).items()
    ]


def _real(name: str, entry: dict[str, Any], shared: Path) -> Real:
    def place(key: str) -> Path | None:
        return shared / "data" / entry[key] if key in entry else None

    return Real(
        path=shared / "models" / f"{name}.onnx",
        images=place("images"),
        preprocess=Preprocess.read(entry.get("preprocess", {}), name),
        labelled=place("labelled"),
        refused=entry.get("refused"),
    )


@click.command()
@click.argument("names", nargs=-1)
@click.option("--shared", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--steps", default=100, show_default=True)
@click.option("--batch", default=16, show_default=True)
@click.option("--samples", default=500, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Without a suffix.")
def main(
    names: tuple[str, ...], shared: Path, steps: int, batch: int, samples: int, out: Path | None
) -> None:
    """Prune each model for some steps; all of them without NAMES."""
    recipe = replace(
        Recipe.load("default"), epochs=0.0, min_steps=steps, batch_size=batch, learning_rate=0.005
    )
    rows: list[dict[str, Any]] = []
    for real in real_models(shared):
        if names and real.path.stem not in names:
            continue
        row = {"model": real.path.stem, "steps": steps, "batch": batch}
        rows.append(row | measure(real, recipe, samples) | {"machine": machine()})
        click.echo(rows[-1])
        if out is not None:
            write_results(out, {"rows": rows}, table(rows))


def measure(real: Real, recipe: Recipe, samples: int) -> dict[str, Any]:
    """Inspect, prune (which holds the file against its origin), and evaluate."""
    seen = fcpts_onnx.inspect(real.path)
    row: dict[str, Any] = {"opset": seen.opset, "prunable": seen.prunable, "heads": seen.heads}
    with tempfile.TemporaryDirectory() as folder:
        sparse = Path(folder) / "sparse.onnx"
        try:
            result = fcpts_onnx.prune(
                real.path, sparse, target=TARGET, calib=real.samples(64), recipe=recipe,
                preprocess=real.preprocess, samples=samples,
            )  # fmt: skip
        except FcptsError as error:
            return row | {"refused": reason(error).replace(str(real.path), real.path.name)}
        outputs = result.validation.outputs
        return row | {
            "parity": result.parity.error,
            "zeros": result.zeros,
            "seconds": round(result.seconds["learn"], 1),
            "cosine": min((output.cosine for output in outputs), default=None),
            "agreement": [o.agreement for o in outputs if o.agreement is not None],
            "top1": [accuracy(real, path) for path in (real.path, sparse) if real.labelled],
        }


def accuracy(real: Real, path: Path) -> float:
    """Top-1 on the labelled images."""
    assert real.labelled is not None
    return fcpts_onnx.evaluate(path, data=real.labelled, preprocess=real.preprocess).scores["top-1"]


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A line a model, and what it was measured on."""
    runs = dict.fromkeys(f"{row['steps']} steps of {row['batch']} samples" for row in rows)
    yield (
        f"Each model pruned to {TARGET:.0%} zeros in {', '.join(runs)}, which shows that it is "
        "served and not how well:"
    )
    yield ""
    yield (
        "| model | opset | prunable weights | learned against | parity error | learning, s "
        "| least cosine to dense | same class | top-1, dense and sparse |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in rows:
        start = f"| {row['model']} | {row['opset']} | {row['prunable']:,} "
        if "refused" in row:
            yield f"{start}| refused: {row['refused']} | | | | | |"
            continue
        losses = [head.rsplit("(", 1)[-1].rstrip(")") for head in row["heads"]]
        against = ", ".join(f"{losses.count(loss)} {loss}" for loss in dict.fromkeys(losses))
        same = ", ".join(f"{share:.1%}" for share in row["agreement"]) or "-"
        top1 = ", ".join(f"{share:.2%}" for share in row["top1"]) or "-"
        cosine = "-" if row["cosine"] is None else f"{row['cosine']:.3f}"
        yield (
            f"{start}| {against} | {row['parity']:.1e} | {row['seconds']} | {cosine} "
            f"| {same} | {top1} |"
        )
    yield ""
    for seen in dict.fromkeys(tuple(row["machine"].items()) for row in rows):
        yield "- " + ", ".join(f"{key} {value}" for key, value in seen)


if __name__ == "__main__":
    main()
