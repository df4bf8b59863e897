"""Where zeros may lie: groups by hand, blocks that are whole, counts that hold, and learning."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

import fcpts_onnx
from fcpts_onnx.errors import TargetError
from fcpts_onnx.model import load
from fcpts_onnx.sparsity.budget import Budget
from fcpts_onnx.sparsity.pattern import PATTERNS
from fcpts_onnx.weights import Weight
from tests import networks


def weight(
    *shape: int, axis: int | None = 0, along: int | None = 1, zeros: int = 0, name: str = "w"
) -> Weight:
    """A weight with output channels on one axis and input channels along another."""
    return Weight(name, shape, "float32", "Conv", ("n",), axis, zeros, input_axis=along)


def sizes(*shape: int) -> Tensor:
    return torch.from_numpy(networks.values(*shape)).abs()


def grouped(mask: np.ndarray, axis: int, length: int) -> np.ndarray:
    """The whole groups along an axis, a row each."""
    moved = np.moveaxis(mask, axis, -1)
    whole = moved.shape[-1] // length * length
    return moved[..., :whole].reshape(-1, length)


def test_groups_by_hand() -> None:
    """The two smallest of each four; of ties the first; a fifth is left alone."""
    values = torch.tensor([[4.0, 1.0, 3.0, 2.0, 0.0], [7.0, 7.0, 7.0, 7.0, 0.0]])
    two_of_four = PATTERNS["2:4"]
    one = weight(2, 5)
    assert two_of_four.most(one) == 4
    expected = [[1, 0, 1, 0, 1], [0, 0, 1, 1, 1]]
    assert two_of_four.mask(one, values, 4).tolist() == expected


@pytest.mark.parametrize(
    ("shape", "along"),
    [
        ((8, 16, 3, 3), 1),
        ((16, 8, 3, 3), 0),
        ((8, 4, 4, 16), 3),
        ((12, 16), 1),
        ((2, 16, 12), 1),
        ((8, 19, 1), 1),
    ],
    ids=str,
)
@pytest.mark.parametrize(("name", "kept", "of"), [("2:4", 2, 4), ("4:8", 4, 8)])
def test_groups_lie_along_the_axis_that_is_summed_over(
    shape: tuple[int, ...], along: int, name: str, kept: int, of: int
) -> None:
    pattern, one = PATTERNS[name], weight(*shape, along=along)
    mask = pattern.mask(one, sizes(*shape), pattern.most(one)).numpy()
    assert (grouped(mask, along, of).sum(1) == kept).all()
    assert int((mask == 0).sum()) == pattern.most(one)


def test_layers_without_groups_stay_dense() -> None:
    for one in (weight(8, 1, 3, 3), weight(8, 3, 3, 3), weight(8, 8, along=None)):
        values = sizes(*one.shape)
        assert PATTERNS["2:4"].most(one) == 0
        assert PATTERNS["2:4"].mask(one, values, 0).all()
        assert (PATTERNS["2:4"].ranked(one, values) == math.inf).all()
    assert PATTERNS["1x4"].most(weight(8, 8, axis=None)) == 0
    assert PATTERNS["1x4"].mask(weight(8, 8, axis=None), sizes(8, 8), 0).all()


@pytest.mark.parametrize("zeros", [0, 4, 96, 288])
def test_blocks_are_whole(zeros: int) -> None:
    """Ten output channels: two blocks of four at each place, and two channels left alone."""
    pattern, one = PATTERNS["1x4"], weight(10, 4, 3, 3)
    values = sizes(10, 4, 3, 3)
    values[:8, 0] = 0.0  # many of one size
    mask = pattern.mask(one, values, zeros).numpy()
    assert pattern.most(one) == 288
    assert int((mask == 0).sum()) == zeros
    assert set(grouped(mask, 0, 4).sum(1)) <= {0.0, 4.0}
    assert mask[8:].all()


def test_blocks_of_the_least_energy_go_first() -> None:
    values = torch.ones(8, 1)
    values[0], values[4:] = 3.0, 2.0  # root mean squares of 1.7 and 2.0
    assert PATTERNS["1x4"].mask(weight(8, 1), values, 4)[:, 0].tolist() == [0] * 4 + [1] * 4


def test_budget_of_groups() -> None:
    weights = [weight(8, 3, 3, 3, name="a"), weight(8, 8, 3, 3, name="b")]
    budget = Budget.of(weights, None, pattern=PATTERNS["2:4"])
    assert (budget.zeros, budget.most) == (288, {"a": 0, "b": 288})
    assert budget.target == 288 / 792
    assert Budget.of(weights, 288 / 792, pattern=PATTERNS["2:4"]) == budget
    with pytest.raises(TargetError, match=r"0\.5; with the pattern 0\.363636 of the weights"):
        Budget.of(weights, 0.5, pattern=PATTERNS["2:4"])
    with pytest.raises(TargetError, match="No layer has a whole group"):
        Budget.of(weights[:1], None, pattern=PATTERNS["2:4"])
    with pytest.raises(TargetError, match=r"0\.5208 are already\. Prune the dense model"):
        Budget.of([weight(8, 8, 3, 3, zeros=300)], None, pattern=PATTERNS["2:4"])
    with pytest.raises(TargetError, match="There is no target"):
        Budget.of(weights, None)


@pytest.mark.parametrize("target", [0.1, 0.5, 0.77, 0.9])
def test_budget_of_blocks(target: float) -> None:
    weights = [weight(c, 8, 3, 3, zeros=5, name=n) for n, c in (("a", 8), ("b", 10), ("c", 64))]
    budget = Budget.of(weights, target, pattern=PATTERNS["1x4"])
    count = sum(one.count for one in weights)
    assert abs(budget.zeros - target * count) <= 2
    for wanted in (0.0, 77.7, 1e9):
        for zeros in (None, 400):
            found = budget.counts(dict.fromkeys("abc", wanted), zeros)
            assert sum(found.values()) == (budget.zeros if zeros is None else 400)
            assert all(value % 4 == 0 and value <= budget.most[n] for n, value in found.items())


@pytest.mark.parametrize("pattern", ["2:4", "4:8", "1x4"])
@pytest.mark.parametrize(
    "how", [{}, {"allocate": "uniform"}, {"allocate": "l2norm", "reconstruct": "none"}], ids=str
)
def test_learned_files_keep_to_it(pattern: str, how: dict[str, str], tmp_path: Path) -> None:
    """Counted in the saved file, layer by layer."""
    networks.save(networks.perceptron(), tmp_path / "in.onnx")
    (tmp_path / "quick.toml").write_text(networks.QUICK)
    data = networks.values(64, 6, scale=1.0)
    result = fcpts_onnx.prune(
        tmp_path / "in.onnx", tmp_path / "out.onnx", pattern=pattern, calib=[data],
        target=0.5 if pattern == "1x4" else None, recipe=str(tmp_path / "quick.toml"), **how,
    )  # fmt: skip
    saved, length = load(tmp_path / "out.onnx"), int(pattern[-1])
    total = 0
    for found in fcpts_onnx.inspect(tmp_path / "in.onnx").weights:
        mask = saved.array(found.name) != 0
        total += int((~mask).sum())
        axis = found.channel_axis if pattern == "1x4" else found.input_axis
        kept = grouped(mask, axis, length).sum(1)
        assert set(kept) <= ({0, 4} if pattern == "1x4" else {length // 2})
        assert np.moveaxis(mask, axis, -1)[..., mask.shape[axis] // length * length :].all()
    assert total == result.zeros
    assert result.pattern == pattern


@pytest.mark.parametrize("how", [{}, {"allocate": "uniform", "reconstruct": "none"}], ids=str)
@pytest.mark.parametrize("pattern", ["2:4", "1x4"])
def test_weights_with_zeros_already(pattern: str, how: dict[str, str], tmp_path: Path) -> None:
    """A layer whose input channels come in no whole group keeps them; the pattern's are exact."""
    proto = networks.cnn()
    for tensor in proto.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor).copy()
        if tensor.name in ("conv.w", "fc.w"):
            array.reshape(-1)[::3] = 0.0
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    networks.save(proto, tmp_path / "in.onnx")
    (tmp_path / "quick.toml").write_text(networks.QUICK)
    networks.save_images(tmp_path / "images", 16)
    result = fcpts_onnx.prune(
        tmp_path / "in.onnx", tmp_path / "out.onnx", pattern=pattern, calib=tmp_path / "images",
        target=0.5 if pattern == "1x4" else None, recipe=str(tmp_path / "quick.toml"), **how,
    )  # fmt: skip
    before, after = load(tmp_path / "in.onnx"), load(tmp_path / "out.onnx")
    if pattern == "2:4":
        assert not after.array("conv.w")[before.array("conv.w") == 0].any()
        assert (grouped(after.array("fc.w") != 0, 1, 4).sum(1) == 2).all()
    names = [weight.name for weight in result.validation.weights]
    assert sum(int((after.array(name) == 0).sum()) for name in names) == result.zeros


def test_other_methods_are_refused(tmp_path: Path) -> None:
    networks.save(networks.perceptron(), tmp_path / "in.onnx")
    data = networks.values(64, 6, scale=1.0)
    for more, message in (
        ({"pattern": "3:4"}, "--pattern 3:4 is unknown"),
        ({"allocate": "erk", "reconstruct": "wanda"}, "chooses zeros itself"),
        ({"recipe": "paper"}, "keeps to no pattern"),
    ):
        options = {"pattern": "2:4", **more}
        with pytest.raises(TargetError, match=message):
            fcpts_onnx.prune(tmp_path / "in.onnx", tmp_path / "o.onnx", calib=[data], **options)


def test_convolutions_that_are_stored_channels_last(tmp_path: Path) -> None:
    """As files made from TFLite: groups lie along the input channels, not along the kernel."""
    nodes = [
        onnx.helper.make_node("Transpose", ["w"], ["v"], perm=[0, 3, 1, 2]),
        onnx.helper.make_node("Conv", ["x", "v"], ["y"], kernel_shape=[4, 4]),
    ]
    shapes = {"x": ["N", 8, 6, 6]}, {"y": ["N", 4, 3, 3]}
    networks.save(networks.make(nodes, {"w": networks.values(4, 4, 4, 8)}, *shapes), tmp_path / "m")
    (tmp_path / "quick.toml").write_text(networks.QUICK)
    fcpts_onnx.prune(
        tmp_path / "m", tmp_path / "out.onnx", pattern="2:4",
        calib=[networks.values(16, 8, 6, 6, scale=1.0)], recipe=str(tmp_path / "quick.toml"),
    )  # fmt: skip
    assert (grouped(load(tmp_path / "out.onnx").array("w") != 0, 3, 4).sum(1) == 2).all()
