"""Measure what zeros save: latency on engines, sizes, and the estimate for a chip.

    python -m tools.bench_latency resnet18 mobilenetv2 my.onnx --out tools/results/latency

A name is one of `tools.networks`, with random weights, which serve for time; a file is taken as it
is. Each is pruned by magnitude, every layer alike, to shares of zeros, and timed beside the dense
one. Writes JSON and Markdown.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy

import fcpts_onnx
from fcpts_onnx.model import load
from tools.bench_accuracy import machine, write_results
from tools.networks import NETWORKS, build, export

TARGETS = (0.5, 0.7, 0.8, 0.9)
ENGINES = ("ort", "mnn", "mnn-sparse")
CHIP = "cv22"


@click.command()
@click.argument("networks", nargs=-1, required=True)
@click.option("--runs", default=60, show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Without a suffix.")
def main(networks: tuple[str, ...], runs: int, threads: int, out: Path) -> None:
    """Prune each network to several shares of zeros and time it on every engine."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for network in networks:
            dense = Path(network)
            if network in NETWORKS:
                dense = Path(scratch) / f"{network}.onnx"
                export(build(network), dense, size=NETWORKS[network].size)
            for target in TARGETS:
                rows.append(measure(dense, target, runs, threads, Path(scratch)))
                click.echo(rows[-1])
                stored = {"machine": machine(), "threads": threads, "rows": rows}
                write_results(out, stored, page(stored))
    click.echo("\n".join(page(stored)))


def measure(dense: Path, target: float, runs: int, threads: int, scratch: Path) -> dict[str, Any]:
    """One network at one share of zeros, next to the dense one."""
    sparse, stored = scratch / "sparse.onnx", scratch / "stored.onnx"
    model = load(dense)
    shapes = {spec.name: [4, *(size or 1 for size in spec.shape[1:])] for spec in model.inputs}
    data = {name: numpy.random.default_rng(0).normal(size=shape) for name, shape in shapes.items()}
    data = {name: values.astype(numpy.float32) for name, values in data.items()}
    for file, storage in ((sparse, "dense"), (stored, "sparse")):
        fcpts_onnx.prune(
            dense, file, target=target, calib=data, allocate="uniform", reconstruct="none",
            storage=storage,
        )  # fmt: skip
    loaded = fcpts_onnx.bench(dense, stored, engines=("ort",), runs=runs, threads=threads)
    latency = fcpts_onnx.bench(dense, sparse, engines=ENGINES, runs=runs, threads=threads)
    found = fcpts_onnx.inspect(sparse, hardware=CHIP, sizes=True)
    return {
        "network": dense.stem,
        "target": target,
        "milliseconds": {
            engine: {t.model: t.milliseconds for t in latency.timings if t.engine == engine}
            for engine in ENGINES
        },
        "bytes": {
            engine: {t.model: t.bytes for t in latency.timings if t.engine == engine}
            for engine in ENGINES
        },
        "stored": {t.model: [t.bytes, t.loading] for t in loaded.timings},
        "apart": max((t.apart for t in latency.timings if t.apart is not None), default=None),
        "errors": {f"{t.engine}, {t.model}": t.error for t in latency.timings if t.error},
        "sizes": {size.name: [size.float32, size.float16, size.int8] for size in found.sizes},
        "estimate": found.estimate.time,
    }


def page(stored: dict[str, Any]) -> Iterator[str]:
    """Latency, then sizes, a line a network and share of zeros."""
    yield (
        "| network | zeros | onnxruntime, ms: dense, sparse | MNN | MNN, sparse kernels "
        "| MNN's file, MB: dense, sparse | CV22, estimate |"
    )
    yield "|---|---|---|---|---|---|---|"
    for row in stored["rows"]:
        times = " | ".join(
            ", ".join("-" if one[m] is None else f"{one[m]:.2f}" for m in ("dense", "sparse"))
            for one in row["milliseconds"].values()
        )
        dense, sparse = (
            row["bytes"][e][m] / 1e6 for e, m in (("mnn", "dense"), ("mnn-sparse", "sparse"))
        )
        yield (
            f"| {row['network']} | {row['target']:.0%} | {times} | {dense:.2f}, {sparse:.2f} "
            f"| {row['estimate']:.2f} |"
        )
    yield ""
    yield "Pruned weights in MB as float32, float16 and int8:"
    yield ""
    names = list(stored["rows"][0]["sizes"])
    yield f"| network | zeros | {' | '.join(names)} |"
    yield "|---" * (2 + len(names)) + "|"
    for row in stored["rows"]:
        cells = (", ".join(f"{b / 1e6:.2f}" for b in row["sizes"][name]) for name in names)
        yield f"| {row['network']} | {row['target']:.0%} | {' | '.join(cells)} |"
    yield ""
    yield "The ONNX file with dense and with sparse initializers, loaded by onnxruntime:"
    yield ""
    yield "| network | zeros | MB: dense, sparse | load, ms: dense, sparse |"
    yield "|---|---|---|---|"
    for row in stored["rows"]:
        both = [row["stored"][which] for which in ("dense", "sparse")]
        sizes = ", ".join(f"{count / 1e6:.2f}" for count, _ in both)
        times = ", ".join(f"{milliseconds:.1f}" for _, milliseconds in both)
        yield f"| {row['network']} | {row['target']:.0%} | {sizes} | {times} |"
    yield ""
    yield f"- {stored['threads']} thread(s) an engine, batches of 1; medians, in turns"
    yield "- " + ", ".join(f"{key} {value}" for key, value in stored["machine"].items())


if __name__ == "__main__":
    main()
