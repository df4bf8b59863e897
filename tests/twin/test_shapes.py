"""What depends on shapes alone is computed once for each, and is right for each."""

from pathlib import Path

import numpy as np
import onnx.parser
import torch

from fcpts_onnx.model import load
from fcpts_onnx.runtime import Runtime
from fcpts_onnx.twin import Twin
from tests import networks

# Sums of rows over their length, which comes from the shape, as what they are cut up by does.
LINES = [
    "s = Shape (x)", "h = Gather <axis=0> (s, two)", "n = Size (x)", "a = Unsqueeze (h, zero)",
    "f = Concat <axis=0> (minus, a)", "r = Reshape (x, f)", "c = Cast <to=1> (h)",
    "m = ReduceSum (r, one)", "y = Div (m, c)",
]  # fmt: skip
CONSTANTS = {
    "two": np.array(2), "zero": np.array([0]), "minus": np.array([-1]), "one": np.array([1]),
}  # fmt: skip


def twin_of(folder: Path) -> tuple[Twin, Runtime]:
    """The means of all rows."""
    nodes = [onnx.parser.parse_node(line) for line in LINES]
    shapes = {"x": ["N", 2, "H"]}, {"y": [None, 1], "f": [2]}
    proto = networks.make(nodes, CONSTANTS, *shapes)
    proto.graph.output[1].type.tensor_type.elem_type = onnx.TensorProto.INT64
    model = load(networks.save(proto, folder / "m.onnx"))
    return Twin(model), Runtime(model)


def test_each_shape_has_its_own(tmp_path: Path) -> None:
    twin, oracle = twin_of(tmp_path)
    for shape in ((3, 2, 5), (4, 2, 5), (3, 2, 7), (3, 2, 5), *((1, 2, n) for n in range(1, 80))):
        x = networks.values(*shape)
        found = twin({"x": torch.from_numpy(x)})
        for name, expected in oracle.run({"x": x}).items():
            np.testing.assert_allclose(found[name].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_the_same_shape_takes_no_second_computation(tmp_path: Path) -> None:
    twin, _ = twin_of(tmp_path)
    first, again, other = (
        twin({"x": torch.zeros(shape)})["f"] for shape in ((3, 2, 5), (3, 2, 5), (3, 2, 6))
    )
    assert first is again
    assert first is not other


def test_what_is_large_is_not_kept(tmp_path: Path) -> None:
    lines = ["s = Shape (x)", "o = ConstantOfShape (s)", "t = ReduceSum <keepdims=0> (o)"]
    nodes = [onnx.parser.parse_node(line) for line in (*lines, "y = Add (x, t)")]
    shape = ["N", 2, "H"]
    proto = networks.make(nodes, {}, {"x": shape}, {"y": shape, "o": shape, "t": []})
    twin = Twin(load(networks.save(proto, tmp_path / "m.onnx")))
    for width, is_kept in ((5, True), (5000, False)):
        x = {"x": torch.zeros(3, 2, width)}
        first, again = twin(x), twin(x)
        assert [first[name] is again[name] for name in "ot"] == [is_kept] * 2


def test_a_first_pass_without_gradients_leaves_later_ones_theirs(tmp_path: Path) -> None:
    twin, _ = twin_of(tmp_path)
    x = torch.from_numpy(networks.values(3, 2, 5))
    with torch.inference_mode():
        twin({"x": x})
    x.requires_grad_()
    twin({"x": x})["y"].square().sum().backward()
    expected = (2 / 25 * x.sum(-1, keepdim=True)).expand_as(x)
    torch.testing.assert_close(x.grad, expected)


def test_samples_on_their_own_have_their_own_shape(tmp_path: Path) -> None:
    twin, _ = twin_of(tmp_path)
    x = torch.from_numpy(networks.values(3, 2, 5))
    expected = twin({"x": x})["y"]
    twin.per_sample = True
    torch.testing.assert_close(twin({"x": x})["y"].reshape(-1, 1), expected)


def test_positions_stay_in_float32(tmp_path: Path) -> None:
    """Angles of a rotary embedding, as Llama's and Bert's successors have them."""
    lines = [
        "s = Shape <start=1> (x)", "n = Squeeze (s)", "r = Range (zero, n, one)",
        "f = Cast <to=1> (r)", "p = Unsqueeze (f, last)", "a = MatMul (p, rates)", "c = Cos (a)",
        "y = Add (x, c)",
    ]  # fmt: skip
    constants = {
        "zero": np.array(0), "one": np.array(1), "last": np.array([-1]),
        "rates": np.array([[1, 0.3]], np.float32),
    }  # fmt: skip
    nodes = [onnx.parser.parse_node(line) for line in lines]
    nodes[0].attribute.append(onnx.helper.make_attribute("end", 2))
    shape = ["N", "T", 2]
    model = networks.make(nodes, constants, {"x": shape}, {"y": shape, "a": ["T", 2]})
    twin = Twin(load(networks.save(model, tmp_path / "m.onnx")))
    for length in (1001, 5001):  # angles that are kept, and such that are made anew
        x = {"x": torch.zeros(1, length, 2)}
        with torch.autocast("cpu", torch.bfloat16):
            found = twin(x)["a"]
        places = torch.arange(length)[:, None]
        torch.testing.assert_close(found, places * torch.tensor([1, 0.3]))
        assert twin(x)["a"].equal(found)
