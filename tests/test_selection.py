"""What the user leaves to prune, by names and places."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import helper

import fcpts_onnx
from fcpts_onnx import Recipe
from fcpts_onnx.along import learned_along
from fcpts_onnx.errors import TargetError
from fcpts_onnx.model import Model, load
from fcpts_onnx.selection import select
from tests import networks
from tests.networks import values


def test_select() -> None:
    model = Model(Path("m.onnx"), networks.cnn())

    def left(**options: tuple[str, ...]) -> list[str]:
        return [w.name for w in select(model, **options) if w.excluded is None]

    assert left() == ["conv.w", "depthwise.w", "fc.w"]
    assert left(exclude=("depth*",)) == ["conv.w", "fc.w"]
    assert left(exclude=("fc",)) == ["conv.w", "depthwise.w"]
    assert left(include=("conv.w", "fc*")) == ["conv.w", "fc.w"]
    assert left(include=("*.w",), exclude=("conv*",)) == ["depthwise.w", "fc.w"]
    assert left(keep_dense=("first",)) == ["depthwise.w", "fc.w"]
    assert left(keep_dense=("first", "last")) == ["depthwise.w"]
    assert left(keep_dense=("last",), exclude=("fc",)) == ["conv.w"]
    with pytest.raises(TargetError, match=r"--include 'none\*' matches no weight"):
        select(model, include=("none*",))
    reasons = [w.excluded for w in select(model, exclude=("fc",), keep_dense=("first",))]
    assert reasons == ["--keep-dense first", None, "--exclude fc"]


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("bn.*", {"conv.b"}),
        ("bn", {"conv.b"}),
        ("bn.shift", {"conv.b", "bn.scale"}),
        ("conv.b", {"bn.scale", "bn.shift"}),
    ],
)
def test_norms_and_biases_can_be_left_alone(pattern: str, left: set[str], tmp_path: Path) -> None:
    path = networks.save(networks.batch_norm(), tmp_path / "in.onnx")
    model = load(path)
    weights = select(model, exclude=[pattern])
    assert all(weight.excluded is None for weight in weights)
    assert set(learned_along(model, weights, [pattern])) == left
    fcpts_onnx.prune(
        path, tmp_path / "out.onnx", target=0.5, calib=[values(70, 3, 8, 8, scale=1.0)],
        recipe=Recipe(epochs=0, min_steps=6, batch_size=4, interval=1), exclude=[pattern],
    )  # fmt: skip
    changed = fcpts_onnx.diff(path, tmp_path / "out.onnx").tensors
    # What a norm's scale would learn goes into the weight.
    expected = {weight.name for weight in weights} | left - {"bn.scale"}
    assert {entry.name for entry in changed} == expected


def test_names_may_have_brackets() -> None:
    nodes = [helper.make_node("MatMul", ["x", "layers[0].w"], ["y"])]
    constants = {"layers[0].w": values(4, 4)}
    proto = networks.make(nodes, constants, {"x": ["N", 4]}, {"y": ["N", 4]})
    (weight,) = select(Model(Path("m.onnx"), proto), exclude=["layers[0].w"])
    assert weight.excluded == "--exclude layers[0].w"
