"""Average precision of boxes: by hand, and against pycocotools on random boxes."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fcpts_onnx.evaluate.boxes import Boxes, overlaps, without_repeats
from fcpts_onnx.evaluate.mean_precision import average_precision

LEFT, RIGHT = (0.0, 0.0, 0.4, 0.4), (0.5, 0.5, 0.9, 0.9)


def boxes(*corners: tuple[float, ...], scores: object = None, difficult: object = False) -> Boxes:
    return Boxes.of(np.array(corners), np.zeros(len(corners)), scores, difficult)


def test_overlaps() -> None:
    found = overlaps(np.array([LEFT, (0.2, 0.0, 0.6, 0.4), (0, 0, 0, 0)]), np.array([LEFT, RIGHT]))
    np.testing.assert_allclose(found, [[1, 0], [1 / 3, 0], [0, 0]], atol=1e-12)


def test_a_repeated_box_is_dropped_in_its_class_only() -> None:
    corners = np.array([LEFT, (0.01, 0.0, 0.4, 0.4), LEFT, RIGHT])
    found = without_repeats(Boxes.of(corners, [0, 0, 1, 0], np.array([0.5, 0.9, 0.3, 0.4])), 0.5, 9)
    assert found.scores.tolist() == [0.9, 0.4, 0.3]
    assert found.classes.tolist() == [0, 0, 1]
    assert len(without_repeats(found, 0.5, 2)) == 2


def test_the_surest_boxes_are_the_same_however_many_are_kept() -> None:
    """Of crowded classes too, and of scores that are equal."""
    generator = np.random.default_rng(0)
    low = generator.random((300, 2))
    corners = np.concatenate([low, low + 0.1 * generator.random((300, 2))], 1)
    scores = generator.integers(1, 9, 300) / 10
    some = Boxes.of(corners, generator.integers(0, 3, 300), scores)
    every = without_repeats(some, 0.5, len(some))
    for most in (1, 7, 60):
        found = without_repeats(some, 0.5, most)
        assert np.array_equal(found.corners, every.corners[:most])
        assert np.array_equal(found.classes, every.classes[:most])


def test_by_hand() -> None:
    """Right, wrong, right, repeated: precision 1, 1/2, 2/3, 1/2 at recall 1/3, 1/3, 2/3, 2/3."""
    wanted = [boxes(LEFT, RIGHT), boxes(LEFT)]
    found = [
        boxes(LEFT, (0.6, 0.0, 0.9, 0.2), RIGHT, LEFT, scores=[0.9, 0.8, 0.7, 0.6]),
        boxes(),
    ]
    precision = average_precision(found, wanted, 0)
    assert precision.count == 3
    assert precision.area == pytest.approx(1 / 3 + 1 / 3 * 2 / 3)
    # Levels 0 to .3 at 1, .4 to .6 at 2/3, beyond none.
    assert precision.points == pytest.approx((4 + 3 * 2 / 3) / 11)


def test_difficult_ones_count_neither_way() -> None:
    wanted = [boxes(LEFT, RIGHT, difficult=[True, False])]
    found = [boxes(LEFT, RIGHT, scores=[0.9, 0.8])]
    assert average_precision(found, wanted, 0).count == 1
    assert average_precision(found, wanted, 0).area == 1.0
    assert average_precision([boxes()], wanted, 0).area == 0.0


def test_other_classes_and_other_images_do_not_help() -> None:
    other = Boxes.of(np.array([LEFT]), [1], np.array([0.9]))
    assert average_precision([other], [boxes(LEFT)], 0).area == 0.0
    assert average_precision([boxes(), boxes(LEFT)], [boxes(LEFT), boxes()], 0).area == 0.0


@pytest.mark.parametrize("seed", range(8))
def test_against_pycocotools(seed: int) -> None:
    """On annotated boxes that do not overlap, where both rules of matching are the same."""
    random = np.random.default_rng(seed)
    wanted, found = [], []
    for _ in range(20):
        cells = random.permutation(16)[: random.integers(1, 9)]
        low = np.stack([cells % 4, cells // 4], 1) / 4 + random.uniform(0, 0.05, (len(cells), 2))
        truth = np.concatenate([low, low + random.uniform(0.1, 0.19, (len(cells), 2))], 1)
        wanted.append(Boxes.of(truth, random.integers(0, 2, len(cells))))
        near = truth + random.normal(0, 0.015, truth.shape)
        detected = np.concatenate([near, near[:3] + 0.004, random.uniform(0, 1, (4, 4))])
        classes = np.concatenate([wanted[-1].classes, wanted[-1].classes[:3], [0, 0, 1, 1]])
        found.append(Boxes.of(detected, classes, random.uniform(0, 1, len(detected))))
    points, areas = _by_coco(found, wanted)
    for place in range(2):
        precision = average_precision(found, wanted, place)
        assert 0.1 < precision.area < 0.95
        assert precision.points == pytest.approx(points[place], abs=1e-9)
        assert precision.area == pytest.approx(areas[place], abs=1e-4)


def _by_coco(found: list[Boxes], wanted: list[Boxes]) -> tuple[np.ndarray, np.ndarray]:
    """Average precision of each class: at eleven levels of recall, and at very many."""
    truths, results = [], []
    for image, (detected, annotated) in enumerate(zip(found, wanted, strict=True), 1):
        for boxes_, into in ((annotated, truths), (detected, results)):
            for corner, place, score in zip(
                boxes_.corners, boxes_.classes, boxes_.scores, strict=True
            ):
                size = (corner[2:] - corner[:2]).clip(0)
                into.append(
                    {
                        "image_id": image,
                        "category_id": int(place) + 1,
                        "score": float(score),
                        "bbox": [*corner[:2], *size],
                        "area": float(size.prod()),
                        "iscrowd": 0,
                        "id": len(into) + 1,
                    }
                )
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": image} for image in range(1, len(found) + 1)],
            "categories": [{"id": 1}, {"id": 2}],
            "annotations": truths,
        }
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes(results), "bbox")
        judge.params.iouThrs = np.array([0.5])
        judge.params.maxDets = [100]
        judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e5]], ["all"]
        # A recall of 7 / 10 reaches the level of 0.7, whatever rounding makes of the two.
        judge.params.recThrs = np.linspace(0, 1, 100_001) - 1e-12
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][0, :, :, 0, 0]  # recall, class
    return precision[::10_000].mean(0), precision.mean(0)
