"""Sequences of tensors, read at known places: values against onnxruntime, and what is pruned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper

import fcpts_onnx
from fcpts_onnx import Recipe
from fcpts_onnx.errors import FcptsError, UnsupportedError
from fcpts_onnx.model import load
from fcpts_onnx.runtime import Runtime
from fcpts_onnx.twin import Twin
from tests import networks
from tests.networks import values

QUICK = Recipe(epochs=0, min_steps=6, batch_size=4, interval=1)
X = values(4, 7, 6)


@dataclass(frozen=True)
class Split:
    """A tensor of 4 x 7 x 6 in parts, of which one is read.

    Attributes:
        split: the input of that name, None where it is left out.
        keepdims: the attribute, None where it is left out.
        known: the graph states how long the axes are.
    """

    place: int
    split: int | list[int] | None = None
    axis: int = 1
    keepdims: int | None = None
    opset: int = 17
    kind: type = np.int64
    known: bool = True

    def __str__(self) -> str:
        changed = (f"{key}={value}" for key, value in vars(self).items() if value is not None)
        return " ".join(changed)


def split_up(case: Split) -> onnx.ModelProto:
    given = ["x"] if case.split is None else ["x", "split"]
    nodes = [
        helper.make_node("SplitToSequence", given, ["s"], axis=case.axis, keepdims=case.keepdims),
        helper.make_node("SequenceAt", ["s", "place"], ["y"], "part"),
    ]
    constants = {"place": np.array(case.place, case.kind)}
    constants |= {} if case.split is None else {"split": np.array(case.split, case.kind)}
    sizes = [7, 6] if case.known else ["height", "width"]
    proto = networks.make(nodes, constants, {"x": ["N", *sizes]}, {"y": []}, opset=case.opset)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    return proto


PARTS = [
    *(Split(place, split=3) for place in (0, 2, -1, -3)),
    *(Split(place, split=[2, 4, 1]) for place in (0, 1, 2, -1, -3)),
    *(Split(place, keepdims=keepdims) for place in (0, 6, -1, -7) for keepdims in (None, 0, 1)),
    Split(1, split=[2, 5], keepdims=0),
    *(Split(-1, split=split, axis=axis) for split in (2, [2, 2, 2]) for axis in (2, -1)),
    *(Split(-1, split=4, opset=opset) for opset in (11, 13, 21)),
    Split(1, split=[3, 4], kind=np.int32),
    Split(1, split=3, kind=np.int32),
    Split(0, split=[7]),
    Split(1, split=[0, 7, 0]),
    Split(0, split=100),
    Split(1, split=3, known=False),
    Split(-1, split=[3, 4], known=False),
    Split(-1, known=False),
]


@pytest.mark.parametrize("case", PARTS, ids=str)
def test_a_part_is_that_of_onnxruntime(case: Split, tmp_path: Path) -> None:
    model = load(networks.save(split_up(case), tmp_path / "m.onnx"))
    expected = Runtime(model).run({"x": X})["y"]
    found = Twin(model)({"x": torch.from_numpy(X)})["y"]
    np.testing.assert_array_equal(found.numpy(), expected)
    np.testing.assert_array_equal(Runtime(model.inlined()).run({"x": X})["y"], expected)


def gathered(*nodes: NodeProto, opset: int = 17) -> onnx.ModelProto:
    """A layer, what these nodes make y of its result p and of x, and constants for them."""
    constants = {
        "w": values(6, 6), "place": np.array(1), "scalar": np.array(2), "sizes": np.array([2, 4]),
        "last": np.array([-1]),
    }  # fmt: skip
    layer = helper.make_node("MatMul", ["x", "w"], ["p"], "layer")
    proto = networks.make([layer, *nodes], constants, {"x": ["N", 6]}, {"y": []}, opset=opset)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    return proto


CONSTRUCT = helper.make_node("SequenceConstruct", ["x", "p"], ["s"], "sequence")
WHOLE = {
    "an entry": [CONSTRUCT, helper.make_node("SequenceAt", ["s", "place"], ["y"])],
    "the last": [CONSTRUCT, helper.make_node("SequenceAt", ["s", "last"], ["y"])],
    "joined": [CONSTRUCT, helper.make_node("ConcatFromSequence", ["s"], ["y"], axis=1)],
    "a part twice": [
        helper.make_node("SplitToSequence", ["p", "sizes"], ["s"], axis=1),
        helper.make_node("SequenceAt", ["s", "place"], ["a"]),
        helper.make_node("SequenceAt", ["s", "last"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ],
    "names that are taken": [
        helper.make_node("Identity", ["p"], ["cut/y/start"]),
        helper.make_node("SplitToSequence", ["cut/y/start", "sizes"], ["s"], axis=1),
        helper.make_node("SequenceAt", ["s", "place"], ["y"]),
    ],
    "places in Constant nodes": [
        helper.make_node("Constant", [], ["one"], value=numpy_helper.from_array(np.array(1))),
        helper.make_node("SplitToSequence", ["p", "scalar"], ["s"], axis=1),
        helper.make_node("SequenceAt", ["s", "one"], ["y"]),
    ],
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_network_with_sequences_is_pruned(name: str, tmp_path: Path) -> None:
    source = networks.save(gathered(*WHOLE[name]), tmp_path / "in.onnx")
    target = tmp_path / "out.onnx"
    found = fcpts_onnx.prune(source, target, target=0.5, calib=[values(30, 6)], recipe=QUICK)
    assert (found.zeros, found.validation.same_graph) == (18, True)
    assert found.parity.error < 1e-5
    before, after = (onnx.load(path).graph.node for path in (source, target))
    assert list(before) == list(after)


def test_a_weight_in_parts_is_pruned(tmp_path: Path) -> None:
    """Queries, keys and values from one weight, as torch's attention keeps them."""
    nodes = [
        helper.make_node("SplitToSequence", ["w", "sizes"], ["s"], axis=1),
        helper.make_node("SequenceAt", ["s", "first"], ["a"]),
        helper.make_node("SequenceAt", ["s", "second"], ["b"]),
        helper.make_node("MatMul", ["x", "a"], ["p"], "one"),
        helper.make_node("MatMul", ["x", "b"], ["q"], "two"),
        helper.make_node("Concat", ["p", "q"], ["y"], axis=1),
    ]
    constants = {
        "w": values(6, 8), "sizes": np.array([3, 5]), "first": np.array(0), "second": np.array(1),
    }  # fmt: skip
    proto = networks.make(nodes, constants, {"x": ["N", 6]}, {"y": ["N", 8]})
    source, target = networks.save(proto, tmp_path / "in.onnx"), tmp_path / "out.onnx"
    found = fcpts_onnx.prune(source, target, target=0.5, calib=[values(30, 6)], recipe=QUICK)
    assert (found.zeros, found.validation.same_graph) == (24, True)
    weight = next(w for w in fcpts_onnx.inspect(source).weights if w.name == "w")
    assert (weight.nodes, weight.channel_axis) == (("one", "two"), None)


def test_a_branch_reads_a_sequence_of_the_graph(tmp_path: Path) -> None:
    """What is inside an If that goes either way stays, and so does the sequence."""
    branches = [
        helper.make_graph(
            [helper.make_node("SequenceAt", ["s", place], [f"y_{place}"], f"at {place}")],
            place, [], [helper.make_tensor_value_info(f"y_{place}", TensorProto.FLOAT, None)],
        )
        for place in ("place", "last")
    ]  # fmt: skip
    proto = gathered(
        helper.make_node("SequenceConstruct", ["x", "p"], ["s"]),
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["positive"], to=TensorProto.BOOL),
        helper.make_node(
            "If", ["positive"], ["y"], then_branch=branches[0], else_branch=branches[1]
        ),
    )
    model = load(networks.save(proto, tmp_path / "m.onnx"))
    assert Runtime(model.inlined()).run({"x": values(3, 6)})["y"].shape == (3, 6)
    with pytest.raises(UnsupportedError, match=r"SequenceAt \(opset 17\): at last, at place"):
        Twin(model)


LEFT = {
    "a place by the data": (
        [
            helper.make_node("ArgMax", ["x"], ["places"]),
            helper.make_node("ReduceMax", ["places"], ["any"], keepdims=0),
            helper.make_node("SplitToSequence", ["p"], ["s"], "cuts", axis=1),
            helper.make_node("SequenceAt", ["s", "any"], ["y"], "part"),
        ],
        ("SequenceAt (opset 17): part", "SplitToSequence (opset 17): cuts"),
    ),
    "from the end of what is of any length": (
        [
            helper.make_node("SplitToSequence", ["p", "scalar"], ["s"], "cuts", axis=0),
            helper.make_node("SequenceAt", ["s", "last"], ["y"], "part"),
        ],
        ("SequenceAt (opset 17): part",),
    ),
    "a place that is not there": (
        [
            helper.make_node("SplitToSequence", ["p", "sizes"], ["s"], "cuts", axis=1),
            helper.make_node("SequenceAt", ["s", "scalar"], ["y"], "part"),
        ],
        ("SequenceAt (opset 17): part",),
    ),
    "an axis for the entries": (
        [
            CONSTRUCT,
            helper.make_node("ConcatFromSequence", ["s"], ["y"], "all", axis=0, new_axis=1),
        ],
        ("ConcatFromSequence (opset 17): all", "SequenceConstruct (opset 17): sequence"),
    ),
    "how many there are": (
        [
            CONSTRUCT,
            helper.make_node("SequenceAt", ["s", "place"], ["a"]),
            helper.make_node("SequenceLength", ["s"], ["count"], "length"),
            helper.make_node("Cast", ["count"], ["number"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["a", "number"], ["y"]),
        ],
        ("SequenceLength (opset 17): length",),
    ),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_not_known_is_named(name: str, tmp_path: Path) -> None:
    nodes, messages = LEFT[name]
    path = networks.save(gathered(*nodes), tmp_path / "m.onnx")
    with pytest.raises(FcptsError) as refused:
        fcpts_onnx.prune(path, tmp_path / "out.onnx", target=0.5, calib=[values(30, 6)])
    assert all(message in str(refused.value) for message in messages)


def test_places_beyond_any_number(tmp_path: Path) -> None:
    """By anybody: onnxruntime refuses them, and nothing overflows before."""
    for place, split in ((2**62, 2**62), (-(2**63), 1), (2**63 - 1, None), (1, [2**62, 2**62])):
        proto = split_up(Split(place, split=split))
        path = networks.save(proto, tmp_path / "m.onnx")
        load(path).inlined()
        with pytest.raises(FcptsError):
            Runtime(load(path)).run({"x": X})
