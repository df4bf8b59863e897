"""Time a training step of the twin against the same network written by hand in torch.

    python -m tools.bench_twin resnet32 resnet18 mobilenetv2 vit_b_16 --batch 8

Both compute the same loss in the same memory format and precision, in turns in one run; what counts
is the ratio of the medians. The network is exported with batch norm kept, as the module has it.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

import click
import torch
from torch import Tensor, nn

from fcpts_onnx.along import learned_along
from fcpts_onnx.model import load
from fcpts_onnx.twin import Twin
from fcpts_onnx.weights import find_weights
from tools.networks import NETWORKS, build


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(NETWORKS)), required=True)
@click.option("--batch", default=8, show_default=True)
@click.option("--turns", default=9, show_default=True)
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), default="float32")
def main(names: tuple[str, ...], batch: int, turns: int, precision: str) -> None:
    """Print seconds a step by hand and by the twin, their ratio, and seconds to build the twin."""
    click.echo("| network | by hand, s | twin, s | ratio | twin built in, s |")
    click.echo("|---|---|---|---|---|")
    for name in names:
        module = build(name).requires_grad_().to(memory_format=torch.channels_last)
        images = torch.randn(batch, 3, NETWORKS[name].size, NETWORKS[name].size)
        images = images.to(memory_format=torch.channels_last)
        start = time.monotonic()
        twin = twin_of(module, images)
        built = time.monotonic() - start
        steps = (by_hand(module, images), by_twin(twin, images))
        seconds = in_turns([under(step, precision) for step in steps], turns)
        hand, ours = (median(times) for times in seconds)
        click.echo(f"| {name} | {hand:.3f} | {ours:.3f} | {ours / hand:.2f} | {built:.2f} |")


def twin_of(module: nn.Module, images: Tensor) -> Twin:
    """The twin of an export with batch norm kept."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "network.onnx"
        torch.onnx.export(
            module, (images[:1].contiguous(),), str(path), dynamo=False, opset_version=20,
            input_names=["image"], output_names=["scores"], do_constant_folding=False,
            dynamic_axes={"image": {0: "N"}}, training=torch.onnx.TrainingMode.PRESERVE,
        )  # fmt: skip
        model = load(path)
        weights = find_weights(model)
        names = [weight.value for weight in weights] + learned_along(model, weights)
        twin = Twin(model, names)
    twin.prepare(torch.device("cpu"))
    return twin


def by_hand(module: nn.Module, images: Tensor) -> Callable[[], None]:
    """A step of the module: forward, loss, backward."""

    def step() -> None:
        module.zero_grad()
        module(images).float().square().mean().backward()

    return step


def by_twin(twin: Twin, images: Tensor) -> Callable[[], None]:
    """The same step of the twin."""

    def step() -> None:
        twin.zero_grad()
        twin({"image": images})["scores"].float().square().mean().backward()

    return step


def under(step: Callable[[], None], precision: str) -> Callable[[], None]:
    """The step in a precision."""

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            step()

    return run


def in_turns(steps: list[Callable[[], None]], turns: int) -> list[list[float]]:
    """Seconds of each, one after another, again and again; the first turn warms up."""
    times: list[list[float]] = [[] for _ in steps]
    for turn in range(turns + 1):
        for step, found in zip(steps, times, strict=True):
            start = time.monotonic()
            step()
            if turn:
                found.append(time.monotonic() - start)
    return times


if __name__ == "__main__":
    main()
