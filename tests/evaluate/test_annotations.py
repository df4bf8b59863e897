"""Annotated boxes: PASCAL VOC's XML, YOLO's text, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcpts_onnx.errors import CalibrationError
from fcpts_onnx.evaluate.annotations import annotated

CLASSES = ("cat", "dog")
XML = """<annotation><size><width>200</width><height>100</height></size>
<object><name>dog</name><difficult>1</difficult>
<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>100</xmax><ymax>50</ymax></bndbox></object>
<object><name>cat</name>
<bndbox><xmin>101</xmin><ymin>51</ymin><xmax>200</xmax><ymax>100</ymax></bndbox></object>
</annotation>"""


def test_voc(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(XML)
    (boxes,) = annotated([Path("images/a.jpg")], tmp_path, CLASSES)
    np.testing.assert_allclose(boxes.corners, [[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]])
    assert boxes.classes.tolist() == [1, 0]
    assert boxes.difficult.tolist() == [True, False]


def test_yolo(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1 0.5 0.5 0.2 0.4\n0 0.1 0.2 0.2 0.4\n")
    (boxes,) = annotated([Path("a.png")], tmp_path, CLASSES)
    np.testing.assert_allclose(boxes.corners, [[0.4, 0.3, 0.6, 0.7], [0, 0, 0.2, 0.4]])
    assert boxes.classes.tolist() == [1, 0]
    # The numbers of another list stand for other names.
    (other,) = annotated([Path("a.png")], tmp_path, CLASSES, ("dog", "cat"))
    assert other.classes.tolist() == [0, 1]


def test_classes_that_the_detector_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(XML)
    (tmp_path / "b.xml").write_text(XML)
    images = [Path("a.jpg"), Path("b.jpg")]
    with pytest.raises(CalibrationError, match=r"2 boxes are of 1 classes .*: dog \(2\)\."):
        annotated(images, tmp_path, ("cat",))
    assert [len(boxes) for boxes in annotated(images, tmp_path, ("cat",), leave_out=True)] == [1, 1]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.xml", "<annotation>", "a: no element found"),
        ("a.xml", "<annotation></annotation>", "a: it has no size of the image"),
        ("a.xml", XML.replace("object", "thing"), "a: it has no boxes"),
        ("a.xml", XML.replace("xmin", "min"), "a: an object has no box"),
        ("a.txt", "", "a: it has no boxes"),
        ("a.txt", "1 0.5 0.5 0.2\n", "a: '1 0.5 0.5 0.2' is not a class from 0 on"),
        ("a.txt", "2 0.5 0.5 0.2 0.1\n", "of class 2, and there are names for 2"),
        ("a.txt", "1 x 0.5 0.2 0.1\n", "could not convert string to float"),
        ("a.txt", "1 120 80 40 30\n", "a box from (100, 65) to (140, 95) in shares"),
        ("a.txt", "1 nan 0.5 0.2 0.1\n", "a box from (nan, 0.45) to (nan, 0.55)"),
        ("a.txt", "1 0.5 0.5 -0.2 0.1\n", "a box from (0.6, 0.45) to (0.4, 0.55)"),
        ("a.xml", XML.replace(">50<", ">900<"), "to (0.5, 9) in shares"),
        ("a.xml", f'<?xml version="1.0" encoding="nope"?>{XML}', "unknown encoding"),
        ("c.txt", "", "a: there is neither a.xml nor a.txt"),
    ],
)
def test_what_cannot_be_used(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("1 0.5 0.5 0.2 0.1\n")
    (tmp_path / name).write_text(text)
    with pytest.raises(CalibrationError, match="1 of 2 annotations cannot be used") as raised:
        annotated([Path("a.jpg"), Path("b.jpg")], tmp_path, CLASSES)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((200, 100), None),
        ((99, 50), None),
        (
            (100, 100),
            "a: it is of an image 200 wide and 100 high, and that is 100 wide and 100 high",
        ),
        (
            (100, 200),
            "100 wide and 200 high: its boxes are of the rotated picture, so turn",
        ),
    ],
)
def test_an_image_of_another_shape(
    size: tuple[int, int], message: str | None, tmp_path: Path
) -> None:
    (tmp_path / "a.xml").write_text(XML)
    Image.new("RGB", size).save(tmp_path / "a.png")
    if message is None:
        assert len(annotated([tmp_path / "a.png"], tmp_path, CLASSES)[0]) == 2
        return
    with pytest.raises(CalibrationError) as raised:
        annotated([tmp_path / "a.png"], tmp_path, CLASSES)
    assert message in str(raised.value)


def test_what_is_unclear(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(XML)
    with pytest.raises(CalibrationError, match="several images of the name a"):
        annotated([Path("x/a.jpg"), Path("y/a.png")], tmp_path, CLASSES)
    twice = ("cat", "dog", "cat")
    with pytest.raises(CalibrationError, match=r"'cat', which .* more than once\. If .* --labels"):
        annotated([Path("a.jpg")], tmp_path, twice)
    with pytest.raises(CalibrationError, match=r"more than once\.$"):
        annotated([Path("a.jpg")], tmp_path, twice, names=twice)
    assert len(annotated([Path("a.jpg")], tmp_path, ("none", "cat", "none", "dog"))) == 1
