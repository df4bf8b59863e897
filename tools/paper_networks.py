"""The networks that a user has for the paper's rows, each with its data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import click

from fcpts_onnx import Preprocess
from fcpts_onnx.preprocess import PRESETS
from tools.datasets import DataSet, find
from tools.paper_rows import DETECTION, items

SCALED = PRESETS["imagenet"].overridden(resize=256)  # before 224 are cut from the centre


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
    preprocess, meanings = _by_name("--preprocess", presets), _by_name("--detector", detectors)
    names, files = _named_files(labels), _by_name("--model", models)
    if unused := sorted({*preprocess, *meanings} - files.keys()):
        raise click.UsageError(f"{', '.join(unused)}: there is no --model of that name.")
    if unused := sorted(names.keys() - {key.partition("/")[0] for key in files}):
        raise click.UsageError(f"--labels {', '.join(unused)}: there is no --model on that data.")
    known = {row[:2] for item in items().values() for row in item.rows}
    spelt = {network.lower(): network for _, network in known}
    for key, file in files.items():
        text = f"{key}={file}"
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


def _by_name(option: str, texts: Sequence[str]) -> dict[str, str]:
    """What an option says of each network, by the name of that."""
    expected = "DATASET/NETWORK=..., as cifar-10/ResNet-32=..."
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or "/" not in key:
            raise click.UsageError(f"{text!r}: expected {expected}")
        if key.lower() in found:
            raise click.UsageError(f"{key}: has more than one {option}.")
        found[key.lower()] = value
    return found


def _named_files(texts: Sequence[str]) -> dict[str, Path]:
    """Lists of classes, by the name of their data set."""
    found: dict[str, Path] = {}
    for text in texts:
        dataset, equals, file = text.partition("=")
        if not equals or not Path(file).is_file():
            raise click.UsageError(
                f"{text!r}: expected DATASET=FILE, as coco=tools/detectors/coco.txt"
            )
        if dataset.lower() in found:
            raise click.UsageError(f"{dataset}: has more than one --labels.")
        found[dataset.lower()] = Path(file)
    return found


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
