"""Which random views are used: those that the dense network sees as the same class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image

from fcpts_onnx.calibration import load_calibration
from fcpts_onnx.model import Model
from fcpts_onnx.preprocess import PRESETS
from fcpts_onnx.sparsity.augment import usable_views
from fcpts_onnx.twin import Twin
from tests import networks


def side_classifier() -> onnx.ModelProto:
    """Class 0 when the left half is brighter than the right one."""
    halves = np.zeros((3, 16, 16, 2), np.float32)
    halves[:, :, :8, 0] = halves[:, :, 8:, 1] = 1.0
    nodes = [
        helper.make_node("Flatten", ["image"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["scores"]),
    ]
    constants = {"w": halves.reshape(-1, 2)}
    return networks.make(nodes, constants, {"image": ["N", 3, 16, 16]}, {"scores": ["N", 2]})


def test_a_flip_that_changes_the_class_is_seen(tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:, :8] = 255
    for index in range(64):
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    model = Model(Path("m.onnx"), side_classifier())
    calibration = load_calibration(tmp_path, model, PRESETS["unit"])
    found = usable_views(Twin(model), calibration, ["flip", "crop", "mix"])
    assert found["flip"] == pytest.approx(0.5, abs=0.2)
    assert found["crop"] == found["mix"] == 1.0
    assert usable_views(Twin(model), calibration, []) == {}
    watching = Twin(model)
    watching.watched = tuple(step.outputs[0] for step in watching.steps[:-1])
    assert usable_views(watching, calibration, ["flip", "crop", "mix"]) == found


def test_nothing_is_said_of_arrays_or_of_outputs_without_classes(tmp_path: Path) -> None:
    model = Model(Path("m.onnx"), networks.cnn())
    arrays = load_calibration([networks.values(8, 3, 8, 8)], model, PRESETS["raw"])
    assert usable_views(Twin(model), arrays, ["flip"]) == {}
    nodes = [helper.make_node("Relu", ["image"], ["map"])]
    proto = networks.make(nodes, {}, {"image": ["N", 3, 8, 8]}, {"map": ["N", 3, 8, 8]})
    filter_model = Model(Path("m.onnx"), proto)
    networks.save_images(tmp_path, 4)
    images = load_calibration(tmp_path, filter_model, PRESETS["raw"])
    assert usable_views(Twin(filter_model), images, ["flip", "mix"]) == {}
