"""MEASURE: how long a dense and a sparse model take on the engines at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np

from fcpts_onnx.errors import OutputError
from fcpts_onnx.evaluate.runner import Runner, random_input
from fcpts_onnx.evaluate.worker import BURST
from fcpts_onnx.model import Model
from fcpts_onnx.results import Latency, Timing
from fcpts_onnx.runtime import Arrays

__all__ = ["measure_latency"]


def measure_latency(
    dense: Model,
    sparse: Model,
    engines: Sequence[str],
    *,
    runs: int,
    threads: int,
    size: tuple[int, int] | None = None,
    report: Callable[[int, int], None],
) -> Latency:
    """Time two models on several engines, all in turns, each in a process of its own.

    In turns, what else the machine does falls on all alike. Each turn begins with a run that is
    not counted. Inputs are random, the same for all; outputs are held against onnxruntime's.

    Args:
        engines: names of `engines.ENGINES`.
        runs: how often each is timed.
        size: height and width of images, where the graph leaves them open.
        report: told how many turns of how many are over.

    Raises:
        FcptsError: the graph leaves an input's shape open.
        OutputError: the two models have different inputs.
    """
    shapes = [[(spec.name, spec.shape, spec.dtype) for spec in m.inputs] for m in (dense, sparse)]
    if shapes[0] != shapes[1]:
        raise OutputError(f"{sparse.path}: has other inputs than {dense.path}.")
    inputs = {spec.name: random_input(spec, size) for spec in dense.inputs}
    with ExitStack() as stack:
        runners = [
            Runner(stack, engine, which, model.path, inputs, threads)
            for engine in dict.fromkeys(("ort", *engines))
            for which, model in (("dense", dense), ("sparse", sparse))
        ]
        oracle = {r.which: r.outputs for r in runners if r.engine == "ort"}
        timed = [runner for runner in runners if runner.engine in engines]
        turns = -(-runs // BURST)
        for turn in range(turns):
            for runner in timed:
                runner.take_turn()
            report(turn + 1, turns)
        timings = tuple(_timing(runner, oracle[runner.which]) for runner in timed)
    return Latency(
        str(dense.path),
        str(sparse.path),
        {name: list(value.shape) for name, value in inputs.items()},
        threads,
        turns * BURST,
        timings,
    )


def _timing(runner: Runner, oracle: Arrays | None) -> Timing:
    layers = runner.layers()
    problem = runner.error
    apart = None
    if oracle is not None and runner.outputs is not None:
        apart = _apart(runner.outputs, oracle)
        if apart is None:
            problem = problem or "its outputs are not of onnxruntime's shapes, or not its numbers"
    if problem is not None:
        return Timing(runner.engine, runner.which, error=problem)
    low, middle, high = np.percentile([1000 * s for s in runner.seconds], (25, 50, 75))
    return Timing(
        runner.engine, runner.which, float(middle), (float(low), float(high)), runner.bytes,
        1000 * runner.loading, apart, layers,
    )  # fmt: skip


def _apart(found: Arrays, oracle: Arrays) -> float | None:
    """The worst difference of any output, relative to the largest value of that output.

    None where an output is missing, has another shape, or is no number where the oracle's is one.
    """
    worst = 0.0
    for name, expected in oracle.items():
        if name not in found or found[name].size != expected.size:
            return None
        here, there = (values.reshape(-1).astype(np.float64) for values in (found[name], expected))
        finite = np.isfinite(there)
        if not np.array_equal(here[~finite], there[~finite], equal_nan=True):
            return None
        difference = np.abs(here[finite] - there[finite])
        if not np.isfinite(difference).all():
            return None
        scale = float(np.abs(there[finite]).max(initial=0.0)) or 1.0
        worst = max(worst, float(difference.max(initial=0.0)) / scale)
    return worst
