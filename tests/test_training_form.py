"""Networks exported in training form, which is refused, and what only looks like it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import helper

import fcpts_onnx
from fcpts_onnx import Recipe
from fcpts_onnx.cli import main
from fcpts_onnx.errors import ModelError
from tests import networks
from tests.networks import values

QUICK = Recipe(epochs=0, min_steps=6, batch_size=4, interval=1)
PARAMETERS = ["scale", "shift", "mean", "variance"]


def normed(opset: int, *, outputs: int, read: str = "n") -> onnx.ModelProto:
    """A product of matrices, a batch norm with so many outputs, another product."""
    ends = ["n", "new_mean", "new_variance", "own_mean", "own_variance"][:outputs]
    mode = {"training_mode": 1} if opset >= 14 and outputs > 1 else {}
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["p"], "one"),
        helper.make_node("BatchNormalization", ["p", *PARAMETERS], ends, "norm", **mode),
        helper.make_node("MatMul", [read, "second"], ["y"], "two"),
    ]
    constants = {"first": values(6, 8), "second": values(8, 5)}
    constants |= {name: 1 + values(8, seed=seed) ** 2 for seed, name in enumerate(PARAMETERS)}
    return networks.make(nodes, constants, {"x": ["N", 6]}, {"y": ["N", 5]}, opset=opset)


def dropped(*, training: bool, ratio: float | None) -> onnx.ModelProto:
    """A perceptron with Dropout behind its first layer, with its inputs from opset 12 on."""
    proto = networks.perceptron()
    proto.graph.node[1].output[0] = "before"
    given = "" if ratio is None else "ratio"
    proto.graph.node.insert(2, helper.make_node("Dropout", ["before", given, "on"], ["b"], "drop"))
    constants = {"on": np.array(training), "ratio": np.float32(ratio or 0)}
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
    return proto


TRAINING = {
    "five outputs at opset 9": (normed(9, outputs=5), "BatchNormalization 'norm'"),
    "five outputs at opset 13": (normed(13, outputs=5), "BatchNormalization 'norm'"),
    "training_mode": (normed(15, outputs=3), "BatchNormalization 'norm'"),
    "Dropout": (dropped(training=True, ratio=0.25), "Dropout 'drop'"),
    "Dropout of a half": (dropped(training=True, ratio=None), "Dropout 'drop'"),
}


@pytest.mark.parametrize("name", TRAINING)
def test_a_network_in_training_form_is_refused(name: str, tmp_path: Path) -> None:
    proto, node = TRAINING[name]
    path = networks.save(proto, tmp_path / "m.onnx")
    message = f"is in training form: {node}. "
    with pytest.raises(ModelError, match=message) as refused:
        fcpts_onnx.prune(path, tmp_path / "out.onnx", target=0.5, calib=[values(30, 6)])
    assert "model.eval()" in str(refused.value)
    assert "TrainingMode.EVAL" in str(refused.value)
    assert not (tmp_path / "out.onnx").exists()
    result = CliRunner().invoke(main, ["inspect", str(path)])
    assert result.exit_code == 0, result.output
    assert message in result.output


def test_some_of_many_nodes_are_named(tmp_path: Path) -> None:
    proto = networks.perceptron()
    del proto.graph.node[2]
    names = ["b", *(f"d{place}" for place in range(6)), "c"]
    proto.graph.node.extend(
        helper.make_node("Dropout", [before, "", "on"], [after], f"drop {after}")
        for before, after in pairwise(names)
    )
    proto.graph.node.append(proto.graph.node.pop(2))  # the last layer, behind them
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "on"))
    path = networks.save(proto, tmp_path / "m.onnx")
    assert "'drop d2' and 4 more. " in str(fcpts_onnx.inspect(path).obstacle)


def with_standardised_weight(opset: int) -> onnx.ModelProto:
    """A layer whose weight is normed row by row, as standardised convolutions do it."""
    outputs = ["n", "new_mean", "new_variance", "own_mean", "own_variance"]
    mode = {"training_mode": 1} if opset >= 14 else {}
    nodes = [
        helper.make_node(
            "BatchNormalization", ["w", *PARAMETERS], outputs[: 3 if mode else 5], "norm", **mode
        ),
        helper.make_node("Reshape", ["n", "shape"], ["matrix"]),
        helper.make_node("MatMul", ["x", "matrix"], ["p"], "one"),
        helper.make_node("MatMul", ["p", "second"], ["y"], "two"),
    ]
    constants = {"w": values(1, 6, 8), "shape": np.array([6, 8]), "second": values(8, 5)}
    constants |= {name: 1 + values(6, seed=seed) ** 2 for seed, name in enumerate(PARAMETERS)}
    return networks.make(nodes, constants, {"x": ["N", 6]}, {"y": ["N", 5]}, opset=opset)


INFERENCE: Sequence[onnx.ModelProto] = (
    normed(9, outputs=1),
    normed(15, outputs=1),
    normed(13, outputs=5, read="p"),
    dropped(training=False, ratio=0.25),
    dropped(training=True, ratio=0.0),
    with_standardised_weight(12),
    with_standardised_weight(15),
)


@pytest.mark.parametrize("place", range(len(INFERENCE)))
def test_what_computes_as_in_inference_is_pruned(place: int, tmp_path: Path) -> None:
    path = networks.save(INFERENCE[place], tmp_path / "m.onnx")
    found = fcpts_onnx.prune(
        path, tmp_path / "out.onnx", target=0.5, calib=[values(30, 6)], recipe=QUICK
    )
    assert found.parity.error < 1e-5
    assert found.validation.same_graph
