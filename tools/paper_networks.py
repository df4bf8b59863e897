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
