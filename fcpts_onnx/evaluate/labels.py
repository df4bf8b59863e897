"""MEASURE: which class each image shows, by its folder or by a list."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fcpts_onnx.errors import CalibrationError
from fcpts_onnx.files import read_text
from fcpts_onnx.sources import find_images
from fcpts_onnx.texts import shortened

__all__ = ["Labelled", "class_names", "labelled_images", "listed_names"]

_HEADER = ["file", "label"]
_NAMED = 5  # of many that are wrong
_DIGITS = 18  # at most, of an integer of 64 bits


@dataclass(frozen=True)
class Labelled:
    """Images and their classes.

    Attributes:
        source: the file or folder that says so.
        places: the class of each image, as a place from 0 on.
        classes: how many there are, also such that no image shows.
        names_all: whether the source names every class; a table has only those of its images.
    """

    source: Path
    places: Mapping[Path, int]
    classes: int
    names_all: bool


def labelled_images(folder: Path, labels: Path | None = None) -> Labelled:
    """Images with their classes.

    Args:
        folder: one folder a class, named after it, images in it and below; with a .csv any folder.
        labels: a text file with one class name a line, in the order of the model's scores, by
            default the folders' names, sorted; or a .csv with the columns file and label, the
            class as a place from 0 on.

    Raises:
        CalibrationError: there are no images, folders of two classes or labels, or some are wrong.
    """
    if labels is not None and labels.suffix.lower() == ".csv":
        return _from_table(folder, labels)
    names = class_names(folder, labels)
    index = {name: place for place, name in enumerate(names)}
    if not (images := find_images(folder)):
        raise CalibrationError(f"{folder}: no images in its folders.")
    places = {path: index[path.relative_to(folder).parts[0]] for path in images}
    return Labelled(labels or folder, places, len(names), names_all=True)


def class_names(folder: Path, labels: Path | None) -> list[str]:
    """The class names in the order of the model's outputs.

    Raises:
        CalibrationError: there are no class folders, the list cannot be read, or it misses one.
    """
    if not folder.is_dir():
        raise CalibrationError(f"{folder}: no such folder of labelled images.")
    images = find_images(folder)
    entries = (entry for entry in folder.iterdir() if not entry.name.startswith("."))
    folders = sorted(entry.name for entry in entries if entry.is_dir())
    loose = [entry for entry in images if entry.parent == folder]
    if not folders or loose:
        found = f"the image {loose[0].name} lies outside one" if loose else "there are none"
        raise CalibrationError(f"{folder}: images must lie in a folder a class, but {found}.")
    if labels is None and len(folders) == 1 and images:
        raise CalibrationError(
            f"{folder}: has one class only, {folders[0]}, so that its place among the scores is "
            "unknown. Give --labels."
        )
    if labels is None:
        return folders
    names = listed_names(labels)  # an empty line is the place of a class without a name
    if missing := sorted(set(folders) - set(names)):
        raise CalibrationError(
            f"{labels}: lacks {len(missing)} of the {len(folders)} classes that {folder} has: "
            f"{', '.join(missing[:_NAMED])}."
        )
    if twice := sorted(name for name in folders if names.count(name) > 1):
        raise CalibrationError(f"{labels}: has the class {', '.join(twice)} more than once.")
    return names


def listed_names(file: Path) -> list[str]:
    """The lines of a text file, one name each.

    Raises:
        CalibrationError: it cannot be read.
    """
    try:
        lines = read_text(file).rstrip().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(f"{file}: cannot be read as a list of classes: {error}") from error
    return [name.strip() for name in lines]


def _from_table(folder: Path, labels: Path) -> Labelled:
    try:
        lines = io.StringIO(read_text(labels))
        header, *rows = [row for row in csv.reader(lines) if row] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CalibrationError(f"{labels}: cannot be read as a table: {error}") from error
    if header != _HEADER or not rows:
        raise CalibrationError(
            f"{labels}: expected a line 'file,label' and one for each image, such as 'a.png,3'."
        )
    bad = [",".join(row) for row in rows if not _is_labelled(row)]
    if bad:
        raise CalibrationError(
            f"{labels}: {len(bad)} of {len(rows)} lines have no file and number of its class, from "
            f"0 on: {'; '.join(map(shortened, bad[:_NAMED]))}."
        )
    places = {folder / name: int(label) for name, label in rows}
    if len(places) < len(rows):
        raise CalibrationError(f"{labels}: names {len(rows) - len(places)} images more than once.")
    if missing := [str(path) for path in places if not path.is_file()]:
        raise CalibrationError(
            f"{labels}: {len(missing)} of {len(rows)} images are not there: "
            f"{', '.join(missing[:_NAMED])}."
        )
    return Labelled(labels, places, max(places.values()) + 1, names_all=False)


def _is_labelled(row: list[str]) -> bool:
    return len(row) == len(_HEADER) and row[1].isdecimal() and len(row[1]) <= _DIGITS
