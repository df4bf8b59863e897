"""If nodes with a constant condition: what is inside them is pruned like the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

import fcpts_onnx
from fcpts_onnx import FcptsError, Recipe
from fcpts_onnx.model import load
from fcpts_onnx.runtime import Runtime
from fcpts_onnx.weights import find_weights
from tests import networks
from tests.networks import values

QUICK = Recipe(epochs=0, min_steps=6, batch_size=4, interval=1)
TRUE, FALSE = (numpy_helper.from_array(np.array(value), "condition") for value in (True, False))


def branch(prefix: str, name: str = "w", seed: int = 1) -> GraphProto:
    """x @ w + b, w stored as an initializer and b as a Constant node."""
    weight = numpy_helper.from_array(values(6, 4, seed=seed), f"{prefix}{name}")
    bias = numpy_helper.from_array(values(4, seed=seed))
    nodes = [
        helper.make_node("Constant", [], [f"{prefix}b"], value=bias),
        helper.make_node("MatMul", ["x", f"{prefix}{name}"], [f"{prefix}p"], f"{prefix}product"),
        helper.make_node("Add", [f"{prefix}p", f"{prefix}b"], [f"{prefix}y"]),
    ]
    output = helper.make_tensor_value_info(f"{prefix}y", TensorProto.FLOAT, None)
    return helper.make_graph(nodes, prefix, [], [output], [weight])


def choice(output: str, then: GraphProto, other: GraphProto, condition: str = "c") -> NodeProto:
    return helper.make_node(
        "If", [condition], [output], f"if_{output}", then_branch=then, else_branch=other
    )


def model(*nodes: NodeProto, condition: TensorProto = TRUE) -> onnx.ModelProto:
    proto = networks.make(nodes, {}, {"x": ["N", 6]}, {"y": ["N", 4]})
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["c"], value=condition))
    return proto


def excluded(proto: onnx.ModelProto, path: Path) -> dict[str, str | None]:
    return {w.name: w.excluded for w in find_weights(load(networks.save(proto, path)))}


@pytest.mark.parametrize(("condition", "taken"), [(TRUE, "then"), (FALSE, "else")])
def test_the_branch_that_always_runs_is_pruned(
    condition: TensorProto, taken: str, tmp_path: Path
) -> None:
    proto = model(choice("y", branch("then"), branch("else", seed=2)), condition=condition)
    source, target = networks.save(proto, tmp_path / "in.onnx"), tmp_path / "out.onnx"
    found = fcpts_onnx.prune(source, target, target=0.5, calib=[values(30, 6)], recipe=QUICK)
    assert (found.zeros, found.validation.same_graph) == (12, True)
    assert set(found.validation.changed) == {f"{taken}w", f"{taken}b"}
    saved = onnx.load(target).graph.node[1]
    for before, after in zip(proto.graph.node[1].attribute, saved.attribute, strict=True):
        first, second = (numpy_helper.to_array(a.g.initializer[0]) for a in (before, after))
        if before.name.startswith(taken):
            assert (second == 0).sum() == 12
        else:
            np.testing.assert_array_equal(first, second)
    x = values(3, 6, seed=5)
    assert Runtime(load(target)).run({"x": x})["y"].shape == (3, 4)


def test_a_condition_among_the_initializers(tmp_path: Path) -> None:
    proto = model(choice("y", branch("then"), branch("else", seed=2)))
    del proto.graph.node[0]
    proto.graph.initializer.append(numpy_helper.from_array(np.array(True), "c"))
    source, target = networks.save(proto, tmp_path / "in.onnx"), tmp_path / "out.onnx"
    found = fcpts_onnx.prune(source, target, target=0.5, calib=[values(30, 6)], recipe=QUICK)
    assert (found.zeros, found.validation.same_graph) == (12, True)


@pytest.mark.parametrize("always", [True, False])
def test_external_data_inside_a_branch(always: bool, tmp_path: Path) -> None:
    inner = choice("z", branch("then"), branch("else", seed=2), "c" if always else "is_large")
    proto = model(
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["is_large"], to=TensorProto.BOOL),
        inner,
        helper.make_node("MatMul", ["z", "last"], ["y"]),
    )
    proto.graph.initializer.append(numpy_helper.from_array(values(4, 4, seed=7), "last"))
    path = tmp_path / "in.onnx"
    onnx.save(proto, str(path), save_as_external_data=True, size_threshold=0, location="in.data")
    found = fcpts_onnx.prune(
        path, tmp_path / "out.onnx", target=0.5, calib=[values(30, 6)], recipe=QUICK
    )
    assert found.validation.same_graph
    assert found.count == (40 if always else 16)


def test_broken_branches_are_refused_by_what_checks_models(tmp_path: Path) -> None:
    for change in ("branch", "input", "condition"):
        proto = model(choice("y", branch("then"), branch("else")))
        if change == "branch":
            del proto.graph.node[1].attribute[:]
        elif change == "input":
            del proto.graph.node[1].input[:]
        else:
            proto.graph.node[0].attribute[0].t.ClearField("raw_data")
        networks.save(proto, tmp_path / "m.onnx")
        with pytest.raises(FcptsError):
            fcpts_onnx.prune(
                tmp_path / "m.onnx", tmp_path / "out.onnx", target=0.5, calib=[values(30, 6)]
            )


def test_branches_that_share_names_are_left_alone(tmp_path: Path) -> None:
    nodes = [
        choice("a", branch("left"), branch("no")),
        choice("b", branch("left", seed=3), branch("other")),
        choice("d", branch("right"), branch("another")),
        helper.make_node("Sum", ["a", "b", "d"], ["y"]),
    ]
    proto = model(*nodes)
    reasons = excluded(proto, tmp_path / "m.onnx")
    assert {name for name, reason in reasons.items() if reason is None} == {"rightw"}
    assert reasons["leftw"] == "inside the If node 'if_a'"
    found = fcpts_onnx.prune(
        tmp_path / "m.onnx", tmp_path / "out.onnx", target=0.5, calib=[values(30, 6)], recipe=QUICK
    )
    assert found.zeros == 12
    assert found.parity.error < 1e-5


def test_a_branch_inside_a_branch_is_left_alone(tmp_path: Path) -> None:
    inner = choice("inside", branch("then"), branch("other"))
    outer = branch("outer")
    outer.node.append(inner)
    outer.node.append(helper.make_node("Add", ["outery", "inside"], ["both"]))
    outer.output[0].name = "both"
    proto = model(choice("y", outer, branch("no")))
    assert excluded(proto, tmp_path / "m.onnx") == {
        "outerw": None, "thenw": "inside the If node 'if_inside'",
        "otherw": "inside the If node 'if_inside'",
    }  # fmt: skip


def test_a_condition_that_depends_on_the_data_is_left_alone(tmp_path: Path) -> None:
    proto = model(choice("y", branch("then"), branch("else"), "is_large"))
    proto.graph.node.insert(0, helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0))
    proto.graph.node.insert(1, helper.make_node("Cast", ["sum"], ["is_large"], to=TensorProto.BOOL))
    assert set(excluded(proto, tmp_path / "m.onnx").values()) == {"inside the If node 'if_y'"}


def test_a_constant_inside_a_function_is_named_and_kept(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(values(6, 4))
    nodes = [
        helper.make_node("Constant", [], ["w"], value=weight),
        helper.make_node("MatMul", ["a", "w"], ["b"]),
    ]
    opsets = [helper.make_opsetid("", 17)]
    calls = [
        helper.make_node("MatMul", ["x", "v"], ["p"]),
        helper.make_node("Layer", ["p"], ["y"], domain="own"),
    ]
    proto = networks.make(calls, {"v": values(6, 6)}, {"x": ["N", 6]}, {"y": ["N", 4]})
    proto.functions.append(helper.make_function("own", "Layer", ["a"], ["b"], nodes, opsets))
    proto.opset_import.append(helper.make_opsetid("own", 1))
    reasons = excluded(proto, tmp_path / "m.onnx")
    assert sorted(map(str, reasons.values())) == ["None", "a constant inside a function"]
    found = fcpts_onnx.prune(
        tmp_path / "m.onnx", tmp_path / "out.onnx", target=0.5, calib=[values(30, 6)], recipe=QUICK
    )
    assert (found.zeros, found.count) == (18, 36)


def test_a_branch_with_more_outputs_than_its_node_is_no_part_of_the_graph(tmp_path: Path) -> None:
    then, other = branch("then"), branch("else", seed=2)
    then.output.append(helper.make_tensor_value_info("thenp", TensorProto.FLOAT, None))
    path = networks.save(model(choice("y", then, other)), tmp_path / "in.onnx")
    found = fcpts_onnx.inspect(path)
    assert {weight.excluded for weight in found.weights} == {"inside the If node 'if_y'"}
