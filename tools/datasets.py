"""Data sets as their publishers pack them, as `fcpts_onnx.compare` takes them."""

from __future__ import annotations

import csv
import json
import pickle
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import click
import numpy as np
from PIL import Image

_SIDE = 32  # of CIFAR's images
_MADE_OF = "made_of.txt"  # what an unpacked folder was made of
_OF_ARRAYS = {
    ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode"),
}  # fmt: skip


@dataclass(frozen=True)
class DataSet:
    """Where a data set keeps what.

    Attributes:
        calib: images to calibrate with.
        data: images to measure on.
        classes: a table of their classes; None where they lie in a folder each.
        boxes: annotations, a file for each image.
        names: what the numbers in these stand for.
    """

    calib: Path
    data: Path
    classes: Path | None = None
    boxes: Path | None = None
    names: Path | None = None


def find(folder: Path, unpacked: Path) -> DataSet:
    """A data set in a folder.

    Args:
        unpacked: where to write what its publisher packed in another way, once.

    Raises:
        UsageError: it is none that is known, or its files are not as they should be.
    """
    for layout in (_plain, _cifar, _voc, _coco, _imagenet):
        try:
            if (found := layout(folder, unpacked)) is not None:
                return found
        except (OSError, ValueError, LookupError, EOFError, pickle.UnpicklingError) as error:
            raise click.UsageError(f"{folder}: cannot be read as a data set: {error}") from error
    raise click.UsageError(
        f"{folder}: expected calib or train, and val or test, in it, or what the publishers of "
        "CIFAR (Python version), VOC, COCO or ImageNet (Kaggle) pack."
    )


def _plain(folder: Path, unpacked: Path) -> DataSet | None:
    """Folders of images, with a table of classes or annotations beside them."""
    del unpacked  # it is taken as it is
    calib, data = _first(folder, "calib", "train"), _first(folder, "val", "test")
    if calib is None or data is None or not calib.is_dir() or not data.is_dir():
        return None
    boxes = _first(folder, "Annotations", "val_labels")
    return DataSet(
        calib, data, _first(folder, "val_labels.csv"), boxes, _first(folder, "names.txt")
    )


def _cifar(folder: Path, unpacked: Path) -> DataSet | None:
    """CIFAR-10 and -100 as pickled batches."""
    batches = [f"data_batch_{number}" for number in range(1, 6)]
    for name, train, test, labels in (
        ("cifar-10-batches-py", batches, "test_batch", b"labels"),
        ("cifar-100-python", ["train"], "test", b"fine_labels"),
    ):
        for place in (folder, folder / name):
            if all((place / file).is_file() for file in (*train, test)):
                return _cifar_from([place / file for file in train], place / test, labels, unpacked)
    return None


def _cifar_from(train: Sequence[Path], test: Path, labels: bytes, unpacked: Path) -> DataSet:
    def write(place: Path) -> None:
        images = (image for file in train for image in _batch(file)[b"data"])
        _save_images(images, place / "calib")
        measured = _batch(test)
        names = _save_images(measured[b"data"], place / "val")
        _save_table(zip(names, measured[labels], strict=True), place / "val_labels.csv")

    place = _once(unpacked, [*train, test], write)
    return DataSet(place / "calib", place / "val", place / "val_labels.csv")


class _Arrays(pickle.Unpickler):
    """Takes arrays and texts alone: a pickle may name any function to be called."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _OF_ARRAYS:
            raise pickle.UnpicklingError(f"it calls {module}.{name}")
        return super().find_class(module, name)


def _batch(file: Path) -> Mapping[bytes, Any]:
    with file.open("rb") as stream:
        found: Mapping[bytes, Any] = _Arrays(stream, encoding="bytes").load()
    return found


def _save_images(rows: Iterable[np.ndarray[Any, Any]], folder: Path) -> list[str]:
    """Images, each given channel by channel, as files; their names."""
    folder.mkdir()
    names = []
    for place, row in enumerate(rows):
        names.append(f"{place:05}.png")
        pixels = np.reshape(row, (3, _SIDE, _SIDE)).transpose(1, 2, 0)
        Image.fromarray(np.ascontiguousarray(pixels)).save(folder / names[-1], compress_level=1)
    return names


def _voc(folder: Path, unpacked: Path) -> DataSet | None:
    """PASCAL VOC of one or more years: all that may be trained on, and the tests that are there."""
    root = folder / "VOCdevkit" if (folder / "VOCdevkit").is_dir() else folder
    years = [y for y in (root, *sorted(root.glob("VOC2*"))) if (y / "ImageSets" / "Main").is_dir()]
    if not years:
        return None
    tested = [year for year in years if _set_file(year, "test").is_file()]
    train, test = ("trainval", "test") if tested else ("train", "val")

    def write(place: Path) -> None:
        for year in years:
            _link(_pictures(year, train), place / "calib")
        for year in tested or years:
            pictures = [*_pictures(year, test)]
            _link(pictures, place / "val")
            boxes = (year / "Annotations" / f"{picture.stem}.xml" for picture in pictures)
            _link(boxes, place / "Annotations")

    lists = [_set_file(year, train) for year in years]
    lists += [_set_file(year, test) for year in tested or years]
    place = _once(unpacked, lists, write)
    return DataSet(place / "calib", place / "val", boxes=place / "Annotations")


def _set_file(year: Path, name: str) -> Path:
    return year / "ImageSets" / "Main" / f"{name}.txt"


def _pictures(year: Path, name: str) -> Iterator[Path]:
    for line in _set_file(year, name).read_text("utf-8").splitlines():
        if line:
            yield year / "JPEGImages" / f"{line.split()[0]}.jpg"


def _coco(folder: Path, unpacked: Path) -> DataSet | None:
    """COCO of 2017. Images without a box are left out, crowds count as difficult."""
    calib = _first(folder, "train2017", "unlabeled2017", "test2017")
    table = folder / "annotations" / "instances_val2017.json"
    if calib is None or not table.is_file():
        return None

    def write(place: Path) -> None:
        known = json.loads(table.read_text("utf-8"))
        names = {category["id"]: category["name"] for category in known["categories"]}
        objects = defaultdict(list)
        for box in known["annotations"]:
            objects[box["image_id"]].append(box)
        shown = [image for image in known["images"] if image["id"] in objects]
        _link((folder / "val2017" / image["file_name"] for image in shown), place / "val")
        (place / "Annotations").mkdir()
        for image in shown:
            annotation = _as_voc(image, objects[image["id"]], names)
            annotation.write(place / "Annotations" / f"{Path(image['file_name']).stem}.xml")

    place = _once(unpacked, [table], write)
    return DataSet(calib, place / "val", boxes=place / "Annotations")


def _as_voc(
    image: Mapping[str, Any], objects: Iterable[Mapping[str, Any]], names: Mapping[int, str]
) -> ElementTree.ElementTree[ElementTree.Element]:
    """VOC's annotation of an image: pixels count from 1 there, and the last is the box's."""
    root = ElementTree.Element("annotation")
    _add(ElementTree.SubElement(root, "size"), width=image["width"], height=image["height"])
    for found in objects:
        part = ElementTree.SubElement(root, "object")
        _add(part, name=names[found["category_id"]], difficult=found["iscrowd"])
        left, top, width, height = found["bbox"]
        _add(
            ElementTree.SubElement(part, "bndbox"), xmin=left + 1, ymin=top + 1,
            xmax=left + width, ymax=top + height,
        )  # fmt: skip
    return ElementTree.ElementTree(root)


def _add(element: ElementTree.Element, **texts: Any) -> None:
    for name, text in texts.items():
        ElementTree.SubElement(element, name).text = str(text)


def _imagenet(folder: Path, unpacked: Path) -> DataSet | None:
    """ImageNet as Kaggle has it: classes in the order of their synsets' names."""
    images, table = folder / "ILSVRC" / "Data" / "CLS-LOC", folder / "LOC_val_solution.csv"
    if not (images / "train").is_dir() or not table.is_file():
        return None

    def write(place: Path) -> None:
        synsets = sorted(entry.name for entry in (images / "train").iterdir() if entry.is_dir())
        places = {name: place for place, name in enumerate(synsets)}
        with table.open(encoding="utf-8", newline="") as file:
            rows = [*csv.DictReader(file)]
        labels = ((f"{r['ImageId']}.JPEG", places[r["PredictionString"].split()[0]]) for r in rows)
        _save_table(labels, place / "val_labels.csv")

    place = _once(unpacked, [table], write)
    return DataSet(images / "train", images / "val", place / "val_labels.csv")


def _once(folder: Path, sources: Iterable[Path], write: Callable[[Path], None]) -> Path:
    """A folder that is there whole, or not at all; anew where it was made of other files."""
    made_of = "\n".join(map(_known_by, sources))
    record = folder / _MADE_OF
    if not record.is_file() or record.read_text("utf-8") != made_of:
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        write(part)
        (part / _MADE_OF).write_text(made_of, "utf-8")
        if folder.is_dir():
            shutil.rmtree(folder)
        part.rename(folder)
    return folder


def _known_by(file: Path) -> str:
    """A line that is another one where a file is."""
    found = file.stat()
    return f"{file.resolve()} {found.st_size} {found.st_mtime_ns}"


def _link(files: Iterable[Path], folder: Path) -> None:
    """Files in a folder; copies of them where the system does not let anybody link.

    Of several of one name, as years of VOC share images, the last one stays.
    """
    folder.mkdir(exist_ok=True)
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"{file} is not there")
        place = folder / file.name
        place.unlink(missing_ok=True)  # copying would write to where a link leads
        try:
            place.symlink_to(file.resolve())
        except OSError:
            shutil.copyfile(file, place)


def _save_table(rows: Iterable[tuple[str, int]], file: Path) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("file", "label"), *rows])


def _first(folder: Path, *names: str) -> Path | None:
    """What there is first of these."""
    return next((folder / name for name in names if (folder / name).exists()), None)
