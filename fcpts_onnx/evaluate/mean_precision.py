"""MEASURE: PASCAL VOC's mean average precision of detections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fcpts_onnx.evaluate.boxes import Array, Boxes, overlaps

__all__ = ["Precision", "average_precision"]

_LEVELS = np.linspace(0, 1, 11)  # of recall, in 2007


@dataclass(frozen=True)
class Precision:
    """The average precision of one class.

    Attributes:
        count: annotated boxes that are not difficult.
        points: VOC 2007's, over eleven levels of recall.
        area: VOC 2010's, the area under the curve.
    """

    count: int
    points: float
    area: float


def average_precision(
    found: Sequence[Boxes], wanted: Sequence[Boxes], place: int, overlap: float = 0.5
) -> Precision:
    """Of one class over all images (Everingham et al. 2010, section 4.2).

    Detections of all images are taken in order of their score. Each is held against the annotated
    box that it overlaps most: right if by at least `overlap` and no surer one was there before;
    not counted if that box is difficult.

    Args:
        found, wanted: by image.
    """
    hits, scores, count = [], [], 0
    for detected, annotated in zip(found, wanted, strict=True):
        mine, theirs = (boxes[boxes.classes == place] for boxes in (detected, annotated))
        mine = mine[np.argsort(-mine.scores, kind="stable")]
        count += int((~theirs.difficult).sum())
        counted, right = _judged(mine, theirs, overlap)
        hits.append(right[counted])
        scores.append(mine.scores[counted])
    order = np.argsort(-np.concatenate(scores), kind="stable")
    right = np.concatenate(hits)[order].cumsum()
    recall = right / max(1, count)
    precision = right / np.arange(1, len(right) + 1)
    # The best precision at this recall or beyond.
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, _LEVELS - 1e-12)
    points = np.append(envelope, 0.0)[places].mean()
    area = (np.diff(recall, prepend=0.0) * envelope).sum()
    return Precision(count, float(points), float(area))


def _judged(mine: Boxes, theirs: Boxes, overlap: float) -> tuple[Array, Array]:
    """Which detections of an image count, and which are right."""
    counted, right = np.ones(len(mine), bool), np.zeros(len(mine), bool)
    if not len(theirs):
        return counted, right
    common = overlaps(mine.corners, theirs.corners)
    taken = np.zeros(len(theirs), bool)
    for place, best in enumerate(common.argmax(1)):
        if common[place, best] < overlap:
            continue
        if theirs.difficult[best]:
            counted[place] = False
        elif not taken[best]:
            right[place] = taken[best] = True
    return counted, right
