"""MEASURE: how long each layer takes on an engine that skips zeros, by the share of zeros."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from fcpts_onnx.errors import ModelError
from fcpts_onnx.evaluate.runner import Runner, random_input
from fcpts_onnx.model import Model
from fcpts_onnx.weights import Weight, nodes_by_label
from fcpts_onnx.write import save

__all__ = ["SHARES", "probe"]

SHARES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Of zeros, in every layer alike, by size."""

_TURNS = 3
_OF_PRODUCTS = "__matmul_converted"  # what MNN adds to the name of a product of matrices


def probe(
    model: Model, weights: Sequence[Weight], size: tuple[int, int] | None = None
) -> dict[str, dict[float, float]]:
    """Milliseconds of each weight's layer in MNN, by share of zeros; one thread, a batch of 1.

    At no zeros these are MNN's own dense kernels, else those it takes when told to look for
    sparse layers. Layers that MNN has made one with others under another name are left out.

    Args:
        size: height and width of images, where the graph leaves them open.

    Raises:
        ModelError: MNN does not take the model.
    """
    inputs = {spec.name: random_input(spec, size) for spec in model.inputs}
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        runners = {}
        for share in SHARES:
            file = Path(scratch) / f"{share}.onnx"
            save(model, dict(_pruned(model, weights, share)), file, file.parent)
            engine = "mnn-sparse" if share else "mnn"
            runners[share] = Runner(stack, engine, str(share), file, inputs, threads=1)
        turns = [
            {share: runner.layers() for share, runner in runners.items()} for _ in range(_TURNS)
        ]
        if error := next((runner.error for runner in runners.values() if runner.error), None):
            raise ModelError(f"{model.path}: cannot be probed: {error}")
    nodes = nodes_by_label(model)
    found = {}
    for weight in weights:
        name = _layer_name(nodes.get(weight.nodes[0]), turns[0][0.0])
        if name is not None:
            # The least of the turns: what else the machine does only ever adds to a time.
            found[weight.name] = {s: min(turn[s][name] for turn in turns) for s in SHARES}
    return found


def _pruned(
    model: Model, weights: Sequence[Weight], share: float
) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Float weights with their smallest values zero."""
    for weight in weights:
        zeros = round(share * weight.count)
        if weight.grid is None and zeros:
            values = np.array(model.array(weight.name), np.float32)
            smallest = np.abs(values).argpartition(zeros - 1, axis=None)[:zeros]
            values.reshape(-1)[smallest] = 0
            yield weight.name, values


def _layer_name(node: gs.Node | None, layers: dict[str, float]) -> str | None:
    """What MNN calls a node: by what it gives, or by the sum right behind it."""
    for _ in range(2):
        if node is None:
            return None
        output = node.outputs[0]
        for name in (output.name, f"{output.name}{_OF_PRODUCTS}"):
            if name in layers:
                return name
        node = output.outputs[0] if len(output.outputs) == 1 else None
    return None
