"""MEASURE: annotated boxes, as PASCAL VOC's XML or as YOLO's text has them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from fcpts_onnx.errors import CalibrationError
from fcpts_onnx.evaluate.boxes import Boxes
from fcpts_onnx.files import read_text
from fcpts_onnx.sources import image_size

__all__ = ["annotated"]

_NAMED = 5  # of many that are wrong
_SLACK = 0.05  # how far boxes may reach beyond the image, as a share of its sides
_SAME_SHAPE = 0.01  # of width to height: sides are whole numbers
_FIELDS = 5  # of a line of text: class, middle, size
_Named = tuple[str, tuple[float, float, float, float], bool]
"""Class, left, top, right, bottom as shares of the image's sides, and whether it is difficult."""


def annotated(
    images: Sequence[Path],
    folder: Path,
    classes: Sequence[str],
    names: Sequence[str] | None = None,
    *,
    leave_out: bool = False,
) -> list[Boxes]:
    """The boxes of each image, from the file of its name in a folder, .xml or .txt.

    Args:
        classes: what a detector knows, in order.
        names: what the numbers in .txt files stand for, in order; the detector's classes if None.
        leave_out: whether boxes of other classes are left out; else they are an error.

    Raises:
        CalibrationError: an image has no file, one cannot be read, is empty or of an image of
            another shape, or a class is not known. All that is wrong is counted.
    """
    if twice := _repeated(image.stem for image in images):
        raise CalibrationError(
            f"{folder}: an annotation goes by the name of its image, but there are several images "
            f"of the name {', '.join(twice[:_NAMED])}."
        )
    found: list[list[_Named]] = []
    wrong: list[str] = []
    for image in images:
        try:
            found.append(_read(image, folder, classes if names is None else names))
        except (OSError, ValueError, LookupError, ElementTree.ParseError) as error:
            wrong.append(f"{image.stem}: {error}")
    if wrong:
        raise CalibrationError(
            f"{folder}: {len(wrong)} of {len(images)} annotations cannot be used: "
            f"{'; '.join(wrong[:_NAMED])}."
        )
    places = {name: place for place, name in enumerate(classes)}
    annotated_names = Counter(name for boxes in found for name, _, _ in boxes)
    if unclear := [name for name in _repeated(classes) if name in annotated_names]:
        meant = ", ".join(map(repr, unclear))
        numbered = " If the .txt files number classes in another way, say how: --labels."
        raise CalibrationError(
            f"{folder}: has boxes of {meant}, which the detector's classes have more than once."
            + (numbered if names is None else "")
        )
    others = Counter({n: count for n, count in annotated_names.items() if n not in places})
    if others and not leave_out:
        listed = ", ".join(f"{name} ({count})" for name, count in others.most_common())
        raise CalibrationError(
            f"{folder}: {others.total()} boxes are of {len(others)} classes that the detector does "
            f"not know: {listed}. Add them to its classes, or leave them out with "
            "other_classes = true in its file."
        )
    return [_boxes([box for box in boxes if box[0] in places], places) for boxes in found]


def _repeated(names: Iterable[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def _boxes(boxes: Iterable[_Named], places: dict[str, int]) -> Boxes:
    rows = list(boxes)
    return Boxes.of(
        np.array([corners for _, corners, _ in rows], np.float64),
        np.array([places[name] for name, _, _ in rows]),
        difficult=np.array([difficult for _, _, difficult in rows], bool),
    )


def _read(image: Path, folder: Path, names: Sequence[str]) -> list[_Named]:
    """The boxes of one image.

    Raises:
        OSError, ValueError, ParseError: there is no file, or it is not as it should be.
    """
    xml, text = (folder / f"{image.stem}{suffix}" for suffix in (".xml", ".txt"))
    if xml.is_file():
        boxes = _from_xml(xml, image)
    elif text.is_file():
        boxes = [_from_line(line, names) for line in read_text(text).splitlines() if line]
    else:
        raise ValueError(f"there is neither {xml.name} nor {text.name}")
    if not boxes:
        raise ValueError("it has no boxes")
    for _, (left, top, right, bottom), _ in boxes:
        if not (-_SLACK <= left < right <= 1 + _SLACK and -_SLACK <= top < bottom <= 1 + _SLACK):
            raise ValueError(
                f"a box from ({left:.3g}, {top:.3g}) to ({right:.3g}, {bottom:.3g}) in shares of "
                "the image's sides"
            )
    return boxes


def _from_xml(file: Path, image: Path) -> list[_Named]:
    root = ElementTree.parse(file).getroot()
    width, height = (float(root.findtext(f"size/{side}") or 0) for side in ("width", "height"))
    if not width or not height:
        raise ValueError("it has no size of the image")
    _check_size(image, height, width)
    found = []
    for box in root.iter("object"):
        sides = [box.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        if any(side is None for side in sides):
            raise ValueError("an object has no box")
        left, top, right, bottom = (float(side or 0) for side in sides)
        # Pixels count from 1, and the last one belongs to the box.
        corners = ((left - 1) / width, (top - 1) / height, right / width, bottom / height)
        found.append((box.findtext("name") or "", corners, box.findtext("difficult") == "1"))
    return found


def _check_size(image: Path, height: float, width: float) -> None:
    """See that boxes are of the image as its file has it, if that can be read.

    Raises:
        ValueError: they are of another one.
    """
    found = image_size(image)
    # Boxes are shares of the sides: they fit an image that was scaled since.
    if found is None or math.isclose(found[0] * width, found[1] * height, rel_tol=_SAME_SHAPE):
        return
    advice = "take the image as it was annotated"
    if math.isclose(found[0] * height, found[1] * width, rel_tol=_SAME_SHAPE):
        advice = "its boxes are of the rotated picture, so turn the pixels"
    raise ValueError(
        f"it is of an image {width:g} wide and {height:g} high, and that is {found[1]} wide and "
        f"{found[0]} high: {advice}"
    )


def _from_line(line: str, names: Sequence[str]) -> _Named:
    values = line.split()
    if len(values) != _FIELDS or not values[0].isdecimal():
        raise ValueError(f"{line!r} is not a class from 0 on, the middle and the size of a box")
    place = int(values[0])
    if place >= len(names):
        raise ValueError(f"{line!r} is of class {place}, and there are names for {len(names)}")
    x, y, width, height = (float(value) for value in values[1:])
    return names[place], (x - width / 2, y - height / 2, x + width / 2, y + height / 2), False
