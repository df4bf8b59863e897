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
reproduce.md, the tables and figures of a call, is written after each of these.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any
from zlib import crc32

import click

import fcpts_onnx
from fcpts_onnx import FcptsError, Preprocess, inspect
from fcpts_onnx.preprocess import PRESETS
from fcpts_onnx.results import Comparison, Evaluation, Trial
from tools.datasets import DataSet, find

PAPER = Path(__file__).with_name("paper.csv")
NAMES = {
    "dense": "dense",
    "POT": "pot-l2norm",
    "POT (L2Norm)": "pot-l2norm",
    "POT(L2Norm)": "pot-l2norm",
    "POT (ERK)": "pot-erk",
    "POT(ERK)": "pot-erk",
    "STR": "str",
    "ProbMask": "probmask",
    "Ours": "fcpts",
}
PUBLISHED = "fcpts-paper"  # what the paper says that its own rows are
DEVICE = "cv22"
DETECTION = ("voc", "coco")
SCALED = PRESETS["imagenet"].overridden(resize=256)  # before 224 are cut from the centre
TIMED = 70  # per cent of zeros at which Table 6 is timed
BOTH = "top-1/top-5 %"
MINUTES = "minutes"
Row = tuple[str, str, str]
"""Data set, network and method."""


@dataclass
class Item:
    """A table or a figure: what is run for it, and what the paper has.

    Attributes:
        shows: what its cells are.
        anywhere: whether it can be made of networks on any data set.
        targets: shares of zeros in per cent, by data set.
        paper: its values by row and per cent of zeros; of figures it prints none.
    """

    shows: str
    anywhere: bool = False
    rows: list[Row] = field(default_factory=list)
    targets: dict[str, list[int]] = field(default_factory=dict)
    paper: dict[tuple[Row, int], str] = field(default_factory=dict)

    def add(self, row: Row, target: int, value: str = "") -> None:
        """Note a row, a target and perhaps the value there."""
        if row not in self.rows:
            self.rows.append(row)
        known = self.targets.setdefault(row[0], [])
        if target and target not in known:
            known.append(target)
            known.sort()
        if value:
            other = self.paper.get((row, target))
            self.paper[row, target] = f"{other}, {value}" if other else value

    def targets_on(self, dataset: str) -> list[int]:
        """The shares of zeros to run, of all data sets where there is none on this one."""
        every = {target for targets in self.targets.values() for target in targets}
        return self.targets.get(dataset) or sorted(every)


@dataclass(frozen=True)
class Network:
    """A network to run, and what it is run on.

    Attributes:
        known: whether there are rows of it.
    """

    dataset: str
    name: str
    known: bool
    file: Path
    data: dict[str, Path | None]
    preprocess: Preprocess | str


def items(published: bool = False) -> dict[str, Item]:
    """All tables and figures that need a run.

    Args:
        published: whether Algorithm 1 has rows beside those of this tool's own way.
    """
    found = {
        "table1": Item(BOTH), "table2": Item(BOTH), "table3": Item(BOTH), "table4": Item(BOTH),
        "table5": Item("mAP %"), "table6": Item(MINUTES, anywhere=True), "table7": Item(DEVICE),
        "figure1": Item(BOTH, anywhere=True), "figure4": Item(BOTH, anywhere=True),
        "figure5": Item("zeros by layer", anywhere=True),
    }  # fmt: skip
    with PAPER.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            network = line["model"].replace(" ", "-")
            row = (line["dataset"].lower(), network, NAMES[line["method"]])
            unit = f" {line['unit'].split()[0]}" if line["dataset"] == "CV22" else ""
            target = int(line["sparsity"] or TIMED)
            table = found[f"table{line['table']}"]
            table.add(row, target, line["value"] + unit)
            if published and line["method"] == "Ours":
                table.add((*row[:2], PUBLISHED), target, line["value"] + unit)
    pot, rates = ("pot-l2norm", "pot-erk"), ("fcpts-erk", "fcpts")
    trio = (*pot, "fcpts")
    for item, dataset, networks, methods, targets in (
        # Not the paper's: what there are trained files and labels of for everybody.
        ("table4", "cifar-10", ["ViT"], trio, [50, 60, 70]),
        ("table5", "coco", ["MobileNetV1-SSD", "YOLO-Fastest", "FastestDet"], trio, [70, 80, 90]),
        ("figure1", "imagenet", ["ResNet-50"], trio, [50, 60, 70, 80, 90]),
        ("figure4", "imagenet", ["ResNet-50", "RegNetX-400M", "MobileNetV2"], rates, [80, 90]),
        ("figure5", "imagenet", ["ResNet-18", "ResNet-50"], trio, [90]),
        ("figure5", "cifar-100", ["ResNet-32", "ResNet-56"], trio, [90]),
    ):
        for network, method, target in product(networks, methods, targets):
            found[item].add((dataset, network, method), target)
    return found


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
    text: list[str] = []
    for name, item in known.items():
        lines: list[str] = []
        for network in networks:
            if methods := asked(name, item, network, rows):
                lines += measured(item, network, methods, out, options)
        lines += left_out(name, item, networks, rows)
        if lines:
            text += [f"## {name.capitalize()}: {item.shows}", "", *lines]
            (out / "reproduce.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    click.echo("\n".join(text))


def measured(
    item: Item, network: Network, methods: Sequence[str], out: Path, options: dict[str, Any]
) -> Iterator[str]:
    """What a network has in a table or figure, run as far as it was not yet.

    Raises:
        ClickException: the network or its data cannot be used.
    """
    folder = out / f"{network.dataset}-{network.name}"
    if item.shows == MINUTES:  # times of one machine, one after another
        folder, options = folder.with_name(f"{folder.name}-timed"), {**options, "jobs": 1}
    try:
        found = fcpts_onnx.compare(
            network.file, methods=[method for method in methods if method != "dense"],
            targets=[target / 100 for target in item.targets_on(network.dataset)],
            preprocess=network.preprocess, out=folder, say=click.echo, **network.data, **options,
        )  # fmt: skip
    except FcptsError as error:
        raise click.ClickException(f"{network.name}: {error}") from error
    yield from section(item, network, found, folder)


def named(item: str, row: Row) -> str:
    """A row's name on the command line."""
    return "/".join((item, *row)).lower()


def names_any(part: str, known: Mapping[str, Item]) -> bool:
    """Whether a name on the command line is that of a row, of any network's where it fits."""
    table, _, rest = part.lower().partition("/")
    if table not in known or not known[table].anywhere:
        return table in known and any(matching(table, known[table].rows, [part]))
    _, _, network = rest.partition("/")
    _, _, method = network.partition("/")
    return not method or method in {name for _, _, name in known[table].rows}


def matching(item: str, rows: Iterable[Row], wanted: Sequence[str]) -> Iterator[Row]:
    """The rows that were asked for, all of them if none was."""
    starts = [f"{part.lower().rstrip('/')}/" for part in wanted] or [""]
    for row in rows:
        if any(f"{named(item, row)}/".startswith(start) for start in starts):
            yield row


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


def needs(row: Row) -> str:
    """What a user has to have for a row."""
    dataset, network, _ = row
    if dataset == DEVICE:
        return "an Ambarella CV22; not run here"
    given = f"--{dataset.replace('-', '')} DIR --model {dataset}/{network}=FILE"
    if dataset not in DETECTION:
        return given
    also = (f"--{option} {dataset}/{network}" for option in ("detector", "preprocess"))
    return f"{given} {'=FILE.toml '.join(also)}=PRESET"


def given(
    models: Sequence[str],
    presets: Sequence[str],
    detectors: Sequence[str],
    labels: Sequence[str],
    folders: Mapping[str, Path | None],
    unpacked: Path,
) -> Iterator[Network]:
    """The networks that the user has, each with its data.

    Raises:
        UsageError: one is not named as it should be, or its data set is not given.
    """
    preprocess, meanings = (dict(map(_pair, texts)) for texts in (presets, detectors))
    names = dict(map(_named_file, labels))
    keys = {_pair(text)[0] for text in models}
    if unused := sorted({*preprocess, *meanings} - keys):
        raise click.UsageError(f"{', '.join(unused)}: there is no --model of that name.")
    known = {row[:2] for item in items().values() for row in item.rows}
    spelt = {network.lower(): network for _, network in known}
    for text in models:
        key, file = _pair(text)
        dataset, _, name = key.partition("/")
        folder = folders.get(dataset)
        if folder is None:
            choices = ", ".join(f"--{name.replace('-', '')}" for name in folders)
            raise click.UsageError(f"{text}: no folder for {dataset!r}; give one of {choices}.")
        if not Path(file).is_file():
            raise click.UsageError(f"{text}: no such file.")
        if dataset in DETECTION and key not in meanings:
            raise click.UsageError(f"{text}: say with --detector {key}=FILE.toml what it says.")
        if dataset in DETECTION and key not in preprocess:
            raise click.UsageError(
                f"{text}: say with --preprocess {key}=PRESET how pixels become its inputs: one of "
                f"{', '.join(PRESETS)}, or a .toml file."
            )
        place = unpacked / f"{dataset}-{crc32(str(folder.resolve()).encode()):08x}"
        found = find(folder, place)
        data = as_compared(found, meanings.get(key), names.get(dataset))
        network = spelt.get(name, name)
        yield Network(
            dataset, network, (dataset, network) in known, Path(file), data,
            preprocess.get(key, SCALED if dataset == "imagenet" else "imagenet"),
        )  # fmt: skip


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or "/" not in key:
        raise click.UsageError(f"{text!r}: expected DATASET/NETWORK=..., as cifar-10/ResNet-32=...")
    return key.lower(), value


def _named_file(text: str) -> tuple[str, Path]:
    dataset, equals, file = text.partition("=")
    if not equals or not Path(file).is_file():
        raise click.UsageError(f"{text!r}: expected DATASET=FILE, as coco=tools/detectors/coco.txt")
    return dataset.lower(), Path(file)


def as_compared(
    found: DataSet, detector: str | None, labels: Path | None
) -> dict[str, Path | None]:
    """A data set as `compare` takes it, for a classifier or a detector."""
    images = {"calib": found.calib, "data": found.data}
    if detector is None:
        return {**images, "labels": labels or found.classes}
    return {
        **images, "labels": labels or found.names, "boxes": found.boxes, "detector": Path(detector)
    }  # fmt: skip


def section(item: Item, network: Network, found: Comparison, folder: Path) -> Iterator[str]:
    """What was measured on one network, beside what the paper has."""
    dense = item.paper.get(((network.dataset, network.name, "dense"), 0))
    yield f"{network.name} on {network.dataset}, dense {_accuracy(found.dense)}" + (
        f" (paper {dense}). The paper's values in brackets." if dense else "."
    )
    yield ""
    methods = dict.fromkeys(trial.method for trial in found.trials)
    if item.shows == "zeros by layer":
        yield from _by_layer([trial for trial in found.trials if trial.output], folder)
        return
    if not methods:
        return
    targets = item.targets_on(network.dataset)
    yield f"| | {' | '.join(f'{target} %' for target in targets)} |"
    yield f"|---{'|---' * len(targets)}|"
    for method in methods:
        row = (network.dataset, network.name, method)
        trials = {round(100 * t.target): t for t in found.trials if t.method == method}
        cells = (
            _cell(item, trials.get(target), item.paper.get((row, target))) for target in targets
        )
        yield f"| {method} | {' | '.join(cells)} |"
    yield ""
    if item.shows == MINUTES and (ratio := _ratio(found.trials)) is not None:
        yield f"Layer-wise (pot-l2norm) takes {ratio:.2f} times as long as net-wise (fcpts)."
        yield ""


def _ratio(trials: Iterable[Trial]) -> float | None:
    """How many times as long as net-wise learning layer-wise least squares take."""
    seconds = {trial.method: trial.seconds for trial in trials if trial.output}
    if not {"pot-l2norm", "fcpts"} <= seconds.keys():
        return None
    return seconds["pot-l2norm"] / seconds["fcpts"]


def _cell(item: Item, trial: Trial | None, paper: str | None) -> str:
    if trial is None:
        measured = "not run"
    elif trial.note:
        measured = f"{_accuracy(trial)}, {trial.note}" if trial.output else trial.note
    else:
        measured = f"{trial.seconds / 60:.1f}" if item.shows == MINUTES else _accuracy(trial)
    return f"{measured} ({paper})" if paper else measured


def _accuracy(found: Trial | Evaluation | None) -> str:
    if found is None or not found.scores:
        return "not measured"
    return "/".join(f"{100 * score:.2f}" for score in found.scores.values())


def _by_layer(trials: Sequence[Trial], folder: Path) -> Iterator[str]:
    """The share of zeros of each layer, in the order of the graph."""
    rates = {
        trial.method: {w.name: w.zeros / w.count for w in inspect(folder / trial.output).weights}
        for trial in trials if trial.output
    }  # fmt: skip
    yield f"| layer | {' | '.join(rates)} |"
    yield f"|---{'|---:' * len(rates)}|"
    for layer in next(iter(rates.values()), {}):
        yield f"| {layer} | {' | '.join(f'{found[layer]:.1%}' for found in rates.values())} |"
    yield ""


def left_out(
    name: str, item: Item, networks: Sequence[Network], wanted: Sequence[str]
) -> Iterator[str]:
    """The paper's rows that nothing was given for."""
    there = {(network.dataset, network.name) for network in networks}
    rows = [row for row in matching(name, item.rows, wanted) if row[:2] not in there]
    if rows:
        names = dict.fromkeys(f"{network} on {dataset}" for dataset, network, _ in rows)
        reason = "it takes a CV22" if item.shows == DEVICE else "no file or data was given"
        yield f"Left out, since {reason}: {', '.join(names)}."
        yield ""


if __name__ == "__main__":
    main()
