"""Reproduce the paper's tables and figures by number, its values beside those measured.

\b
    python -m tools.reproduce --list
    python -m tools.reproduce table2 figure5 --cifar10 DIR \\
        --model cifar-10/ResNet-32=resnet32.onnx --out results/

ROWS are named table/dataset/network/method, or any part of that from the left. A data set is what
its publisher packs (CIFAR's Python version, VOCdevkit, COCO 2017, ImageNet from Kaggle; what has to
be unpacked is, once, to the folder data in --out), or a folder with calib or train, unlabelled
images, and val or test, a folder a class or a table val_labels.csv beside it; for detection,
Annotations or val_labels with a file for each image. --labels, or names.txt beside annotations,
says how classes are called, in order: where there is no folder for each, and where annotations have
other numbers than the detector. tools/detectors has that of COCO, and what the outputs of some
detectors mean. How pixels become inputs is --preprocess, which detectors need; others get
ImageNet's mean and deviation, and its own images the usual 256 pixels on their short side. A
network runs for the rows that list it; one that the paper does not have, and any for a figure or
Table 6, runs where that is named, without the paper's values. These stand beside this tool's own
way to learn (fcpts), and with --algorithm-1 beside the published one (fcpts-paper) too. Runs lie in
a folder a network, as `fcpts-onnx compare` keeps them, and go on where they were stopped;
reproduce.md, the tables and figures of a call, is written after each of these, and names the
networks that could not be used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

import fcpts_onnx
from fcpts_onnx import FcptsError
from tools.paper_networks import Network, given
from tools.paper_rows import MINUTES, Item, items, matching, named, names_any, needs
from tools.paper_tables import left_out, section


@click.command(help=__doc__)
@click.argument("rows", nargs=-1)
@click.option("--list", "listed", is_flag=True, help="Print every row and what it needs.")
@click.option("--cifar10", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--cifar100", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--imagenet", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--voc", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--coco", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--model", "models", multiple=True, metavar="DATASET/NETWORK=FILE")
@click.option("--preprocess", "presets", multiple=True, metavar="DATASET/NETWORK=PRESET")
@click.option("--detector", "detectors", multiple=True, metavar="DATASET/NETWORK=FILE.toml")
@click.option("--labels", "labels", multiple=True, metavar="DATASET=FILE")
@click.option("--samples", type=click.IntRange(1), default=10_000, show_default=True)
@click.option("--recipe", help="Instead of the own one of methods that learn in the same way.")
@click.option(
    "--algorithm-1",
    "published",
    is_flag=True,
    help="Rows of Algorithm 1 as published (fcpts-paper) too; they take hours.",
)
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False))
def main(
    rows: tuple[str, ...],
    listed: bool,
    published: bool,
    cifar10: Path | None,
    cifar100: Path | None,
    imagenet: Path | None,
    voc: Path | None,
    coco: Path | None,
    models: tuple[str, ...],
    presets: tuple[str, ...],
    detectors: tuple[str, ...],
    labels: tuple[str, ...],
    out: Path | None,
    **options: Any,
) -> None:
    known = items(published)
    unknown = [part for part in rows if not names_any(part, known)]
    if unknown:
        raise click.UsageError(f"no row begins with {', '.join(unknown)}; --list prints all.")
    if listed:
        for name, item in known.items():
            for row in matching(name, item.rows, rows):
                click.echo(f"{named(name, row):48} {needs(row)}")
        return
    if out is None:
        raise click.UsageError("say with --out where results shall lie.")
    folders = {
        "cifar-10": cifar10, "cifar-100": cifar100, "imagenet": imagenet, "voc": voc, "coco": coco,
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    networks = [*given(models, presets, detectors, labels, folders, out / "data")]
    strange = [f"{network.name} on {network.dataset}" for network in networks if not network.known]
    if strange and not rows:
        raise click.UsageError(
            f"the paper does not have {', '.join(strange)}: name the tables and figures to run."
        )
    text, reached, failed = list[str](), False, False
    for name, item in known.items():
        lines, reasons = tried(name, item, networks, rows, out, options)
        reached, failed = reached or bool(lines), failed or bool(reasons)
        for reason in reasons:
            lines += [f"Left out: {reason}", ""]
        lines += left_out(name, item, networks, rows)
        if lines:
            text += [f"## {name.capitalize()}: {item.shows}", "", *lines]
            (out / "reproduce.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    click.echo("\n".join(text))
    if failed and not reached:
        raise click.ClickException("No network could be used; the lines above say why.")


def tried(
    name: str,
    item: Item,
    networks: Sequence[Network],
    wanted: Sequence[str],
    out: Path,
    options: dict[str, Any],
) -> tuple[list[str], list[str]]:
    """What networks have in a table or figure, and why others have nothing."""
    lines, reasons = list[str](), list[str]()
    for network in networks:
        if methods := asked(name, item, network, wanted):
            try:
                lines += [*measured(item, network, methods, out, options)]
            except FcptsError as error:
                reasons.append(f"{network.name} on {network.dataset}: {error}")
    return lines, reasons


def asked(name: str, item: Item, network: Network, wanted: Sequence[str]) -> list[str]:
    """The methods to run on a network for a table or figure, "dense" for none.

    Where it is not listed, it runs only for what is named on the command line: figures of any
    network, and tables of its data set if it is listed nowhere.
    """
    rows = [row for row in item.rows if row[:2] == (network.dataset, network.name)]
    near = network.dataset in {dataset for dataset, _, _ in item.rows} and not network.known
    if not rows and wanted and (item.anywhere or near):
        methods = dict.fromkeys(method for _, _, method in item.rows)
        rows = [(network.dataset, network.name, method) for method in methods]
    return [method for _, _, method in matching(name, rows, wanted)]


def measured(
    item: Item, network: Network, methods: Sequence[str], out: Path, options: dict[str, Any]
) -> Iterator[str]:
    """What a network has in a table or figure, run as far as it was not yet.

    Raises:
        FcptsError: the network or its data cannot be used.
    """
    folder = out / f"{network.dataset}-{network.name}"
    if item.shows == MINUTES:  # times of one machine, one after another
        folder, options = folder.with_name(f"{folder.name}-timed"), {**options, "jobs": 1}
    found = fcpts_onnx.compare(
        network.file, methods=[method for method in methods if method != "dense"],
        targets=[target / 100 for target in item.targets_on(network.dataset)],
        preprocess=network.preprocess, out=folder, say=click.echo, **network.data, **options,
    )  # fmt: skip
    yield from section(item, network, found, folder)


if __name__ == "__main__":
    main()
