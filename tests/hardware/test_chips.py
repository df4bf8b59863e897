"""What zeros are worth on a chip: the published formula, and layers read off a graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from onnx import helper

from fcpts_onnx.errors import TargetError
from fcpts_onnx.hardware.chips import CHIPS, Convolution, target_densities, target_density
from fcpts_onnx.weights import find_weights
from tests import networks
from tests.networks import loaded, values

PLAIN = Convolution(64, 64, kernel=(3, 3))


def test_the_published_check() -> None:
    assert target_density(PLAIN, "cv22") == pytest.approx(1 / (2 * 0.0234375 * 9 * 64))


@pytest.mark.parametrize(
    ("chip", "layer", "density"),
    [
        ("cv2", PLAIN, 1 / (0.0234375 * 9 * 64)),
        ("cv2fs", PLAIN, 1 / (2 * 0.03125 * 9 * 64)),  # inputs bind before its faster outputs
        ("cv25", replace(PLAIN, strides=(2, 2)), 1 / (2 * 0.046875 * 9 * 64)),  # weights bind
        ("cv22", replace(PLAIN, strides=(2, 1)), 1 / (2 * 0.046875 * 9 * 64)),
        ("cv22", replace(PLAIN, inputs=16), 1 / (2 * 0.0234375 / 4 * 9 * 64)),
        ("cv22", replace(PLAIN, inputs=16, pooling=(2, 1)), 1 / (2 * 0.03125 / 4 * 9 * 64)),
        ("cv22", replace(PLAIN, depthwise=True), 1.0),
        ("cv22", Convolution(512, 1000), 1 / (2 * 0.0234375 * 0.512 * 1000)),
        ("cv22", replace(PLAIN, kernel=(7, 7), dilations=(2, 2)), 1 / (2 * 0.0234375 * 4 * 64)),
        ("cv22", replace(PLAIN, kernel=(11, 1)), 1 / (2 * 0.0234375 * 11 * 64)),
        # 13 places: pieces of 7 from 0 on and of 1 from 12 on.
        ("cv22", replace(PLAIN, kernel=(3, 1), dilations=(6, 1)), 1 / (2 * 0.0234375 * 64)),
        # 19 places: pieces of 7 from 0 and 12 on.
        ("cv22", replace(PLAIN, kernel=(4, 1), dilations=(6, 1)), 1 / (2 * 0.0234375 * 7 * 64)),
        ("cv22", replace(PLAIN, kernel=(3, 1), dilations=(11, 1)), 1 / (2 * 0.0234375 * 64)),
    ],
)
def test_target_density(chip: str, layer: Convolution, density: float) -> None:
    assert target_density(layer, chip) == pytest.approx(density)


def test_an_unknown_chip() -> None:
    with pytest.raises(TargetError, match="--hardware tpu is unknown; expected cv2, cv2aq, cv22"):
        target_density(PLAIN, "tpu")
    assert target_density(PLAIN, "cv25aq") == target_density(PLAIN, "cv22")
    assert len(CHIPS) == 8


def test_layers_of_a_graph(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["1"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["1"], ["2"]),
        helper.make_node("MaxPool", ["2"], ["3"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["3", "b"], ["4"], group=8),
        helper.make_node("GlobalAveragePool", ["4"], ["5"]),
        helper.make_node("Flatten", ["5"], ["6"]),
        helper.make_node("Gemm", ["6", "c"], ["y"], transB=1),
    ]
    constants = {"a": values(8, 3, 3, 3), "b": values(8, 1, 3, 3), "c": values(4, 8)}
    shapes = {"x": ["N", 3, 16, 16]}, {"y": ["N", 4]}
    model = loaded(networks.make(nodes, constants, *shapes), tmp_path / "m.onnx")
    layers = {
        "a": Convolution(3, 8, False, (3, 3), (2, 2), pooling=(2, 2)),
        "b": Convolution(8, 8, True, (3, 3)),
        "c": Convolution(8, 4),
    }
    expected = {name: target_density(layer, "cv22") for name, layer in layers.items()}
    assert target_densities(model, find_weights(model), "cv22") == pytest.approx(expected)
