"""Try the paper's networks: what can be pruned, parity, time a step and memory.

    python -m tools.bench_networks resnet32 resnet18 --steps 3 --out tools/results/networks

Weights and images are random: this says whether a network can be pruned and at what cost, and
nothing of accuracy. Each network is built, exported and pruned to 50 % in a process of its own.
"""

from __future__ import annotations

import resource
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import numpy as np

import fcpts_onnx
from fcpts_onnx import FcptsError, Recipe
from tools.bench_accuracy import machine, write_results
from tools.networks import EXPORTERS, NETWORKS, build, export

TARGET = 0.5


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(NETWORKS)))
@click.option("--steps", default=3, show_default=True)
@click.option("--batch", default=8, show_default=True)
@click.option("--samples", default=16, show_default=True)
@click.option("--exporter", type=click.Choice(EXPORTERS), default="torchscript", show_default=True)
@click.option("--post-processing", is_flag=True, help="Of detectors; calibrated one by one.")
@click.option("--out", type=click.Path(path_type=Path), help="Without a suffix.")
def main(
    names: tuple[str, ...],
    steps: int,
    batch: int,
    samples: int,
    exporter: str,
    post_processing: bool,
    out: Path | None,
) -> None:
    """Prune each network for a few steps; all of them without NAMES."""
    recipe = replace(Recipe.load("default"), epochs=0.0, min_steps=steps, batch_size=batch)
    rows: list[dict[str, Any]] = []
    for name in names or NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            count = alone(prepare, name, scratch, samples, exporter, post_processing)
            row = {"network": name, "parameters": count, "exporter": exporter, "steps": steps}
            rows.append(row | alone(measure, scratch, recipe) | {"machine": machine()})
        click.echo(rows[-1])
        if out is not None:
            write_results(out, {"rows": rows}, table(rows))
    click.echo("\n".join(table(rows)))


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call in a process of its own: the peak of memory is one of a process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def prepare(name: str, folder: Path, samples: int, exporter: str, post_processing: bool) -> int:
    """Write dense.onnx and calib.npy; gives how many parameters the network has."""
    size = NETWORKS[name].size
    module = build(name)
    export(
        module,
        folder / "dense.onnx",
        size=size,
        exporter=exporter,
        post_processing=post_processing and "ssd" in name,
    )
    images = np.random.default_rng(0).normal(size=(samples, 3, size, size))
    np.save(folder / "calib.npy", images.astype(np.float32))
    return sum(parameter.numel() for parameter in module.parameters())


def measure(folder: Path, recipe: Recipe) -> dict[str, Any]:
    """Inspect and prune; where that is refused, why."""
    row: dict[str, Any] = {}
    try:
        row["prunable"] = fcpts_onnx.inspect(folder / "dense.onnx").prunable
        result = fcpts_onnx.prune(
            folder / "dense.onnx",
            folder / "sparse.onnx",
            target=TARGET,
            calib=folder / "calib.npy",
            recipe=recipe,
        )
    except FcptsError as error:
        return row | {"refused": reason(error).replace(f"{folder}/", "")}
    return row | {
        "parity": result.parity.error,
        "step_seconds": round(result.seconds["learn"] / recipe.min_steps, 2),
        "zeros": result.zeros,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def reason(error: FcptsError) -> str:
    """What is lacking where operators are, without the nodes; else the message."""
    lines = str(error).splitlines()
    titles = [line.strip().partition(": ")[0] for line in lines if line.startswith("  ")]
    return ("lacks " + "; ".join(titles)) if titles else " ".join(lines)


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A line a network, and what it was measured on."""
    yield (
        "| network | exporter | parameters | prunable weights | parity error | seconds a step "
        "| peak MiB |"
    )
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        start = f"| {row['network']} | {row['exporter']} | {row['parameters']:,} "
        start += f"| {row['prunable']:,} " if "prunable" in row else "| - "
        if "refused" in row:
            yield f"{start}| not yet: {row['refused']} | - | - |"
        else:
            yield f"{start}| {row['parity']:.1e} | {row['step_seconds']} | {row['peak_mib']} |"
    yield ""
    for seen in dict.fromkeys(tuple(row["machine"].items()) for row in rows):
        yield "- " + ", ".join(f"{key} {value}" for key, value in seen)


if __name__ == "__main__":
    main()
