"""Run by test_engine.py where onnxruntime-training is: how far its gradients are from torch's.

    python -m tests.ort_training.engine_gradients MODEL BATCH_SIZE

prints the relative errors of outputs and gradients, and the seconds of a step, as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fcpts_onnx.along import learned_along
from fcpts_onnx.model import Model, load
from fcpts_onnx.ops.dtypes import to_torch
from fcpts_onnx.ort_training.engine import OrtEngine
from fcpts_onnx.twin import Twin
from fcpts_onnx.weights import find_weights
from tests.networks import values

STEPS = 5
# Where a Relu is within rounding of its kink, either gradient is right: the best batch counts.
BATCHES = 3


def samples(model: Model, count: int, seed: int) -> dict[str, Tensor]:
    """Random inputs."""
    return {
        spec.name: torch.from_numpy(values(count, *spec.shape[1:], seed=seed, scale=1.0)).to(
            to_torch(values(1).astype(spec.dtype)).dtype
        )
        for spec in model.inputs
    }


def gradients(
    network: Callable[..., dict[str, Tensor]],
    batch: dict[str, Tensor],
    twin: Twin,
    weights: dict[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The outputs and the gradients of weights and of what is learned along."""
    twin.zero_grad()
    leaves = {name: value.clone().requires_grad_() for name, value in weights.items()}
    outputs = network(batch, leaves)
    parts = [
        (value * torch.from_numpy(values(*value.shape, seed=place))).sum()
        for place, value in enumerate(outputs.values())
    ]
    torch.stack(parts).sum().backward()
    along = {name: value for name, value in twin.learned.items() if name not in leaves}
    found = {name: value.grad for name, value in (leaves | along).items()}
    return (
        {name: value.detach() for name, value in outputs.items()},
        {name: value.clone() for name, value in found.items() if value is not None},
    )


def error(expected: dict[str, Tensor], found: dict[str, Tensor]) -> float:
    """The largest difference of a tensor, relative to its largest value.

    Some gradients are zero but for rounding, as that of a bias on all keys of an attention; they
    count relative to a thousandth of the largest of all.
    """
    assert expected.keys() == found.keys(), expected.keys() ^ found.keys()
    sizes = {name: float(value.abs().max()) for name, value in expected.items()}
    least = max(sizes.values()) / 1000
    return max(
        float((found[name] - value).abs().max()) / max(sizes[name], least)
        for name, value in expected.items()
    )


def seconds(step: Callable[[], Any]) -> float:
    """Of the fastest of some runs."""
    times = []
    for _ in range(STEPS):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return min(times)


def main(path: str, size: str) -> None:
    """Compare the two and print what was found."""
    torch.set_num_threads(1)
    model = load(Path(path))
    weights = find_weights(model)
    twin = Twin(model, [weight.value for weight in weights] + learned_along(model, weights))
    batches = [samples(model, int(size), seed) for seed in range(BATCHES)]
    batch = batches[0]
    engine = OrtEngine(twin, batch, threads=1)
    # Half of the weights zero, as in learning: they are replaced and no parameters.
    sparse = {w.value: twin.learned[w.value].detach() for w in weights}
    sparse = {n: torch.where(v.abs() < v.abs().median(), 0.0, v) for n, v in sparse.items()}
    expected = [gradients(twin, one, twin, sparse) for one in batches]
    found = [gradients(engine, one, twin, sparse) for one in batches]
    pairs = list(zip(expected, found, strict=True))
    result = {
        "outputs": max(error(one[0], other[0]) for one, other in pairs),
        "gradients": min(error(one[1], other[1]) for one, other in pairs),
        "tensors": len(found[0][1]),
        "torch": seconds(lambda: gradients(twin, batch, twin, sparse)),
        "ort": seconds(lambda: gradients(engine, batch, twin, sparse)),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
