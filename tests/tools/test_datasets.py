"""Data sets as published: each read, what it shows compared with what was packed."""

from __future__ import annotations

import csv
import json
import pickle
import shutil
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from fcpts_onnx.evaluate.annotations import annotated
from fcpts_onnx.sources import find_images
from tests import networks
from tests.networks import save_images
from tools import reproduce
from tools.datasets import DataSet, find

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 3, 32, 32), np.uint8)


def save_batch(file: Path, rows: np.ndarray, **labels: list[int]) -> None:
    """As CIFAR's publishers did: texts of Python 2 are bytes, an image is a row."""
    found = {b"data": rows.reshape(len(rows), -1), **{k.encode(): v for k, v in labels.items()}}
    file.write_bytes(pickle.dumps(found, protocol=2))


@pytest.fixture
def cifar10(tmp_path: Path) -> Path:
    place = tmp_path / "published" / "cifar-10-batches-py"
    place.mkdir(parents=True)
    for number in range(5):
        save_batch(place / f"data_batch_{number + 1}", PIXELS[number : number + 1], labels=[0])
    save_batch(place / "test_batch", PIXELS[6:], labels=[3, 1, 2, 1, 0, 3])
    return place.parent


def table(found: DataSet) -> dict[str, int]:
    with found.classes.open(newline="") as file:
        return {row["file"]: int(row["label"]) for row in csv.DictReader(file)}


def test_cifar_10(cifar10: Path, tmp_path: Path) -> None:
    found = find(cifar10, tmp_path / "unpacked")
    images = find_images(found.calib)
    shown = np.stack([np.asarray(Image.open(path)) for path in images])
    np.testing.assert_array_equal(shown, PIXELS[:5].transpose(0, 2, 3, 1))
    assert [*table(found).values()] == [3, 1, 2, 1, 0, 3]
    for name, pixels in zip(table(found), PIXELS[6:], strict=True):
        np.testing.assert_array_equal(
            np.asarray(Image.open(found.data / name)), pixels.transpose(1, 2, 0)
        )
    assert find(cifar10 / "cifar-10-batches-py", tmp_path / "unpacked") == found


def test_cifar_100_counts_fine_classes(tmp_path: Path) -> None:
    """Its files are called train and test, as folders of images are."""
    place = tmp_path / "cifar-100-python"
    place.mkdir()
    for name, rows in (("train", PIXELS[:8]), ("test", PIXELS[8:])):
        labels = {"fine_labels": [*range(70, 70 + len(rows))], "coarse_labels": [1] * len(rows)}
        save_batch(place / name, rows, **labels)
    found = find(place, tmp_path / "unpacked")
    assert len(find_images(found.calib)) == 8
    assert [*table(found).values()] == [70, 71, 72, 73]


class Call:
    """A pickle that calls something as it is read."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.mkdir, (Path("called"),)


def test_a_pickle_that_calls_is_refused(cifar10: Path, tmp_path: Path) -> None:
    (cifar10 / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps({b"data": Call()}))
    with pytest.raises(click.UsageError, match=r"cannot be read as a data set: it calls "):
        find(cifar10, tmp_path / "unpacked")
    assert not Path("called").exists()
    assert not (tmp_path / "unpacked").exists()


def test_unpacking_that_was_interrupted_begins_anew(cifar10: Path, tmp_path: Path) -> None:
    test_batch = cifar10 / "cifar-10-batches-py" / "test_batch"
    whole = test_batch.read_bytes()
    test_batch.write_bytes(whole[:100])
    with pytest.raises(click.UsageError, match="cannot be read as a data set"):
        find(cifar10, tmp_path / "unpacked")
    test_batch.write_bytes(whole)
    assert len(find_images(find(cifar10, tmp_path / "unpacked").data)) == 6


BOX = """<annotation><size><width>10</width><height>10</height></size><object><name>{}</name>
<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>10</ymax></bndbox></object></annotation>"""


def save_voc(root: Path, year: str, sets: dict[str, list[str]]) -> None:
    place = root / f"VOC{year}"
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (place / name).mkdir(parents=True)
    for name, pictures in sets.items():
        (place / "ImageSets" / "Main" / f"{name}.txt").write_text("\n".join([*pictures, ""]))
        for picture in pictures:
            Image.new("RGB", (10, 10)).save(place / "JPEGImages" / f"{picture}.jpg")
            (place / "Annotations" / f"{picture}.xml").write_text(BOX.format("cat"))


def test_voc_of_two_years_is_tested_where_there_is_a_test(tmp_path: Path) -> None:
    root = tmp_path / "VOCdevkit"
    save_voc(root, "2007", {"trainval": ["000001", "000002"], "test": ["000003"]})
    save_voc(root, "2012", {"trainval": ["2008_000001"], "train": ["2008_000001"]})
    for folder in (tmp_path, root):
        found = find(folder, tmp_path / "unpacked")
        calib = [path.stem for path in find_images(found.calib)]
        assert calib == ["000001", "000002", "2008_000001"]
        images = find_images(found.data)
        assert [path.stem for path in images] == ["000003"]
        (boxes,) = annotated(images, found.boxes, ["cat"])
        np.testing.assert_allclose(boxes.corners, [[0, 0, 0.5, 1]])


def test_voc_without_a_test(tmp_path: Path) -> None:
    save_voc(tmp_path, "2012", {"trainval": ["a", "b"], "train": ["a"], "val": ["b"]})
    found = find(tmp_path / "VOC2012", tmp_path / "unpacked")
    assert [path.stem for path in find_images(found.calib)] == ["a"]
    assert [path.stem for path in find_images(found.data)] == ["b"]
    (tmp_path / "VOC2012" / "JPEGImages" / "a.jpg").unlink()
    with pytest.raises(click.UsageError, match=r"a\.jpg is not there"):
        find(tmp_path / "VOC2012", tmp_path / "other")


@pytest.mark.parametrize("links", [True, False])
def test_years_of_voc_that_share_images(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The later one's are taken, and what a user has stays as it is."""
    for year in ("2011", "2012"):
        save_voc(tmp_path, year, {"trainval": ["a", "b"], "train": ["a"], "val": ["b"]})
        for kind, name in (("JPEGImages", "a.jpg"), ("Annotations", "b.xml")):
            with (tmp_path / f"VOC{year}" / kind / name).open("a") as file:
                file.write(f"<!-- {year} -->")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    if not links:
        monkeypatch.setattr(Path, "symlink_to", refused)
    found = find(tmp_path, tmp_path / "unpacked")
    assert {path: path.read_bytes() for path in before} == before
    assert (found.calib / "a.jpg").is_symlink() == links
    assert (found.calib / "a.jpg").read_bytes().endswith(b"<!-- 2012 -->")
    assert (found.boxes / "b.xml").read_bytes().endswith(b"<!-- 2012 -->")


def refused(*_: object) -> None:
    """A system that lets nobody link."""
    raise PermissionError


def test_what_was_unpacked_of_other_files_is_unpacked_anew(tmp_path: Path) -> None:
    sets = {"trainval": ["a", "b"], "train": ["a"], "val": ["b"]}
    save_voc(tmp_path, "2007", sets)
    assert [p.stem for p in find_images(find(tmp_path, tmp_path / "unpacked").data)] == ["b"]
    save_voc(tmp_path / "more", "2007", {"test": ["c"]})
    shutil.copytree(tmp_path / "more" / "VOC2007", tmp_path / "VOC2007", dirs_exist_ok=True)
    for _ in range(2):
        found = find(tmp_path, tmp_path / "unpacked")
        assert [path.stem for path in find_images(found.data)] == ["c"]
        assert [path.stem for path in find_images(found.calib)] == ["a", "b"]
        (found.calib / "kept").touch(exist_ok=True)
    assert (found.calib / "kept").is_file()


def test_coco(tmp_path: Path) -> None:
    save_images(tmp_path / "train2017", 3)
    (tmp_path / "val2017").mkdir()
    for name in ("7", "8"):
        Image.new("RGB", (20, 10)).save(tmp_path / "val2017" / f"{name}.jpg")
    known = {
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}],
        "images": [
            {"id": place, "file_name": f"{place}.jpg", "width": 20, "height": 10}
            for place in (7, 8)
        ],
        "annotations": [
            {"image_id": 7, "category_id": 90, "bbox": [5, 0, 10, 5], "iscrowd": 0},
            {"image_id": 7, "category_id": 1, "bbox": [0, 0, 20, 10], "iscrowd": 1},
        ],
    }
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(known))
    found = find(tmp_path, tmp_path / "unpacked")
    assert found.calib == tmp_path / "train2017"
    images = find_images(found.data)
    assert [path.name for path in images] == ["7.jpg"]  # 8 has no box
    (boxes,) = annotated(images, found.boxes, ["person", "toothbrush"])
    np.testing.assert_allclose(boxes.corners, [[0.25, 0, 0.75, 0.5], [0, 0, 1, 1]])
    assert boxes.classes.tolist() == [1, 0]
    assert boxes.difficult.tolist() == [False, True]


def test_imagenet(tmp_path: Path) -> None:
    images = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    for name in ("n02", "n01"):
        save_images(images / "train" / name, 2)
    save_images(images / "val", 2)
    names = [path.stem for path in find_images(images / "val")]
    lines = ["ImageId,PredictionString", f"{names[0]},n02 1 2 3 4 ", f"{names[1]},n01 1 1 2 2 "]
    (tmp_path / "LOC_val_solution.csv").write_text("\n".join(lines))
    found = find(tmp_path, tmp_path / "unpacked")
    assert (found.calib, found.data) == (images / "train", images / "val")
    assert table(found) == {f"{names[0]}.JPEG": 1, f"{names[1]}.JPEG": 0}


def test_what_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="expected calib or train, and val or test"):
        find(tmp_path, tmp_path / "unpacked")


def test_a_row_of_a_published_data_set(cifar10: Path, tmp_path: Path) -> None:
    networks.save(networks.cnn(size=32), tmp_path / "in.onnx")
    result = CliRunner().invoke(
        reproduce.main,
        [
            "table2/cifar-10/resnet-32/dense", "--cifar10", str(cifar10), "--out",
            str(tmp_path / "out"), "--model", f"cifar-10/ResNet-32={tmp_path / 'in.onnx'}",
        ],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (unpacked,) = (tmp_path / "out" / "data").iterdir()
    assert unpacked.name.startswith("cifar-10-")
    assert "(paper 93.53/99.77)" in result.output
