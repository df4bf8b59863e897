"""Detectors measured end to end, through the command line, and the real ones by others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import helper

import fcpts_onnx
from fcpts_onnx.cli import main
from tests import networks
from tests.networks import save_images
from tests.shared import SHARED, needs_shared

YOLO_LINES = "0 0.25 0.25 0.5 0.5\n1 0.75 0.75 0.5 0.5\n"
DETECTORS = Path(__file__).parents[2] / "tools" / "detectors"
DETECTOR = 'kind = "finished"\nclasses = ["cat", "dog"]\n'


def fixed_detector() -> onnx.ModelProto:
    """Says the same of every image: the cat of `YOLO_LINES`, and a dog in the wrong place."""
    constants = {
        "where": np.array([[[0, 0, 0.5, 0.5], [0.4, 0.4, 0.6, 0.6]]], np.float32),
        "what": np.array([[0, 1]], np.float32),
        "sure": np.array([[0.9, 0.8]], np.float32),
        "none": np.zeros(1, np.float32),
    }
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "none"], ["nothing"]),
        helper.make_node("Add", ["where", "nothing"], ["boxes"]),
        helper.make_node("Add", ["what", "nothing"], ["labels"]),
        helper.make_node("Add", ["sure", "nothing"], ["scores"]),
    ]
    outputs = {"boxes": [1, 2, 4], "labels": [1, 2], "scores": [1, 2]}
    return networks.make(nodes, constants, {"x": [1, 3, 8, 8]}, outputs)


@pytest.fixture
def detection(tmp_path: Path) -> Path:
    """A detector, three images with annotations, and what its outputs mean."""
    networks.save(fixed_detector(), tmp_path / "m.onnx")
    save_images(tmp_path / "images", 3)
    (tmp_path / "boxes").mkdir()
    for image in (tmp_path / "images").iterdir():
        (tmp_path / "boxes" / f"{image.stem}.txt").write_text(YOLO_LINES)
    (tmp_path / "d.toml").write_text(DETECTOR)
    return tmp_path


def run(place: Path, *options: str) -> Result:
    fixed = ("--data", str(place / "images"), "--detector", str(place / "d.toml"))
    return CliRunner().invoke(main, ["eval", str(place / "m.onnx"), *fixed, *options])


def test_eval(detection: Path) -> None:
    boxes = ("--boxes", str(detection / "boxes"))
    result = run(detection, *boxes, "--json", str(detection / "e.json"))
    assert result.exit_code == 0, result.output
    stored = json.loads((detection / "e.json").read_text())
    assert stored["by_class"] == {"cat": 1.0, "dog": 0.0}
    assert stored["scores"] == {"mAP50": 0.5, "mAP50 (2007)": 0.5}
    assert "m.onnx: mAP50 50.00%, mAP50 (2007) 50.00% on 3 images of 2 classes" in result.output
    assert "cat    100.00%" in result.output
    (detection / "names.txt").write_text("dog\ncat\n")  # the cat is a dog, and found as a cat
    result = run(detection, *boxes, "--labels", str(detection / "names.txt"))
    assert "mAP50 0.00%" in result.output


def test_a_batch_of_one_that_is_written_into_the_graph(detection: Path) -> None:
    """Boxes that NonMaxSuppression chose say of which image of a batch they are."""
    constants = {
        "row": np.array([1, 192]), "where": np.array([[[0, 0, 0.5, 0.5]]], np.float32),
        "sure": np.array([[[0.9], [0.1]]], np.float32), "none": np.zeros(1, np.float32),
        "most": np.array([5]), "overlap": np.float32([0.5]), "least": np.float32([0.5]),
    }  # fmt: skip
    nodes = [
        helper.make_node("Reshape", ["x", "row"], ["flat"]),
        helper.make_node("ReduceMean", ["flat"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("Mul", ["mean", "none"], ["nothing"]),
        helper.make_node("Add", ["where", "nothing"], ["boxes"]),
        helper.make_node("Add", ["sure", "nothing"], ["scores"]),
        helper.make_node(
            "NonMaxSuppression", ["boxes", "scores", "most", "overlap", "least"], ["selected"]
        ),
    ]
    outputs = {"boxes": ["N", 1, 4], "scores": ["N", 2, 1], "selected": ["M", 3]}
    proto = networks.make(nodes, constants, {"x": ["N", 3, 8, 8]}, outputs)
    proto.graph.output[2].type.tensor_type.elem_type = onnx.TensorProto.INT64
    networks.save(proto, detection / "m.onnx")
    (detection / "d.toml").write_text('kind = "selected"\nclasses = ["cat", "dog"]\n')
    found = run(detection, "--boxes", str(detection / "boxes"), "--json", str(detection / "e.json"))
    assert found.exit_code == 0, found.output
    assert json.loads((detection / "e.json").read_text())["by_class"] == {"cat": 1.0, "dog": 0.0}


def test_what_is_refused(detection: Path) -> None:
    def message(*options: str) -> str:
        result = run(detection, *options)
        assert result.exit_code == 1, result.output
        assert "Traceback" not in result.output
        return result.output

    boxes = ("--boxes", str(detection / "boxes"))
    assert "needs both --boxes and --detector" in message()
    (detection / "d.toml").write_text(DETECTOR.replace(', "dog"', ""))
    (detection / "names.txt").write_text("cat\ndog\n")
    names = ("--labels", str(detection / "names.txt"))
    assert "3 boxes are of 1 classes that the detector does not know: dog (3)" in message(
        *boxes, *names
    )
    (detection / "d.toml").write_text(DETECTOR + 'boxes = "b"\n')
    assert "the model has no output 'b'; it has boxes, labels, scores" in message(*boxes)
    assert "--label-offset is for classifiers" in message(*boxes, "--label-offset", "1")
    (detection / "d.toml").write_text(
        'kind = "finished"\nclasses = ["cow"]\nother_classes = true\n'
    )
    assert "has no box that counts: of the classes cow" in message(*boxes, *names)
    (detection / "d.toml").write_text(DETECTOR)
    next((detection / "boxes").iterdir()).unlink()
    assert "1 of 3 annotations cannot be used" in message(*boxes)


def test_boxes_of_images_that_cannot_be_read(detection: Path) -> None:
    """Not a mean of nothing, which JSON has no number for."""
    (detection / "d.toml").write_text(
        'kind = "finished"\nclasses = ["cat"]\nother_classes = true\n'
    )
    (detection / "names.txt").write_text("cat\ndog\n")
    broken, *others = sorted((detection / "images").iterdir())
    broken.write_bytes(broken.read_bytes()[:60])  # its header still says how large it is
    for image in others:
        (detection / "boxes" / f"{image.stem}.txt").write_text("1 0.75 0.75 0.5 0.5\n")
    result = run(
        detection, "--boxes", str(detection / "boxes"), "--labels", str(detection / "names.txt"),
        "--json", str(detection / "e.json"),
    )  # fmt: skip
    assert result.exit_code == 1
    assert (
        "has no box that counts in an image that can be read: of the classes cat" in result.output
    )
    assert not (detection / "e.json").exists()


def test_compare(place: Path) -> None:
    """A detector with weights: mAP stands where top-1 would."""
    networks.save(networks.detector(), place / "in.onnx")
    (place / "boxes").mkdir()
    for image in (place / "images").iterdir():
        (place / "boxes" / f"{image.stem}.txt").write_text(YOLO_LINES)
    (place / "d.toml").write_text('kind = "fastestdet"\nclasses = ["cat", "dog"]\n')
    found = fcpts_onnx.compare(
        place / "in.onnx", methods=["magnitude"], targets=[0.5], calib=place / "images",
        data=place / "images", boxes=place / "boxes", detector=place / "d.toml",
        out=place / "out",
    )  # fmt: skip
    (trial,) = found.trials
    assert trial.error is None
    assert set(trial.scores) == {"mAP50", "mAP50 (2007)"}
    assert "| mAP50 | mAP50 (2007) |" in (place / "out" / "results.md").read_text()


@needs_shared
@pytest.mark.parametrize(
    ("model", "preprocess", "detector", "published"),
    [
        ("fastestdet_coco", "fastestdet_images.toml", "fastestdet", 0.338),
        ("mobilenetv2_yolo_fastest_voc", "unit", "yolo_fastest_voc", 0.285),
        ("ssd_mobilenet_v1_coco_full_nms", "raw", "ssd_mobilenet_v1", 0.366),
    ],
)
def test_real_detectors(model: str, preprocess: str, detector: str, published: float) -> None:
    """As those measured them who collected the files, on the same 128 images."""
    named = str(DETECTORS / preprocess) if preprocess.endswith(".toml") else preprocess
    found = fcpts_onnx.evaluate(
        SHARED / "models" / f"{model}.onnx", data=SHARED / "data/coco/val", preprocess=named,
        boxes=SHARED / "data/coco/val_labels", labels=DETECTORS / "coco.txt",
        detector=DETECTORS / f"{detector}.toml",
    )  # fmt: skip
    assert found.samples == 128
    assert found.scores["mAP50"] == pytest.approx(published, abs=0.01)
