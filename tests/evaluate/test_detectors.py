"""What outputs of detectors mean, against boxes worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fcpts_onnx.errors import RecipeError
from fcpts_onnx.evaluate.detectors import FastestDet, Finished, Selected, Ssd, Yolo, read_detector

CLASSES = ("cat", "dog")


def logit(share: float) -> float:
    return float(np.log(share / (1 - share)))


def test_finished() -> None:
    detector = Finished(CLASSES, order="yxyx", first_label=1, size=(200.0, 100.0))
    outputs = {
        "boxes": np.array([[[10, 20, 50, 100], [0, 0, 1, 1], [5, 5, 9, 9]]], np.float32),
        "labels": np.array([[2, 0, 1]], np.float32),
        "scores": np.array([[0.9, 0.8, 0.001]], np.float32),
    }
    (found,) = detector.detections(outputs)  # one is background, one not sure
    np.testing.assert_allclose(found.corners, [[0.1, 0.1, 0.5, 0.5]], rtol=1e-6)
    assert found.classes.tolist() == [1]


def test_finished_boxes_are_all_kept() -> None:
    outputs = {
        "boxes": np.array([[[0.1, 0.1, 0.5, 0.5], [0.1, 0.1, 0.5, 0.51]]]),
        "labels": np.zeros((1, 2)),
        "scores": np.array([[0.9, 0.8]]),
    }
    assert len(Finished(CLASSES).detections(outputs)[0]) == 2


def test_finished_boxes_of_one_image() -> None:
    """As torchvision exports a detector: no axis for the batch."""
    outputs = {
        "boxes": np.array([[0.1, 0.1, 0.5, 0.5], [0.2, 0.2, 0.4, 0.4]]),
        "labels": np.array([1, 0]),
        "scores": np.array([0.9, 0.8]),
    }
    (found,) = Finished(CLASSES).detections(outputs)
    assert found.classes.tolist() == [1, 0]


def test_selected() -> None:
    """What NonMaxSuppression gives of two images, with the background among the scores."""
    detector = Selected(CLASSES, order="yxyx", first_label=1, size=(10.0, 20.0))
    boxes = np.array([[[2, 1, 4, 3], [0, 0, 20, 10]], [[4, 5, 8, 10], [0, 0, 1, 1]]], np.float32)
    scores = np.array([[[0.1, 0.2], [0.9, 0.3], [0.0, 0.8]], [[0.9, 0.0], [0.0, 0], [0.7, 0]]])
    chosen = np.array([[0, 1, 0], [0, 2, 1], [0, 0, 1], [1, 2, 0]])  # one of the background
    first, second = detector.detections({"boxes": boxes, "scores": scores, "selected": chosen})
    assert first.classes.tolist() == [0, 1]
    assert first.scores.tolist() == [0.9, 0.8]
    np.testing.assert_allclose(first.corners, [[0.1, 0.1, 0.3, 0.2], [0, 0, 1, 1]], rtol=1e-6)
    assert second.classes.tolist() == [1]
    np.testing.assert_allclose(second.corners, [[0.5, 0.2, 1.0, 0.4]], rtol=1e-6)


def test_priors_of_any_shape() -> None:
    """Three a place, as the first map of MobileNet-SSD has them, reaching beyond the image."""
    maps = {"cells": 1, "step": 100.0, "sides": [60.0], "ratios": [4.0], "boxes": [[120.0, 10.0]]}
    scores = np.tile([0.0, 0.9, 0.0], (1, 4, 1))
    outputs = {"boxes": np.zeros((1, 4, 4)), "scores": scores}
    wide = Ssd(CLASSES, priors=(maps,), size=100.0, clip=False, overlap=1.0)
    (found,) = wide.detections(outputs)
    expected = [[0.2, 0.2, 0.8, 0.8], [-0.1, 0.35, 1.1, 0.65], [0.35, -0.1, 0.65, 1.1],
                [-0.1, 0.45, 1.1, 0.55]]  # fmt: skip
    np.testing.assert_allclose(found.corners, expected, atol=1e-9)
    (clipped,) = Ssd(CLASSES, priors=(maps,), size=100.0, overlap=1.0).detections(outputs)
    np.testing.assert_allclose(clipped.corners[1], [0.0, 0.35, 1.0, 0.65], atol=1e-9)


def test_ssd_from_priors() -> None:
    maps = [{"cells": 2, "step": 50.0, "sides": [20.0, 45.0], "ratios": [4.0]}]
    detector = Ssd(CLASSES, priors=tuple(maps), size=100.0, softmax=True, least_score=0.3)
    offsets, scores = np.zeros((1, 16, 4), np.float32), np.full((1, 16, 3), -9.0, np.float32)
    scores[..., 0] = 9.0
    # The prior at row 0, column 1 with a ratio of 4: middle (75, 25), 40 wide, 10 high.
    offsets[0, 6] = [2.5, 0.0, np.log(2.0) / 0.2, 0.0]
    scores[0, 6] = [0.0, 0.0, 4.0]
    (found,) = detector.detections({"boxes": offsets, "scores": scores})
    # Moved by a tenth of 2.5 widths, twice as wide.
    np.testing.assert_allclose(found.corners, [[0.45, 0.2, 1.25, 0.3]], atol=1e-6)
    assert found.classes.tolist() == [1]
    assert found.scores[0] == pytest.approx(np.exp(4) / (np.exp(4) + 2))


def test_ssd_with_corners() -> None:
    outputs = {
        "boxes": np.array([[[0.1, 0.1, 0.4, 0.4], [0.1, 0.1, 0.41, 0.4]]]),
        "scores": np.array([[[0.1, 0.8, 0.1], [0.0, 0.9, 0.5]]]),
    }
    (found,) = Ssd(CLASSES).detections(outputs)
    assert found.scores.tolist() == [0.9, 0.5]  # of boxes that say the same, the surer
    assert found.classes.tolist() == [0, 1]


def test_yolo() -> None:
    detector = Yolo(
        CLASSES, outputs=("map",), anchors=((10.0, 20.0, 30.0, 40.0),), size=(90.0, 60.0)
    )
    values = np.full((1, 14, 2, 3), -20.0, np.float32)  # two anchors of 5 + 2, two rows of three
    values[0, 7:14, 1, 2] = [logit(0.25), logit(0.5), np.log(2.0), 0.0, logit(0.9), logit(0.8), -20]
    (found,) = detector.detections({"map": values})
    x, y, width, height = 2.25 / 3, 1.5 / 2, 60 / 90, 40 / 60
    box = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    np.testing.assert_allclose(found.corners, [box], rtol=1e-5)
    assert found.scores[0] == pytest.approx(0.72, rel=1e-5)
    assert found.classes.tolist() == [0]


def test_fastestdet() -> None:
    values = np.zeros((1, 7, 2, 2), np.float32)
    values[0, :, 1, 0] = [0.8, np.arctanh(0.5), 0.0, logit(0.3), logit(0.6), 0.1, 0.9]
    (found,) = FastestDet(CLASSES).detections({"output": values})
    np.testing.assert_allclose(found.corners, [[0.1, 0.2, 0.4, 0.8]], atol=1e-6)
    assert found.scores[0] == pytest.approx(0.8**0.6 * 0.9**0.4)
    assert found.classes.tolist() == [1]


def test_outputs_that_do_not_fit() -> None:
    with pytest.raises(RecipeError, match="no output 'map'; it has other"):
        Yolo(CLASSES, outputs=("map",), anchors=((1.0, 1.0),)).detections({"other": np.zeros(1)})
    values = {"output": np.zeros((1, 9, 2, 2))}
    with pytest.raises(
        RecipeError, match=r"9 values a place, expected 7 \(output \[1, 9, 2, 2\]\)"
    ):
        FastestDet(CLASSES).detections(values)
    with np.errstate(invalid="ignore"), pytest.raises(RecipeError, match="are no numbers"):
        FastestDet(CLASSES).detections({"output": np.full((1, 7, 2, 2), -1.0)})
    outputs = {"boxes": np.zeros((1, 2, 4)), "scores": np.zeros((1, 2, 4))}
    with pytest.raises(RecipeError, match="scores of 3 classes, expected 2"):
        Ssd(CLASSES).detections(outputs)
    one = {"cells": 1, "step": 100.0, "sides": [60.0]}
    with pytest.raises(RecipeError, match="1 priors for 2 boxes"):
        Ssd(CLASSES, priors=(one,)).detections(outputs)
    outputs = {"boxes": np.zeros((1, 2, 4)), "labels": np.zeros(2), "scores": np.zeros(2)}
    with pytest.raises(RecipeError, match="the outputs do not fit"):
        Finished(CLASSES).detections(outputs)


def test_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "d.toml"
    file.write_text(
        'kind = "ssd"\nclasses = ["cat", "dog"]\nsoftmax = true\n'
        "[[priors]]\ncells = 2\nstep = 50\nsides = [20, 45]\nratios = [2]\n"
    )
    detector = read_detector(file)
    assert isinstance(detector, Ssd)
    assert detector.classes == CLASSES
    (found,) = detector.detections(
        {"boxes": np.zeros((1, 16, 4)), "scores": np.array([[[9.0, 0, 0]] * 15 + [[0, 9, 0]]])}
    )
    assert found.classes[0] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind =", "cannot be read as a detector"),
        ('kind = "rcnn"', "kind must be one of finished, selected, ssd, yolo, fastestdet"),
        ('kind = "yolo"', "classes must list the names"),
        ('kind = "yolo"\nclasses = ["a"]\npriors = []', "unknown priors; known are classes"),
        ('kind = "yolo"\nclasses = "cat"', "classes must list the names"),
        ('kind = "yolo"\nclasses = ["a"]\nsize = 3', "size is 3; expected a list"),
        ('kind = "yolo"\nclasses = ["a"]\nmost = 0.5', "most is 0.5; expected an integer"),
        ('kind = "yolo"\nclasses = ["a"]\nmost = -1', "most is -1; expected more than 0"),
        ('kind = "yolo"\nclasses = ["a"]\noverlap = 3', "overlap is 3; expected a share of 0 to 1"),
        ('kind = "yolo"\nclasses = ["a"]\nsize = [0, 9]', "expected more than 0"),
        ('kind = "yolo"\nclasses = ["a"]\nsize = [3]', "expected more than 0 for width and height"),
        ('kind = "yolo"\nclasses = ["a"]\nsize = ["3", "4"]', "expected more than 0 for width"),
        ('kind = "finished"\nclasses = ["a"]\nsize = [[3, 4], [5]]', "expected more than 0 for"),
        ('kind = "ssd"\nclasses = ["a"]\nvariances = [0.1]', "expected two numbers above 0"),
        ('kind = "ssd"\nclasses = ["a"]\nvariances = ["x", "y"]', "expected two numbers above 0"),
        ('kind = "yolo"\nclasses = ["a"]\nanchors = [1, 2]', "expected a list for each map"),
        ('kind = "yolo"\nclasses = ["a"]\nanchors = [[1, 2, 3]]', "of width and height above 0"),
        ('kind = "yolo"\nclasses = ["a"]\nanchors = [["1", "2"]]', "of width and height above 0"),
        ('kind = "yolo"\nclasses = ["a"]\nanchors = [[1, inf]]', "of width and height above 0"),
        (
            'kind = "ssd"\nclasses = ["a"]\npriors = [{cell = 1, step = 2.0}]',
            "priors cannot be made: .* 'cell'",
        ),
        (
            'kind = "ssd"\nclasses = ["a"]\n'
            "priors = [{cells = 1, step = 2.0, sides = [1.0], ratios = [0.0]}]",
            "priors cannot be made: .*division",
        ),
        ('kind = "finished"\nclasses = ["a"]\norder = "cxcywh"', "expected xyxy or yxyx"),
    ],
)
def test_files_that_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "d.toml").write_text(text)
    with pytest.raises(RecipeError, match=message):
        read_detector(tmp_path / "d.toml")
