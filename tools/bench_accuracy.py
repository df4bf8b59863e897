"""Measure what pruning costs in accuracy, over networks, targets, recipes and seeds.

    python tools/bench_accuracy.py a.onnx b.onnx --calib imgs/ --data labelled/ \\
        --target 0.7 --seed 0 --seed 1 --out tools/results/accuracy

Each run is as `fcpts-onnx prune` and `fcpts-onnx eval` do it, one after another unless --jobs says
otherwise. Writes JSON and Markdown after every run; a run whose row is there already is not
repeated, and one that was interrupted goes on from its last checkpoint, kept in a folder beside.
"""

from __future__ import annotations

import datetime
import json
import platform
import resource
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import click
import numpy
import onnx
import onnxruntime
import torch

import fcpts_onnx
from fcpts_onnx import Recipe
from fcpts_onnx.preprocess import Preprocess

KEYS = ("network", "target", "recipe")


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--calib", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--labels", type=click.Path(path_type=Path, exists=True), help="CSV of file,label.")
@click.option("--preprocess", default="imagenet", show_default=True)
@click.option("--target", "targets", multiple=True, type=float, default=(0.7,), show_default=True)
@click.option("--recipe", "recipes", multiple=True, default=("default",), show_default=True)
@click.option("--seed", "seeds", multiple=True, type=int, default=(0,), show_default=True)
@click.option("--jobs", default=1, show_default=True, help="Runs at once, which share the cores.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Without a suffix.")
def main(
    models: tuple[Path, ...],
    calib: Path,
    data: Path,
    labels: Path | None,
    preprocess: str,
    targets: tuple[float, ...],
    recipes: tuple[str, ...],
    seeds: tuple[int, ...],
    jobs: int,
    out: Path,
) -> None:
    """Prune every model at every target with every recipe and seed, and evaluate it."""
    settings = Preprocess.named(preprocess)
    stored = out.with_name(f"{out.name}.json")
    rows = json.loads(stored.read_text())["rows"] if stored.exists() else []
    done = {tuple(row[key] for key in (*KEYS, "seed")) for row in rows}
    loaded = [Recipe.load(recipe) for recipe in recipes]
    wanted = [
        (model, target, recipe, seed)
        for model, target, recipe, seed in product(models, targets, loaded, seeds)
        if (model.stem, target, recipe.name, seed) not in done
    ]
    # Each in a process of its own: the peak of memory is one of a process.
    with ProcessPoolExecutor(
        jobs,
        mp_context=get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(max(1, torch.get_num_threads() // jobs),),
        max_tasks_per_child=1,
    ) as pool:
        pending = [
            pool.submit(measure, model, calib, data, labels, settings, target, recipe, seed, out)
            for model, target, recipe, seed in wanted
        ]
        for run in as_completed(pending):
            click.echo(run.result())
            rows.append(run.result())
            write_results(out, {"rows": rows}, page(rows))
    shutil.rmtree(_unfinished(out), ignore_errors=True)
    click.echo("\n".join(page(rows)))


def measure(
    model: Path,
    calib: Path,
    data: Path,
    labels: Path | None,
    preprocess: Preprocess,
    target: float,
    recipe: Recipe,
    seed: int,
    out: Path,
) -> dict[str, Any]:
    """One run: accuracy before and after, time and memory."""
    of_data = partial(fcpts_onnx.evaluate, data=data, labels=labels, preprocess=preprocess)
    dense = of_data(model)
    output = _unfinished(out) / f"{model.stem}-{target:g}-{recipe.name}-{seed}.onnx"
    output.parent.mkdir(parents=True, exist_ok=True)
    result = fcpts_onnx.prune(
        model, output, target=target, calib=calib, preprocess=preprocess, recipe=recipe, seed=seed,
        resume=True,
    )  # fmt: skip
    sparse = of_data(output)
    return {
        "network": model.stem,
        "target": target,
        "recipe": recipe.name,
        "seed": seed,
        "dense": dense.scores["top-1"],
        "sparse": sparse.scores["top-1"],
        "kl": [output.kl for output in result.validation.outputs],
        "zeros": result.zeros,
        "asked": round(target * result.count),
        "images": result.history[-1].step * recipe.batch_size,
        "seconds": round(sum(result.seconds.values()), 1),
        "machine": machine(),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "rates": {weight.name: round(weight.rate, 4) for weight in result.validation.weights},
    }


def _unfinished(out: Path) -> Path:
    """Where sparse models, and what interrupted runs go on from, are until all is done."""
    return out.with_name(f"{out.name}.unfinished")


def write_results(out: Path, stored: dict[str, Any], lines: Iterable[str]) -> None:
    """Write `out`.json and `out`.md, whatever dots the name has."""
    out.with_name(f"{out.name}.json").write_text(json.dumps(stored, indent=2) + "\n")
    out.with_name(f"{out.name}.md").write_text("\n".join(lines) + "\n")


def machine() -> dict[str, str]:
    """Where and when, and with which versions."""
    return {
        "date": datetime.date.today().isoformat(),
        "processor": _processor(),
        **({"device": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "numpy": numpy.__version__,
    }


def page(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The table, and what it was measured on."""
    yield from table(rows)
    yield ""
    seen = [{k: v for k, v in row["machine"].items() if k != "threads"} for row in rows]
    for machine_seen in dict.fromkeys(tuple(entry.items()) for entry in seen):
        yield "- " + ", ".join(f"{key} {value}" for key, value in machine_seen)


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A line a network, target and recipe; mean and spread over seeds."""
    yield (
        "| network | target | recipe | dense | sparse | drop, points | zeros too many "
        "| images seen | threads | minutes | GiB |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for key in dict.fromkeys(tuple(row[k] for k in KEYS) for row in rows):
        runs = [row for row in rows if tuple(row[k] for k in KEYS) == key]
        drops = [100 * (row["dense"] - row["sparse"]) for row in runs]
        spread = f" ± {stdev(drops):.2f} ({len(runs)} seeds)" if len(runs) > 1 else ""
        network, target, recipe = key
        threads = ", ".join(sorted({row["machine"]["threads"] for row in runs}))
        yield (
            f"| {network} | {target:.0%} | {recipe} | {runs[0]['dense']:.2%} "
            f"| {mean(row['sparse'] for row in runs):.2%} | {mean(drops):.2f}{spread} "
            f"| {max(abs(row['zeros'] - row['asked']) for row in runs)} "
            f"| {runs[0]['images']:,} | {threads} "
            f"| {mean(row['seconds'] for row in runs) / 60:.1f} "
            f"| {max(row['peak_mib'] for row in runs) / 1024:.1f} |"
        )


def _processor() -> str:
    capabilities = torch.cpu.get_capabilities()
    name = str(capabilities.get("cpu_name", platform.processor()))
    return f"{name}, amx_bf16 {bool(capabilities.get('amx_bf16', False))}"


if __name__ == "__main__":
    main()
