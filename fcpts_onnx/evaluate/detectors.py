"""MEASURE: what the outputs of a detector mean: a kind of decoder and its settings, from TOML."""

from __future__ import annotations

import math
import tomllib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fcpts_onnx.errors import RecipeError
from fcpts_onnx.evaluate.boxes import Array, Boxes, without_repeats
from fcpts_onnx.files import read_text

__all__ = ["Detector", "FastestDet", "Finished", "Selected", "Ssd", "Yolo", "read_detector"]

Outputs = Mapping[str, Array]

_ORDERS = {"xyxy": [0, 1, 2, 3], "yxyx": [1, 0, 3, 2]}
_KINDS_OF = {
    tuple: "a list",
    str: "text",
    float: "a number",
    int: "an integer",
    bool: "true or false",
}


@dataclass(frozen=True)
class Detector(ABC):
    """What all kinds have in common.

    Attributes:
        classes: the names of the classes in order, without the background.
        least_score: what is less sure is no detection.
        overlap: intersection over union beyond which two boxes of a class say the same.
        most: detections kept in an image.
        other_classes: whether images may have boxes of other classes, which are left out then.
    """

    classes: tuple[str, ...]
    least_score: float = 0.01
    overlap: float = 0.45
    most: int = 200
    other_classes: bool = False

    def detections(self, outputs: Outputs) -> list[Boxes]:
        """The boxes of each image of a batch, surest first.

        Raises:
            RecipeError: an output is not there, or not of the shape that this kind has.
        """
        try:
            decoded = self.decoded(outputs)
            if not all(np.isfinite(boxes.scores).all() for boxes in decoded):
                raise ValueError("scores that are no numbers")
            return [
                without_repeats(boxes[boxes.scores >= self.least_score], self.overlap, self.most)
                for boxes in decoded
            ]
        except KeyError as error:
            raise RecipeError(
                f"Detector: the model has no output {error}; it has {', '.join(outputs)}."
            ) from error
        except (ValueError, IndexError, TypeError, RuntimeError) as error:
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in outputs.items())
            raise RecipeError(f"Detector: the outputs do not fit: {error} ({shapes}).") from error

    @abstractmethod
    def decoded(self, outputs: Outputs) -> list[Boxes]:
        """All boxes of each image with their scores, repeated or not."""


@dataclass(frozen=True)
class _Chosen(Detector):
    """A model that makes its own choice among its boxes: no more are dropped.

    Attributes:
        boxes, scores: its outputs.
        first_label: the number of the first class; 1 where the background has one too.
        order: of the corners, "xyxy" or "yxyx".
        size: (width, height) that corners are measured in; 1 for shares of the image's sides.
    """

    overlap: float = 1.0
    boxes: str = "boxes"
    scores: str = "scores"
    first_label: int = 0
    order: str = "xyxy"
    size: tuple[float, ...] = (1.0, 1.0)

    def corners(self, outputs: Outputs) -> Array:
        """Of all boxes, as shares of the image's sides, left and top first: (batch, n, 4)."""
        found: Array = outputs[self.boxes][..., _ORDERS[self.order]]
        return found / np.array([*self.size, *self.size])

    def places(self, numbers: Array) -> tuple[Array, Array]:
        """Classes by their numbers, and whether there are such."""
        labels = numbers - self.first_label
        return labels, (labels >= 0) & (labels < len(self.classes))


@dataclass(frozen=True)
class Finished(_Chosen):
    """A model that ends with boxes: (batch, n, 4), and scores: (batch, n).

    Without the first axis they are those of one image.

    Attributes:
        labels: its output of classes, (batch, n).
    """

    labels: str = "labels"

    def decoded(self, outputs: Outputs) -> list[Boxes]:
        if outputs[self.boxes].ndim == 2:
            outputs = {name: value[None] for name, value in outputs.items()}
        labels, known = self.places(outputs[self.labels].astype(np.int64))
        return [
            Boxes.of(box, label, score)[fits]
            for box, label, score, fits in zip(
                self.corners(outputs), labels, outputs[self.scores], known, strict=True
            )
        ]


@dataclass(frozen=True)
class Selected(_Chosen):
    """A model that ends with NonMaxSuppression: boxes (batch, n, 4), scores (batch, classes, n).

    Attributes:
        selected: what that gives, rows of image, class and box.
    """

    selected: str = "selected"

    def decoded(self, outputs: Outputs) -> list[Boxes]:
        images, numbers, places = outputs[self.selected].T
        labels, known = self.places(numbers)
        found = []
        pairs = zip(self.corners(outputs), outputs[self.scores], strict=True)
        for image, (box, score) in enumerate(pairs):
            own = known & (images == image)
            found.append(Boxes.of(box[places[own]], labels[own], score[numbers[own], places[own]]))
        return found


@dataclass(frozen=True)
class Ssd(Detector):
    """SSD (Liu et al. 2016): scores of each class, the background first, and offsets from priors.

    Attributes:
        boxes, scores: its outputs, (batch, n, 4) and (batch, n, 1 + classes).
        softmax: whether scores are still to be made shares.
        priors: of each map in turn, see `_priors`; without any, boxes are corners "xyxy" already.
        clip: whether priors end at the image's sides.
        size: of the input in pixels, which priors are measured in.
        variances: of the middle and of the size.
    """

    boxes: str = "boxes"
    scores: str = "scores"
    softmax: bool = False
    priors: tuple[Mapping[str, Any], ...] = ()
    clip: bool = True
    size: float = 300.0
    variances: tuple[float, ...] = (0.1, 0.2)

    def decoded(self, outputs: Outputs) -> list[Boxes]:
        scores, corners = outputs[self.scores].astype(np.float64), outputs[self.boxes]
        if self.softmax:
            scores = torch.from_numpy(scores).softmax(2).numpy()
        if self.priors:
            priors = self.default_boxes()
            if len(priors) != corners.shape[1]:
                raise ValueError(f"{len(priors)} priors for {corners.shape[1]} boxes")
            middles = corners[..., :2] * self.variances[0] * priors[:, 2:] + priors[:, :2]
            sizes = np.exp(corners[..., 2:] * self.variances[1]) * priors[:, 2:]
            corners = _corners(middles, sizes)
        return _by_class(corners, scores[..., 1:], self)

    def default_boxes(self) -> Array:
        """Middle and size of all priors as shares of the image's sides, (n, 4)."""
        priors = np.concatenate([_priors(**found) for found in self.priors]) / self.size
        return priors.clip(0, 1) if self.clip else priors


@dataclass(frozen=True)
class Yolo(Detector):
    """YOLOv3 (Redmon and Farhadi 2018): maps of (batch, anchors x (5 + classes), height, width).

    Attributes:
        outputs: the names of its maps.
        anchors: of each map, width and height in pixels in turn.
        size: (width, height) of the input in pixels.
    """

    outputs: tuple[str, ...] = ()
    anchors: tuple[tuple[float, ...], ...] = ()
    size: tuple[float, ...] = (416.0, 416.0)

    def decoded(self, outputs: Outputs) -> list[Boxes]:
        corners, scores = [], []
        for name, pairs in zip(self.outputs, self.anchors, strict=True):
            anchors = np.array(pairs).reshape(-1, 2) / self.size
            values = outputs[name].astype(np.float64)
            batch, _, height, width = values.shape
            values = values.reshape(batch, len(anchors), 5 + len(self.classes), height, width)
            values = values.transpose(0, 1, 3, 4, 2)
            middles = (_sigmoid(values[..., :2]) + _cells(height, width)) / (width, height)
            sizes = np.exp(values[..., 2:4]) * anchors[:, None, None]
            sure = _sigmoid(values[..., 4:5]) * _sigmoid(values[..., 5:])
            corners.append(_corners(middles, sizes).reshape(batch, -1, 4))
            scores.append(sure.reshape(batch, -1, len(self.classes)))
        return _by_class(np.concatenate(corners, 1), np.concatenate(scores, 1), self)


@dataclass(frozen=True)
class FastestDet(Detector):
    """FastestDet (dog-qiuqiu 2022): one map of (batch, 5 + classes, height, width).

    Attributes:
        output: its name; objectness and shares of classes are shares already.
    """

    output: str = "output"

    def decoded(self, outputs: Outputs) -> list[Boxes]:
        values = outputs[self.output].astype(np.float64).transpose(0, 2, 3, 1)
        batch, height, width, depth = values.shape
        if depth != 5 + len(self.classes):
            raise ValueError(f"{depth} values a place, expected {5 + len(self.classes)}")
        middles = (np.tanh(values[..., 1:3]) + _cells(height, width)) / (width, height)
        corners = _corners(middles, _sigmoid(values[..., 3:5])).reshape(batch, -1, 4)
        shares = values[..., 5:].reshape(batch, -1, len(self.classes))
        best = shares.argmax(2)
        sure = values[..., 0].reshape(batch, -1) ** 0.6 * shares.max(2) ** 0.4
        return [Boxes.of(*found) for found in zip(corners, best, sure, strict=True)]


def _positive(found: Any) -> bool:
    """Whether it is a number above 0."""
    return type(found) in (int, float) and 0 < found < math.inf


def _paired(found: Any) -> bool:
    """Whether it is a list of numbers above 0, two or more of them, in pairs."""
    is_even = isinstance(found, tuple) and len(found) > 0 and len(found) % 2 == 0
    return is_even and all(map(_positive, found))


# What holds of an entry of any kind that has it.
_LIMITS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "least_score": (lambda share: 0 <= share <= 1, "a share of 0 to 1"),
    "overlap": (lambda share: 0 <= share <= 1, "a share of 0 to 1"),
    "most": (lambda count: count > 0, "more than 0"),
    "order": (lambda order: order in (None, *_ORDERS), "xyxy or yxyx"),
    "size": (
        lambda size: size is None or _positive(size) or (_paired(size) and len(size) == 2),
        "more than 0 for width and height",
    ),
    "variances": (
        lambda found: found is None or (_paired(found) and len(found) == 2),
        "two numbers above 0",
    ),
    "anchors": (
        lambda maps: maps is None or all(map(_paired, maps)),
        "a list for each map, of width and height above 0 in turn",
    ),
}
KINDS: dict[str, type[Detector]] = {
    "finished": Finished,
    "selected": Selected,
    "ssd": Ssd,
    "yolo": Yolo,
    "fastestdet": FastestDet,
}


def read_detector(file: Path) -> Detector:
    """A detector's settings from a TOML file: its `kind`, and the attributes of that.

    Raises:
        RecipeError: it cannot be read, or an entry is unknown or of the wrong type.
    """
    try:
        entries = tomllib.loads(read_text(file))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{file}: cannot be read as a detector: {error}") from error
    kind = KINDS.get(str(entries.pop("kind", None)))
    if kind is None:
        raise RecipeError(f"{file}: kind must be one of {', '.join(KINDS)}.")
    defaults = {field.name: field.default for field in fields(kind)}
    if unknown := sorted(set(entries) - set(defaults)):
        raise RecipeError(f"{file}: unknown {', '.join(unknown)}; known are {', '.join(defaults)}.")
    settings = {key: _frozen(value) for key, value in entries.items()}
    classes = settings.get("classes")
    if not isinstance(classes, tuple) or not classes or {type(name) for name in classes} != {str}:
        raise RecipeError(f"{file}: classes must list the names of the classes in order.")
    for key, value in settings.items():
        wanted = tuple if key == "classes" else type(defaults[key])
        if type(value) is not wanted and (type(value), wanted) != (int, float):
            raise RecipeError(f"{file}: {key} is {value!r}; expected {_KINDS_OF[wanted]}.")
    detector = kind(**settings)
    for key, (fits, expected) in _LIMITS.items():
        if not fits(getattr(detector, key, None)):
            raise RecipeError(f"{file}: {key} is {getattr(detector, key)!r}; expected {expected}.")
    if isinstance(detector, Ssd) and detector.priors:
        _check_priors(file, detector)
    return detector


def _check_priors(file: Path, detector: Ssd) -> None:
    try:
        usable = bool(np.isfinite(detector.default_boxes()).all())
    except (TypeError, ValueError, IndexError, ArithmeticError) as error:
        raise RecipeError(f"{file}: priors cannot be made: {error}.") from error
    if not usable:
        raise RecipeError(f"{file}: priors have sizes that are no numbers.")


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _by_class(corners: Array, scores: Array, detector: Detector) -> list[Boxes]:
    """A box for each class that is sure enough: (batch, n, 4), (batch, n, classes)."""
    if scores.shape[2] != len(detector.classes):
        raise ValueError(f"scores of {scores.shape[2]} classes, expected {len(detector.classes)}")
    found = []
    for box, score in zip(corners, scores, strict=True):
        places, classes = np.nonzero(score >= detector.least_score)
        found.append(Boxes.of(box[places], classes, score[places, classes]))
    return found


def _priors(
    *, cells: int, step: float, sides: Any = (), ratios: Any = (), boxes: Any = ()
) -> Array:
    """Middle and size of the default boxes of one map in pixels, (cells x cells x boxes, 4).

    Args:
        cells: of the map, in height and width.
        step: pixels from one to the next.
        sides: the least side, and that of the next map, if there is a square between the two.
        ratios: of width and height, of boxes as large as the least; each and its inverse.
        boxes: width and height of any others.
    """
    shapes = [(side, side) for side in sides[:1]]
    shapes += [((sides[0] * side) ** 0.5,) * 2 for side in sides[1:]]
    for root in (ratio**0.5 for ratio in ratios):
        shapes += [(sides[0] * root, sides[0] / root), (sides[0] / root, sides[0] * root)]
    shapes += [(width, height) for width, height in boxes]
    middles = np.repeat((_cells(cells, cells)[:, :, None] + 0.5) * step, len(shapes), 2)
    sizes = np.broadcast_to(np.array(shapes), middles.shape)
    return np.concatenate([middles, sizes], 3).reshape(-1, 4)


def _cells(height: int, width: int) -> Array:
    """Column and row of each cell, (height, width, 2)."""
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), 2)


def _corners(middles: Array, sizes: Array) -> Array:
    return np.concatenate([middles - sizes / 2, middles + sizes / 2], -1)


def _sigmoid(values: Array) -> Array:
    return torch.from_numpy(values).sigmoid().numpy()
