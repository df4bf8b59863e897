"""Finding: candidates, and the reasons against them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fcpts_onnx.along import learned_along
from fcpts_onnx.model import Model
from fcpts_onnx.weights import Norm, Weight, find_weights
from tests import networks
from tests.networks import values
from tests.shared import MODELS, needs_shared


def find(proto: onnx.ModelProto) -> dict[str, Weight]:
    return {weight.name: weight for weight in find_weights(Model(Path("m.onnx"), proto))}


def one(op: str, shape: tuple[int, ...], *, first: bool = False, **attributes: object) -> Weight:
    """The only candidate of a model with one weighted node."""
    inputs = ["w", "x"] if first else ["x", "w"]
    node = helper.make_node(op, inputs, ["y"], "n", **attributes)
    return find(networks.make([node], {"w": values(*shape)}, {"x": [1, 4]}, {"y": []}))["w"]


@pytest.mark.parametrize("kind", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int4"])
def test_types_that_numpy_lacks(kind: str) -> None:
    nodes = [helper.make_node("Cast", ["w"], ["v"], to=1), helper.make_node("MatMul", "xv", ["y"])]
    stored = values(4, 6, scale=3.0).astype(kind)
    weight = find(networks.make(nodes, {"w": stored}, {"x": [1, 4]}, {"y": []}, opset=21))["w"]
    assert weight.dtype == kind
    assert (weight.excluded is None) == (kind == "bfloat16")
    assert weight.excluded is None or f"stored as {kind}, not" in weight.excluded


@pytest.mark.parametrize(
    ("op", "shape", "attributes", "axes"),
    [
        ("Conv", (6, 4, 3), {}, (0, 1)),
        ("Conv", (6, 4, 3, 3), {}, (0, 1)),
        ("Conv", (6, 2, 3, 3, 3), {"group": 2}, (0, 1)),
        ("ConvTranspose", (4, 6, 3, 3), {}, (1, 0)),
        ("ConvTranspose", (4, 3, 3, 3), {"group": 2}, (None, None)),
        ("Gemm", (4, 6), {}, (1, 0)),
        ("Gemm", (6, 4), {"transB": 1}, (0, 1)),
        ("MatMul", (4, 6), {}, (1, 0)),
        ("MatMul", (2, 4, 6), {}, (2, 1)),
    ],
)
def test_kinds_of_weights(
    op: str, shape: tuple[int, ...], attributes: dict, axes: tuple[int | None, int | None]
) -> None:
    weight = one(op, shape, **attributes)
    assert (weight.op, weight.shape) == (op, shape)
    assert (weight.channel_axis, weight.input_axis) == axes
    assert weight.excluded is None
    assert weight.count == np.prod(shape)


def test_weight_on_the_left() -> None:
    for weight, axes in (
        (one("MatMul", (6, 4), first=True), (0, 1)),
        (one("MatMul", (2, 6, 4), first=True), (1, 2)),
        (one("Gemm", (6, 4), first=True), (0, 1)),
        (one("Gemm", (4, 6), first=True, transA=1), (1, 0)),
    ):
        assert (weight.channel_axis, weight.input_axis) == axes


@pytest.mark.parametrize(
    ("perms", "shape", "axes"),
    [
        ([[0, 3, 1, 2]], (6, 2, 3, 4), (0, 3)),  # OHWI, as in files made from TFLite
        ([[3, 2, 0, 1]], (2, 3, 4, 6), (3, 2)),  # HWIO, as TensorFlow has it
        ([None], (3, 2, 4, 6), (3, 2)),
        ([[1, 2, 3, 0], [2, 3, 1, 0]], (4, 3, 2, 6), (3, 0)),
    ],
    ids=str,
)
def test_axes_before_transposes(
    perms: list[list[int] | None], shape: tuple[int, ...], axes: tuple[int, int]
) -> None:
    nodes = [
        helper.make_node("Transpose", [f"w{place}"], [f"w{place + 1}"], perm=perm)
        for place, perm in enumerate(perms)
    ]
    nodes.append(helper.make_node("Conv", ["x", f"w{len(perms)}"], ["y"]))
    shapes = {"x": ["N", 4, 8, 8]}, {"y": ["N", 6, "H", "W"]}
    weight = find(networks.make(nodes, {"w0": values(*shape)}, *shapes))["w0"]
    assert (weight.channel_axis, weight.input_axis) == axes
    assert (weight.shape[axes[0]], weight.shape[axes[1]]) == (6, 4)


def test_a_transpose_of_too_few_axes() -> None:
    nodes = [
        helper.make_node("Transpose", ["w"], ["v"], perm=[0]),
        helper.make_node("Conv", ["x", "v"], ["y"]),
    ]
    shapes = {"x": ["N", 4, 8, 8]}, {"y": ["N", 6, "H", "W"]}
    weight = find(networks.make(nodes, {"w": values(6, 4, 3, 3)}, *shapes))["w"]
    assert (weight.channel_axis, weight.input_axis) == (0, None)


def test_behind_identity_cast_transpose_and_reshape() -> None:
    nodes = [
        helper.make_node("Reshape", ["w", "shape"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"], perm=[1, 0]),
        helper.make_node("Cast", ["b"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("Identity", ["c"], ["d"]),
        helper.make_node("MatMul", ["x", "d"], ["y"], "mm"),
        helper.make_node("Transpose", ["v"], ["e"], perm=[1, 0]),
        helper.make_node("MatMul", ["y", "e"], ["z"], "mm2"),
    ]
    constants = {"w": values(24), "shape": np.array([6, 4]), "v": values(5, 6)}
    found = find(networks.make(nodes, constants, {"x": ["N", 4]}, {"z": ["N", 5]}))
    assert (found["v"].channel_axis, found["v"].input_axis) == (0, 1)
    assert found["v"].excluded is None
    assert (found["w"].channel_axis, found["w"].input_axis) == (None, None)
    assert found["w"].excluded == "a vector, not a matrix"


def test_behind_slices_and_parts() -> None:
    """As torch exports attention to another sequence, whose weights lie in one tensor."""
    nodes = [
        helper.make_node("Split", ["w"], ["q", "k"], axis=1),
        helper.make_node("MatMul", ["x", "q"], ["a"], "one"),
        helper.make_node("MatMul", ["x", "k"], ["b"], "two"),
        helper.make_node("Slice", ["v", "zero", "three"], ["s"]),
        helper.make_node("Unsqueeze", ["s", "zero"], ["u"]),
        helper.make_node("Squeeze", ["u", "zero"], ["r"]),
        helper.make_node("MatMul", ["a", "r"], ["c"], "three"),
        helper.make_node("Add", ["b", "c"], ["y"]),
    ]
    constants = {
        "w": values(4, 6),
        "v": values(5, 3),
        "zero": np.array([0]),
        "three": np.array([3]),
    }
    found = find(networks.make(nodes, constants, {"x": ["N", 4]}, {"y": ["N", 3]}))
    assert {name: weight.nodes for name, weight in found.items()} == {
        "w": ("one", "two"), "v": ("three",),
    }  # fmt: skip
    assert all(weight.excluded is None for weight in found.values())
    assert all(weight.channel_axis is None for weight in found.values())


def test_shared_weights_are_found_once() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "one"),
        helper.make_node("MatMul", ["a", "w"], ["y"], "two"),
    ]
    found = find(networks.make(nodes, {"w": values(4, 4)}, {"x": ["N", 4]}, {"y": ["N", 4]}))
    assert found["w"].nodes == ("one", "two")
    assert found["w"].count == 16
    assert (found["w"].channel_axis, found["w"].input_axis) == (1, 0)


def test_shared_weights_with_other_axes_have_none() -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["a"], "one"),
        helper.make_node("Gemm", ["a", "w"], ["y"], "two", transB=1),
    ]
    found = find(networks.make(nodes, {"w": values(4, 4)}, {"x": ["N", 4]}, {"y": ["N", 4]}))
    assert (found["w"].channel_axis, found["w"].input_axis) == (None, None)


def test_embeddings_norms_biases_and_dynamic_products_are_no_weights() -> None:
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], "embed"),
        helper.make_node("LayerNormalization", ["e", "scale", "shift"], ["n"]),
        helper.make_node("Transpose", ["n"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["n", "t"], ["y"], "attention"),
    ]
    constants = {"table": values(9, 4), "scale": values(4), "shift": values(4)}
    proto = networks.make(
        nodes, constants, {"ids": ["N", 3]}, {"y": ["N", 3, 3]}, input_type=TensorProto.INT64
    )
    assert find(proto) == {}
    assert set(learned_along(Model(Path("m.onnx"), proto), [])) == {"scale", "shift"}


def test_reasons_against_a_candidate() -> None:
    nodes = [
        helper.make_node("Gather", ["tied", "ids"], ["e"], "embed"),
        helper.make_node("Transpose", ["tied"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["e", "t"], ["logits"], "head"),
        helper.make_node("MatMul", ["fixed", "table"], ["f"], "folded"),
        helper.make_node("Add", ["logits", "f"], ["s"]),
        helper.make_node("DequantizeLinear", ["q", "scale"], ["dq"]),
        helper.make_node("MatMul", ["s", "dq"], ["z"], "quantized"),
        helper.make_node("MatMul", ["z", "shown"], ["y"], "last"),
    ]
    constants = {
        "tied": values(9, 4),
        "fixed": values(1, 3),
        "table": values(3, 9),
        "q": np.ones((9, 5), np.int8),
        "scale": np.float32(0.5),
        "shown": values(5, 2),
    }
    proto = networks.make(
        nodes, constants, {"ids": ["N"]}, {"y": ["N", 2]}, input_type=TensorProto.INT64
    )
    proto.graph.output.append(helper.make_tensor_value_info("shown", 1, [5, 2]))
    reasons = {name: weight.excluded for name, weight in find(proto).items()}
    assert reasons == {
        "tied": "also used by the Gather node 'embed'",
        "fixed": "the MatMul node 'folded' reads only constants and shapes",
        "table": "the MatMul node 'folded' reads only constants and shapes",
        "q": None,
        "shown": "also an output of the graph",
    }


def positions() -> list[onnx.NodeProto]:
    """One number a token, 0 and on, and a layer with a Relu that reads them."""
    return [
        helper.make_node("Shape", ["x"], ["sizes"], start=1, end=2),
        helper.make_node("Squeeze", ["sizes"], ["count"]),
        helper.make_node("Range", ["zero", "count", "one"], ["range"]),
        helper.make_node("Cast", ["range"], ["numbers"], to=1),
        helper.make_node("Unsqueeze", ["numbers", "one_axis"], ["at"]),
        helper.make_node("MatMul", ["at", "first"], ["f"], "first"),
        helper.make_node("Relu", ["f"], ["r"]),
    ]


def with_positions(*nodes: onnx.NodeProto) -> dict[str, str | None]:
    """Why weights are left out of a layer on tokens to which the nodes add `p`."""
    constants = {
        "zero": np.array(0),
        "one": np.array(1),
        "one_axis": np.array([1]),
        "first": values(1, 8),
        "second": values(8, 8),
        "w": values(6, 8),
        "low": np.array([0.0], np.float32),
    }
    all_nodes = [
        helper.make_node("MatMul", ["x", "w"], ["q"], "tokens"),
        *positions(),
        *nodes,
        helper.make_node("Add", ["q", "p"], ["y"]),
    ]
    proto = networks.make(all_nodes, constants, {"x": ["N", "T", 6]}, {"y": ["N", "T", 8]})
    found = {name: weight.excluded for name, weight in find(proto).items()}
    assert found.pop("w") is None
    assert found.pop("first") == "the MatMul node 'first' reads only constants and shapes"
    return found


def body(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    """A branch of an If, which gives `b`."""
    outputs = [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)]
    return helper.make_graph(nodes, "branch", [], outputs)


def test_what_reads_positions_alone_is_no_weight() -> None:
    """Frequencies of rotary embeddings, layers that make a bias of positions (Swin V2)."""
    second = helper.make_node("MatMul", ["r", "second"], ["p"], "second")
    reason = "the MatMul node 'second' reads only constants and shapes"
    assert with_positions(second) == {"second": reason}


def test_a_weight_that_reads_an_input_as_well_stays() -> None:
    nodes = [
        helper.make_node("MatMul", ["r", "second"], ["a"]),
        helper.make_node("MatMul", ["q", "second"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["p"]),
    ]
    assert with_positions(*nodes) == {"second": None}


@pytest.mark.parametrize("op", ["RandomNormalLike", "RandomUniformLike", "Bernoulli"])
def test_random_values_are_like_inputs(op: str) -> None:
    nodes = [
        helper.make_node(op, ["r"], ["noise"]),
        helper.make_node("MatMul", ["noise", "second"], ["p"]),
    ]
    assert with_positions(*nodes) == {"second": None}


@pytest.mark.parametrize(
    ("branch", "reads_inputs"),
    [
        ([helper.make_node("Neg", ["r"], ["b"])], False),
        ([helper.make_node("Neg", ["q"], ["b"])], True),
        ([helper.make_node("Neg", ["q"], ["n"]), helper.make_node("Neg", ["n"], ["b"])], True),
        ([helper.make_node("RandomNormalLike", ["r"], ["b"])], True),
    ],
)
def test_what_comes_of_a_branch(branch: list[onnx.NodeProto], reads_inputs: bool) -> None:
    plain = body(helper.make_node("Identity", ["r"], ["b"]))
    nodes = [
        helper.make_node("Greater", ["numbers", "low"], ["each"]),
        helper.make_node("Cast", ["each"], ["as_number"], to=1),
        helper.make_node("ReduceMax", ["as_number"], ["some"], keepdims=0),
        helper.make_node("Cast", ["some"], ["c"], to=TensorProto.BOOL),
        helper.make_node("If", ["c"], ["o"], then_branch=body(*branch), else_branch=plain),
        helper.make_node("MatMul", ["o", "second"], ["p"]),
    ]
    (reason,) = with_positions(*nodes).values()
    assert (reason is None) == reads_inputs


def test_the_condition_of_a_branch_counts() -> None:
    plain = [body(helper.make_node(op, ["r"], ["b"])) for op in ("Identity", "Neg")]
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Greater", ["m", "low"], ["c"]),
        helper.make_node("If", ["c"], ["o"], then_branch=plain[0], else_branch=plain[1]),
        helper.make_node("MatMul", ["o", "second"], ["p"]),
    ]
    assert with_positions(*nodes) == {"second": None}


def test_a_constant_that_is_an_input_too_is_one() -> None:
    """As in files of IR version 3."""
    nodes = [
        helper.make_node("Relu", ["table"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["p"], "n"),
        helper.make_node("Add", ["x", "p"], ["y"]),
    ]
    constants = {"table": values(3, 4), "w": values(4, 6)}
    inputs = {"x": ["N", 3, 6], "table": [3, 4], "w": [4, 6]}
    found = find(networks.make(nodes, constants, inputs, {"y": ["N", 3, 6]}, ir_version=3))
    assert found["w"].excluded == "the MatMul node 'n' reads only constants and shapes"


def test_zeros_are_counted_both_signs() -> None:
    proto = networks.perceptron()
    array = values(6, 16)
    array[0, :3] = 0.0
    array[1, 0] = -0.0
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(array, "first"))
    assert find(proto)["first"].zeros == 4


@pytest.mark.parametrize("shape", [["N", 5], ["N", 5, 5]])
def test_a_batch_norm_behind_a_product_norms_axis_1(shape: list[str | int]) -> None:
    names = ["scale", "shift", "mean", "variance"]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("BatchNormalization", ["p", *names], ["y"]),
    ]
    constants = {"w": values(6, 5), **{name: values(5) for name in names}}
    proto = networks.make(nodes, constants, {"x": [*shape[:-1], 6]}, {"y": shape})
    assert find(proto)["w"].norm is None  # it is not known how many axes there are
    proto.graph.value_info.add().CopyFrom(helper.make_tensor_value_info("p", 1, shape))
    assert (find(proto)["w"].norm is None) == (len(shape) > 2)


def test_a_batch_norm_by_each_batch_is_left_alone() -> None:
    proto = networks.batch_norm()
    norm = next(node for node in proto.graph.node if node.op_type == "BatchNormalization")
    norm.attribute.append(helper.make_attribute("training_mode", 1))
    assert find(proto)["conv.w"].norm is None
    proto = networks.batch_norm(opset=13)
    norm = next(node for node in proto.graph.node if node.op_type == "BatchNormalization")
    norm.output.extend(["mean", "variance", "own_mean", "own_variance"])
    assert find(proto)["conv.w"].norm is None


def test_a_batch_norm_right_behind_a_layer_is_seen() -> None:
    found = find(networks.batch_norm())
    assert found["conv.w"].norm == Norm("bn.scale", "bn.shift", "bn.mean", "bn.var", 1e-5)
    assert found["out.w"].norm is None
    proto = networks.batch_norm()
    proto.graph.output.add(name="c")
    assert find(proto)["conv.w"].norm is None


# name -> candidates, values in them, prunable ones, reason of the others
SHARED = {
    "resnet20_cifar10": (20, 268336, 20, None),
    "resnet20_cifar10_bn_opset11_batch1": (20, 268336, 20, None),
    "resnet32_cifar10": (32, 461872, 32, None),
    "mlperf_resnet8_cifar10": (10, 77360, 10, None),
    "mlperf_resnet8_cifar10_qdq": (10, 77360, 10, None),
    "mobilenet_v2_torchvision_ptq_dequant": (53, 3469760, 53, None),
    "vit_cifar10": (26, 793856, 26, None),
    "ppocr_mobile_v2_cls": (54, 124072, 54, None),
    "squeezenet1.1_winml_fp16": (26, 1231552, 26, None),
    "silero_vad": (12, 280320, 0, "inside the If node"),
    "mnist_cntk": (3, 5960, 3, None),
}


@needs_shared
@pytest.mark.parametrize("name", SHARED)
def test_shared_models(name: str) -> None:
    candidates, total, prunable, reason = SHARED[name]
    found = find(onnx.load(str(MODELS / f"{name}.onnx")))
    assert len(found) == candidates
    assert sum(weight.count for weight in found.values()) == total
    assert sum(weight.excluded is None for weight in found.values()) == prunable
    reasons = [weight.excluded for weight in found.values() if weight.excluded is not None]
    assert len(reasons) == candidates - prunable
    assert all(text.startswith(reason) for text in reasons)


def test_a_long_line_of_nodes_that_pass_a_weight_on(tmp_path: Path) -> None:
    """Longer than Python can recurse; Reshape reads what it passes on twice, for its shape too."""
    count = 5000
    nodes = [
        helper.make_node("Reshape", [f"v{place}"] * 2, [f"v{place + 1}"]) for place in range(60)
    ]
    nodes += [
        helper.make_node("Identity", [f"v{place}"], [f"v{place + 1}"]) for place in range(60, count)
    ]
    nodes.append(helper.make_node("MatMul", ["x", f"v{count}"], ["y"]))
    proto = networks.make(nodes, {"v0": values(6, 5)}, {"x": ["N", 6]}, {"y": ["N", 5]})
    (weight,) = find_weights(networks.loaded(proto, tmp_path / "m.onnx"))
    assert (weight.name, weight.nodes) == ("v0", ("MatMul -> y",))


@pytest.mark.parametrize(
    ("size", "axis", "kind"),
    [(5, 1, "int8"), (16, 0, "int8"), (16, 7, "int8"), (0, 1, "int8"), (16, 1, "int32")],
)
def test_scales_that_do_not_fit_the_whole_numbers(size: int, axis: int, kind: str) -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["w"], axis=axis),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    constants = {
        "q": np.ones((6, 16), np.int8),
        "scale": np.ones(size, np.float32),
        "zero": np.zeros(size, kind),
    }
    proto = networks.make(nodes, constants, {"x": ["N", 6]}, {"y": ["N", 16]})
    assert find(proto)["q"].grid is None
    assert "stored as int8" in str(find(proto)["q"].excluded)


@pytest.mark.parametrize("scale", [-0.5, np.nan, np.inf])
def test_scales_that_are_no_steps(scale: float) -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scale"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    scales = np.array([0.5, scale, 0.0, 1.0], np.float32)
    constants = {"q": np.ones((6, 4), np.int8), "scale": scales}
    proto = networks.make(nodes, constants, {"x": ["N", 6]}, {"y": ["N", 4]})
    assert find(proto)["q"].excluded == "has a scale that is negative or not finite"


def test_vectors_and_numbers_have_no_channels() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["a"]),
        helper.make_node("MatMul", ["x", "v"], ["b"]),
        helper.make_node("Gemm", ["x", "n"], ["c"]),
        helper.make_node("Gemm", ["x", "n"], ["d"]),
        helper.make_node("Sum", ["a", "b", "c", "d"], ["y"]),
    ]
    constants = {"v": values(6), "n": np.array(1, np.float32)}
    found = find(networks.make(nodes, constants, {"x": ["N", 6]}, {"y": ["N"]}))
    assert [weight.channels for weight in found.values()] == [None, None]
    assert all(weight.excluded is not None for weight in found.values())


def test_a_weight_whose_shape_is_read_is_one() -> None:
    """As exports write a bias of zeros: Expand(0, Shape(w))."""
    nodes = [
        helper.make_node("Shape", ["w"], ["s"]),
        helper.make_node("CastLike", ["x", "w"], ["c"]),
        helper.make_node("MatMul", ["c", "w"], ["p"]),
        helper.make_node("Reshape", ["p", "s"], ["y"]),
    ]
    proto = networks.make(nodes, {"w": values(6, 5)}, {"x": [6, 6]}, {"y": []})
    assert find(proto)["w"].excluded is None


def test_what_a_weight_is_computed_from_is_named() -> None:
    """As by weight norm, or a standardised convolution, where nobody folded constants."""
    nodes = [
        helper.make_node("Mul", ["v", "g"], ["scaled"]),
        helper.make_node("Add", ["scaled", "one"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["h"], "layer"),
        helper.make_node("MatMul", ["h", "plain"], ["y"]),
    ]
    constants = {
        "v": values(6, 5), "g": values(1, 5), "one": np.float32(1), "plain": values(5, 4),
    }  # fmt: skip
    found = find(networks.make(nodes, constants, {"x": ["N", 6]}, {"y": ["N", 4]}))
    why = "the weight of the MatMul node 'layer' is computed from it; fold constants first"
    assert {name: weight.excluded for name, weight in found.items()} == {"v": why, "plain": None}


def test_a_product_of_inputs_has_no_weight() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "v"], ["scaled"]),
        helper.make_node("MatMul", ["x", "scaled"], ["y"]),
    ]
    assert find(networks.make(nodes, {"v": values(6, 6)}, {"x": [6, 6]}, {"y": [6, 6]})) == {}
