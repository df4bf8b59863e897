"""Write one of the paper's networks as an ONNX file.

    python -m tools.networks resnet18 resnet18.onnx --state resnet18.pth

`python -m tools.networks --help` lists the names.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch

from tools.networks import EXPORTERS, NETWORKS, build, export

FILE = click.Path(path_type=Path, dir_okay=False)
STATE = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.command()
@click.argument("name", type=click.Choice(list(NETWORKS)))
@click.argument("output", type=FILE)
@click.option("--state", type=STATE, help="Weights saved by torch; random without.")
@click.option("--exporter", type=click.Choice(EXPORTERS), default="torchscript", show_default=True)
@click.option("--opset", type=int, default=18, show_default=True)
@click.option("--post-processing", is_flag=True, help="Of detectors: decoding, softmax and NMS.")
def main(
    name: str,
    output: Path,
    state: Path | None,
    exporter: str,
    opset: int,
    post_processing: bool,
) -> None:
    """Write one of the paper's networks as an ONNX file."""
    if post_processing and "ssd" not in name:
        raise click.UsageError(f"--post-processing: {name} is no detector.")
    weights = None
    if state is not None:
        weights = torch.load(state, map_location="cpu", weights_only=True)
        weights = weights.get("state_dict", weights)
    try:
        module = build(name, weights)
    except ValueError as error:
        raise click.ClickException(f"{state}: {error}") from error
    export(
        module,
        output,
        size=NETWORKS[name].size,
        exporter=exporter,
        opset=opset,
        post_processing=post_processing,
    )


if __name__ == "__main__":
    main(prog_name="python -m tools.networks")
