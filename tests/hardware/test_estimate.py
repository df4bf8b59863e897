"""What zeros save on a chip, at best: by hand, and beside what was measured on a CV22."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from fcpts_onnx.hardware import estimate, target_densities
from fcpts_onnx.hardware.estimate import layer_times
from fcpts_onnx.model import Model, load
from fcpts_onnx.weights import Weight, find_weights
from tests import networks
from tests.networks import loaded
from tools.networks import build, export

# Table 7 of the paper: the time of a CV22 relative to the dense network's, and memory in MB.
MEASURED = {
    "resnet18": {0.5: (0.593, 7.640), 0.6: (0.510, 6.530), 0.7: (0.418, 5.245)},
    "mobilenetv2": {0.5: (0.836, 6.488), 0.6: (0.830, 5.686), 0.7: (0.792, 5.235)},
}


def with_zeros(weights: list[Weight], share: float) -> dict[str, int]:
    return {weight.name: round(share * weight.count) for weight in weights}


def test_by_hand(tmp_path: Path) -> None:
    """3 x 3 of 64 channels can use zeros down to a density of 0.037, 1 x 1 of 4 to 4 not at all."""
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["h"], "a", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["h", "b"], ["y"], "b"),
    ]
    constants = {"a": networks.values(64, 64, 3, 3), "b": networks.values(4, 64, 1, 1)}
    model = loaded(
        networks.make(nodes, constants, {"x": ["N", 64, 8, 8]}, {"y": ["N", 4, 8, 8]}),
        tmp_path / "m.onnx",
    )
    weights = find_weights(model)
    a, b = 64 * 64 * 9, 4 * 64
    # b: 1 / (2 x 0.0234375 x 64/4 x 4), of the three what an output takes is least.
    bound = 1 / (2 * min(0.046875, 0.03125 * 16, 0.0234375 * 16) * 4)
    dense = a + b * max(1, bound)
    for share, left in ((0.0, 1.0), (0.5, 0.5), (0.99, 0.037)):
        found = estimate(model, weights, with_zeros(weights, share), "cv22")
        taken = a * max(1 - share, left) + b * max(1 - share, bound)
        assert found.time == pytest.approx(taken / dense, rel=1e-2)
    assert found.dense_bytes == a + b
    half = estimate(model, weights, with_zeros(weights, 0.5), "cv22")
    assert half.weight_bytes == (a + b) // 2 + (a + b) // 8


@pytest.fixture(scope="module", params=MEASURED)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("networks") / f"{request.param}.onnx"
    export(build(request.param), path, size=224)
    return load(path)


def test_against_a_cv22(network: Model) -> None:
    """A bound from below: nothing is measured faster, and what gains more is estimated so."""
    weights = find_weights(network)
    for share, (time, memory) in MEASURED[network.path.stem].items():
        found = estimate(network, weights, with_zeros(weights, share), "cv22")
        assert found.time < time < found.time + 0.3
        if network.path.stem == "resnet18":
            assert found.weight_bytes / 1e6 == pytest.approx(memory, rel=0.07)


def test_a_weight_that_is_used_twice_and_a_resize(tmp_path: Path) -> None:
    """Its products count twice, its bytes once; what Resize makes of 8 x 8 is known."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"], "one"),
        helper.make_node("Resize", ["h", "", "scales"], ["r"], "resize"),
        helper.make_node("Conv", ["r", "w"], ["s"], "two"),
        helper.make_node("Conv", ["s", "v"], ["y"], "three"),
    ]
    constants = {
        "w": networks.values(64, 64, 3, 3), "v": networks.values(64, 64, 3, 3),
        "scales": np.array([1, 1, 2, 2], np.float32),
    }  # fmt: skip
    proto = networks.make(nodes, constants, {"x": ["N", 64, 8, 8]}, {"y": ["N", 64, 8, 8]})
    model = loaded(proto, tmp_path / "m.onnx")
    weights = find_weights(model)
    found = estimate(model, weights, {"w": weights[0].count // 2}, "cv22")
    of_w, of_v = 6 * 6 + 10 * 10, 8 * 8
    assert found.time == pytest.approx((0.5 * of_w + of_v) / (of_w + of_v), rel=1e-6)
    assert found.dense_bytes == 2 * 64 * 64 * 9


def test_open_sizes(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], "c")]
    model = loaded(
        networks.make(
            nodes, {"w": networks.values(4, 3, 1, 1)}, {"x": ["N", 3, None, None]},
            {"y": ["N", 4, None, None]},
        ),
        tmp_path / "m.onnx",
    )  # fmt: skip
    weights = find_weights(model)
    assert estimate(model, weights, {}, "cv22") is None
    found = estimate(model, weights, {"w": 6}, "cv22", size=(4, 8))
    assert found is not None
    assert (found.known, found.layers) == (1, 1)


def test_lengths_that_are_stored_as_minus_one_are_open(tmp_path: Path) -> None:
    """Two of them used to cancel each other out, one counted as a single place."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"], "one"),
        helper.make_node("Conv", ["h", "v"], ["y"], "two", strides=[2, 2]),
    ]
    constants = {"w": networks.values(4, 3, 1, 1), "v": networks.values(4, 4, 1, 1)}
    proto = networks.make(nodes, constants, {"x": [-1, 3, -1, -1]}, {"y": [-1, 4, -1, -1]})
    proto.graph.value_info.append(helper.make_tensor_value_info("h", 1, [-1, 4, -1, -1]))
    model = loaded(proto, tmp_path / "m.onnx")
    weights = find_weights(model)
    assert estimate(model, weights, {}, "cv22") is None
    times = layer_times(model, weights, "cv22", size=(4, 8))
    fixed = networks.make(nodes, constants, {"x": ["N", 3, 4, 8]}, {"y": ["N", 4, 2, 4]})
    assert times == layer_times(loaded(fixed, tmp_path / "n.onnx"), weights, "cv22")


def test_constants_that_are_listed_as_inputs(tmp_path: Path) -> None:
    """As before IR version 4; an empty one, of the region of a Resize, stays empty."""
    nodes = [
        helper.make_node("Resize", ["x", "roi", "scales"], ["h"], "up"),
        helper.make_node("Conv", ["h", "w"], ["y"], "one"),
    ]
    constants = {
        "w": networks.values(4, 3, 1, 1), "roi": np.zeros(0, np.float32),
        "scales": np.array([1, 1, 2, 2], np.float32),
    }  # fmt: skip
    shapes = {"x": ["N", 3, 4, 8]}, {"y": ["N", 4, 8, 16]}
    proto = networks.make(nodes, constants, *shapes, opset=11, ir_version=3)
    for name, array in constants.items():
        proto.graph.input.append(helper.make_tensor_value_info(name, 1, array.shape))
    model = loaded(proto, tmp_path / "m.onnx")
    assert estimate(model, find_weights(model), {"w": 6}, "cv22") is not None


@pytest.mark.parametrize("batch", ["N", 5])
def test_products_count_for_each_place_however_they_are_written(
    batch: int | str, tmp_path: Path
) -> None:
    """Samples folded into places, as TensorFlow writes products, and a weight on the left."""
    w, tokens = networks.values(64, 96), 7
    plain = [helper.make_node("MatMul", ["x", "w"], ["y"], "m")]
    folded = [
        helper.make_node("Reshape", ["x", "flat"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["g"], "m"),
        helper.make_node("Reshape", ["g", "back"], ["y"]),
    ]
    left = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["w", "t"], ["u"], "m"),
        helper.make_node("Transpose", ["u"], ["y"], perm=[0, 2, 1]),
    ]
    shapes = {"flat": np.array([-1, 64]), "back": np.array([-1, tokens, 96])}
    found = []
    for nodes, constants in (
        (plain, {"w": w}), (folded, {"w": w, **shapes}), (left, {"w": np.ascontiguousarray(w.T)}),
    ):  # fmt: skip
        proto = networks.make(
            nodes, constants, {"x": [batch, tokens, 64]}, {"y": [batch, tokens, 96]}
        )
        model = loaded(proto, tmp_path / "m.onnx")
        found.append(layer_times(model, find_weights(model), "cv22")["w"])
    assert found[0][0.0] == tokens * 64 * 96
    assert found == [found[0]] * 3


def test_layers_that_a_chip_is_not_known_to_have(tmp_path: Path) -> None:
    """Their bytes count; their time is said to be left out."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"], "line"),
        helper.make_node("Flatten", ["h"], ["f"]),
        helper.make_node("Gemm", ["f", "v"], ["y"], "fc"),
    ]
    constants = {"w": networks.values(8, 4, 3), "v": networks.values(48, 5)}
    proto = networks.make(nodes, constants, {"x": ["N", 4, 8]}, {"y": ["N", 5]})
    model = loaded(proto, tmp_path / "m.onnx")
    found = estimate(model, find_weights(model), {}, "cv22")
    assert found is not None
    assert (found.known, found.layers, found.dense_bytes) == (1, 2, 8 * 4 * 3 + 48 * 5)


def test_weights_without_values_count_for_nothing(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "one"),
        helper.make_node("MatMul", ["h", "void"], ["v"], "two"),
        helper.make_node("MatMul", ["v", "back"], ["y"], "three"),
    ]
    constants = {"w": networks.values(4, 8), "void": networks.values(8, 0)}
    constants["back"] = networks.values(0, 8)
    proto = networks.make(nodes, constants, {"x": ["N", 4]}, {"y": ["N", 8]})
    model = loaded(proto, tmp_path / "m.onnx")
    weights = find_weights(model)
    assert {weight.name for weight in weights if not weight.count} == {"void", "back"}
    assert target_densities(model, weights, "cv22").keys() == {"w"}
    found = estimate(model, weights, {}, "cv22")
    assert found is not None
    assert (found.known, found.layers, found.dense_bytes) == (1, 1, 32)


def test_types_that_contradict_each_other_tell_no_sizes(tmp_path: Path) -> None:
    proto = networks.cnn()
    proto.graph.value_info.append(helper.make_tensor_value_info("c", 7, ["N", 8, 8, 8]))
    model = loaded(proto, tmp_path / "m.onnx")
    found = estimate(model, find_weights(model), {}, "cv22")
    assert found is not None
    assert found.weight_bytes == 320
