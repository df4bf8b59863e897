"""Finding what nobody trained, by its values."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from tests import networks
from tests.networks import values
from tests.test_weights import find

PLACES = "evenly spaced: bins or places"


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize(
    ("op", "shape"), [("Conv", (1, 16, 1, 1)), ("MatMul", (16, 1)), ("Gemm", (16, 1))]
)
def test_weights_that_count_bins(op: str, shape: tuple[int, ...], kind: str) -> None:
    """Distribution focal loss, as in YOLOv8 to v12: a mean over bins."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Softmax", ["c"], ["p"], axis=1),
        helper.make_node(op, ["p", "bins"], ["y"]),
    ]
    for values_of_bins, reason in (
        (np.arange(16.0), "counts bins: 0, 1, 2, ... (DFL)"),
        (np.arange(16.0) + 1, PLACES),
        (np.arange(16.0)[::-1], PLACES),
        (np.linspace(-3.3, 7, 16), PLACES),
        (np.full(16, 0.5), None),
        (np.sort(values(16)), None),
    ):
        stored = values_of_bins.reshape(shape).astype(kind)
        constants = {"w": values(16, 4, 1, 1), "bins": stored}
        found = find(networks.make(nodes, constants, {"x": ["N", 4, 4, 4]}, {"y": []}))
        assert found["w"].excluded is None
        assert found["bins"].excluded == reason


def test_bins_in_8_bits() -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scale"], ["bins"]),
        helper.make_node("Conv", ["x", "bins"], ["y"]),
    ]
    scale = np.float32(15 / 127)
    stored = np.round(np.arange(16) / scale).astype(np.int8).reshape(1, 16, 1, 1)
    shapes = {"x": ["N", 16, 4, 4]}, {"y": []}
    found = find(networks.make(nodes, {"q": stored, "scale": scale}, *shapes))
    assert found["q"].excluded == "counts bins: 0, 1, 2, ... (DFL)"


def test_two_bins_may_be_chance() -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    stored = np.array([[0], [1]], np.float32)
    assert (
        find(networks.make([node], {"w": stored}, {"x": ["N", 2]}, {"y": []}))["w"].excluded is None
    )


def multiplied(stored: np.ndarray) -> str | None:
    """Why the weight of a product of matrices is left out."""
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    proto = networks.make([node], {"w": stored}, {"x": ["N", stored.shape[-2]]}, {"y": []})
    return find(proto)["w"].excluded


@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_coordinates_of_a_grid(kind: str) -> None:
    """As a spatial transformer or a soft argmax has them, with homogeneous ones or without."""
    rows, columns = np.meshgrid(np.linspace(-1, 1, 12), np.linspace(0, 31, 9), indexing="ij")
    grid = np.stack([columns.ravel(), rows.ravel(), np.ones(108)], axis=1).astype(kind)
    for stored in (grid, grid[:, :2], grid[None], grid.T):
        assert multiplied(stored) == PLACES
    other = grid.copy()
    other[7, 0] += 0.5
    assert multiplied(other) is None
    assert multiplied(np.ones((108, 2), kind) / 2) is None


def test_zeros_and_ones() -> None:
    """Neighbours in a graph, or channels in another order."""
    order = np.eye(8, dtype=np.float32)[::-1]
    assert multiplied(order) == "only zeros and ones"
    assert multiplied(np.where(order, np.float32(0.5), 0)) is None
    assert multiplied(np.zeros((8, 8), np.float32)) is None  # those were pruned


BLUR = np.outer([1, 2, 1], [1, 2, 1]) / 16
SAME = "the same filter in each channel"


def depthwise(filters: np.ndarray, *, group: int = 8) -> str | None:
    """Why a weight of a convolution in groups is left out."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=group)
    shapes = {"x": ["N", filters.shape[1] * group, 8, 8]}, {"y": []}
    return find(networks.make([node], {"w": filters}, *shapes))["w"].excluded


@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_filters_that_are_the_same_in_each_channel(kind: str) -> None:
    """Of a blur before a stride (BlurPool)."""
    blur = np.tile(BLUR, (8, 1, 1, 1)).astype(kind)
    assert depthwise(blur) == SAME
    assert depthwise(blur[:, :, :1]) == SAME
    other = blur.copy()
    other[3, 0, 1, 1] += 0.01
    assert depthwise(other) is None


@pytest.mark.parametrize(
    ("shape", "group"), [((1, 1, 3, 3), 1), ((8, 1, 1, 1), 8), ((8, 2, 3, 3), 4)]
)
def test_layers_whose_filters_may_be_the_same(shape: tuple[int, ...], group: int) -> None:
    assert depthwise(np.full(shape, 0.5, np.float32), group=group) is None


def test_several_filters_that_are_the_same_in_each_channel() -> None:
    """Of a wavelet transform, and of the one back."""
    haar = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
    filters = np.tile(haar.reshape(4, 1, 2, 2), (8, 1, 1, 1)).astype(np.float32)
    assert depthwise(filters) == SAME
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], group=8)
    for stored in (filters, filters.reshape(8, 4, 2, 2)):
        shapes = {"x": ["N", len(stored), 8, 8]}, {"y": []}
        assert find(networks.make([node], {"w": stored}, *shapes))["w"].excluded == SAME
    shapes = {"x": ["N", 8, 8, 8]}, {"y": []}
    drawn = networks.make([node], {"w": values(8, 1, 2, 2)}, *shapes)
    assert find(drawn)["w"].excluded is None


def test_filters_that_were_pruned_are_weights_still() -> None:
    assert depthwise(np.zeros((8, 1, 3, 3), np.float32)) is None


def test_the_same_filters_behind_a_transpose() -> None:
    """As in files made from TFLite."""
    nodes = [
        helper.make_node("Transpose", ["w"], ["t"], perm=[3, 0, 1, 2]),
        helper.make_node("Conv", ["x", "t"], ["y"], group=8),
    ]
    blur = np.tile(BLUR[None, :, :, None], 8).astype(np.float32)
    found = find(networks.make(nodes, {"w": blur}, {"x": ["N", 8, 8, 8]}, {"y": []}))
    assert found["w"].excluded == SAME
