"""MEASURE: boxes in an image: how far they overlap, and which of many say the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fcpts_onnx.ops.detection import non_max_suppression

__all__ = ["Array", "Boxes", "overlaps", "without_repeats"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Boxes:
    """The boxes of one image.

    Attributes:
        corners: (n, 4) left, top, right, bottom as shares of the image's width and height.
        classes: (n,) places in the list of classes.
        scores: (n,) how sure a detector is of each; ones where boxes are annotated.
        difficult: (n,) which of annotated ones count neither as found nor as missed.
    """

    corners: Array
    classes: Array
    scores: Array
    difficult: Array

    @classmethod
    def of(
        cls, corners: Array, classes: Array, scores: Array | None = None, difficult: Any = False
    ) -> Boxes:
        """Boxes from arrays of any number type."""
        classes = np.asarray(classes, np.int64).reshape(-1)
        given = np.ones(len(classes)) if scores is None else np.asarray(scores, np.float64)
        marks = np.broadcast_to(np.asarray(difficult, bool), classes.shape)
        return cls(np.asarray(corners, np.float64).reshape(-1, 4), classes, given, marks)

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, chosen: Array) -> Boxes:
        return Boxes(
            self.corners[chosen], self.classes[chosen], self.scores[chosen], self.difficult[chosen]
        )


def overlaps(corners: Array, others: Array) -> Array:
    """Intersection over union of each box with each other one: (n, 4), (m, 4) -> (n, m)."""
    low = np.maximum(corners[:, None, :2], others[None, :, :2])
    high = np.minimum(corners[:, None, 2:], others[None, :, 2:])
    common = (high - low).clip(0).prod(2)
    union = _areas(corners)[:, None] + _areas(others)[None] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def without_repeats(boxes: Boxes, overlap: float, most: int) -> Boxes:
    """The surest boxes of each class that overlap no surer one of it by more (greedy NMS).

    Args:
        overlap: intersection over union beyond which two boxes say the same.
        most: how many are kept in an image.
    """
    if not len(boxes):
        return boxes
    scores = np.full((boxes.classes.max() + 1, len(boxes)), -np.inf)
    scores[boxes.classes, np.arange(len(boxes))] = boxes.scores
    chosen = non_max_suppression(
        torch.from_numpy(boxes.corners)[None],
        torch.from_numpy(scores)[None],
        # The surest in all are the first ones of their classes: no class has more than that many.
        torch.tensor(min(most, len(boxes))),
        torch.tensor(overlap, dtype=torch.float64),
        torch.tensor(-np.inf),
    )[:, 2].numpy()
    return boxes[chosen[np.argsort(-boxes.scores[chosen], kind="stable")][:most]]


def _areas(corners: Array) -> Array:
    return (corners[:, 2:] - corners[:, :2]).clip(0).prod(1)
