"""Which random views are left out: those that the dense network takes for something else."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image

from fcpts_onnx.calibration import Calibration, load_calibration
from fcpts_onnx.model import Model, load
from fcpts_onnx.preparation import heads_of
from fcpts_onnx.preprocess import PRESETS
from fcpts_onnx.sparsity.augment import misleading_views
from fcpts_onnx.sparsity.losses import Loss
from fcpts_onnx.twin import Twin
from tests import networks

DIGITS = Path(__file__).parents[2] / "models"


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


def misleading(
    twin: Twin, calibration: Calibration, kinds: list[str], losses: dict[str, Loss] | None = None
) -> dict[str, str]:
    return misleading_views(twin, calibration, kinds, heads_of(twin, calibration, losses or {}))


def test_a_flip_that_changes_the_class_is_seen(tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:, :8] = 255
    for index in range(64):
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    model = Model(Path("m.onnx"), side_classifier())
    calibration = load_calibration(tmp_path, model, PRESETS["unit"])
    found = misleading(Twin(model), calibration, ["flip", "crop", "mix"])
    assert found.keys() == {"flip"}
    share = re.fullmatch("the dense network sees the same class in (..)% only", found["flip"])
    assert share is not None
    assert float(share[1]) == pytest.approx(50, abs=20)
    assert misleading(Twin(model), calibration, []) == {}
    # Whoever says that these are no classes is believed: the two values only change places.
    assert misleading(Twin(model), calibration, ["flip"], {"scores": "mse"}) == {}
    watching = Twin(model)
    watching.watched = tuple(step.outputs[0] for step in watching.steps[:-1])
    assert misleading(watching, calibration, ["flip", "crop", "mix"]) == found


@pytest.mark.parametrize(
    ("where", "left_out"),
    [((slice(None), slice(None)), set()), ((slice(None), slice(8)), {"flip"})],
    ids=["what is on either side", "what is on the left"],
)
def test_a_flip_that_moves_the_values_of_a_map_is_seen(
    where: tuple[slice, slice], left_out: set[str], tmp_path: Path
) -> None:
    """A detector of light that looks everywhere, or at one side alone."""
    for index in range(64):
        pixels = np.full((16, 16, 3), 40, np.uint8)
        pixels[:, (2, 5)[index % 2]] = 255
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    seen = np.zeros((1, 1, 16, 16), np.float32)
    seen[0, 0][where] = 1.0
    nodes = [helper.make_node("Mul", ["image", "seen"], ["map"])]
    shape = ["N", 3, 16, 16]
    model = Model(
        Path("m.onnx"), networks.make(nodes, {"seen": seen}, {"image": shape}, {"map": shape})
    )
    calibration = load_calibration(tmp_path, model, PRESETS["unit"])
    assert misleading(Twin(model), calibration, ["flip", "mix"]).keys() == left_out


def test_folders_by_class_show_all_classes() -> None:
    """A 0, an 8 and most of 1 stay what they are in a mirror; the first folders say little."""
    model = load(DIGITS / "digits.onnx")
    calibration = load_calibration(DIGITS / "labelled", model, PRESETS["unit"])
    assert "flip" in misleading(Twin(model), calibration, ["flip"])


def test_the_largest_value_of_an_embedding_is_no_class(tmp_path: Path) -> None:
    """A flip swaps its two values; all together they stay the same."""
    for index in range(64):
        pixels = np.full((16, 16, 3), 60, np.uint8)
        pixels[:, (slice(8), slice(8, None))[index % 2]] = 255
        Image.fromarray(pixels).save(tmp_path / f"{index:02}.png")
    proto = side_classifier()
    proto.graph.node.append(helper.make_node("LpNormalization", ["scores"], ["unit"], axis=1))
    proto.graph.output[0].name = "unit"
    model = Model(Path("m.onnx"), proto)
    calibration = load_calibration(tmp_path, model, PRESETS["unit"])
    assert misleading(Twin(model), calibration, ["flip"]) == {}
