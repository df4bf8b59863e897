"""What exporters spell out in several nodes as one step: same values, same gradients."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
import torch

from fcpts_onnx.model import load
from fcpts_onnx.runtime import Runtime
from fcpts_onnx.twin import Twin
from tests import networks
from tests.other_device import OTHER, OtherDevice

NORM = [
    "m = ReduceMean <axes=[-1]> (h)",
    "d = Sub (h, m)",
    "s = Pow (d, two)",
    "v = ReduceMean <axes=[-1]> (s)",
    "e = Add (v, epsilon)",
    "r = Sqrt (e)",
    "n = Div (d, r)",
    "g = Mul (n, scale)",
    "y = Add (g, shift)",
]
BOTH = "ReduceMean <axes=[-2, -1]>"
GELU = [
    "a = Div (h, root)",
    "b = Erf (a)",
    "c = Add (b, one)",
    "d = Mul (h, c)",
    "y = Mul (d, half)",
]
TANH = [
    "a = Pow (h, three)", "b = Mul (a, small)", "c = Add (h, b)", "d = Mul (c, slope)",
    "e = Tanh (d)", "f = Add (one, e)", "g = Mul (half, h)", "y = Mul (g, f)",
]  # fmt: skip
CUT = ["a = Add (h, three)", "b = Clip (a, zero, six)"]
ATTENTION = [
    "k = Transpose <perm=[0, 1, 3, 2]> (h)",
    "a = MatMul (h, k)",
    "s = Softmax <axis=-1> (a)",
]
UNSEEN = ["s = Softmax <axis=-1> (h)", "n = IsNaN (s)", "y = Where (n, zero, s)"]
CONSTANTS = {
    "two": 2.0, "epsilon": 1e-5, "root": 2**0.5, "one": 1.0, "half": 0.5, "three": 3.0, "zero": 0.0,
    "six": 6.0, "sixth": 1 / 6, "about_a_sixth": 0.1667, "small": 0.044715,
    "slope": (2 / np.pi) ** 0.5,
}  # fmt: skip


def changed(lines: Sequence[str], **new: str) -> list[str]:
    """The same, with some values made in another way."""
    return [f"{line[0]} = {new[line[0]]}" if line[0] in new else line for line in lines]


def spelled(lines: Sequence[str], also: Sequence[str] = (), opset: int = 17) -> onnx.ModelProto:
    """h = x w, then what makes y of it; what else is named is an output too."""
    nodes = [onnx.parser.parse_node(line) for line in ("h = MatMul (x, w)", *lines)]
    read = {name for node in nodes for name in node.input}
    constants = {k: np.array(v, np.float32) for k, v in CONSTANTS.items() if k in read}
    constants |= {"w": networks.values(8, 8), "scale": networks.values(8, seed=1) + 1}
    constants |= {"shift": networks.values(8, seed=2), "axes": np.array([-1], np.int64)}
    shape = ["N", 2, 6, 8]
    outputs = {"y": shape} | {name: [None] * 4 for name in also}
    return networks.make(nodes, constants, {"x": shape}, outputs, opset=opset)


JOINED = {
    "a norm": (NORM, "LayerNormalization"),
    "a norm, its square a product": (changed(NORM, s="Mul (d, d)"), "LayerNormalization"),
    "a norm over two axes": (
        [*changed(NORM, m=f"{BOTH} (h)", v=f"{BOTH} (s)")[:6], "y = Div (d, r)"],
        "LayerNormalization",
    ),
    "a norm without a scale": ([*NORM[:6], "y = Div (d, r)"], "LayerNormalization"),
    "an error function": (GELU, "Gelu"),
    "an error function, half first": (
        [*GELU[:3], "d = Mul (h, half)", "y = Mul (d, c)"], "Gelu",
    ),
    "an error function, half last": (
        [*GELU[:3], "d = Mul (c, half)", "y = Mul (d, h)"], "Gelu",
    ),
    "a hyperbolic tangent": (TANH, "Gelu"),
    "a hyperbolic tangent, its cube a product": (
        ["z = Mul (h, h)", *changed(TANH, a="Mul (h, z)")], "Gelu",
    ),
    "times its sigmoid": (["s = Sigmoid (h)", "y = Mul (s, h)"], "Swish"),
    "times its hard sigmoid": (
        ["s = HardSigmoid <alpha=0.16666667, beta=0.5> (h)", "y = Mul (h, s)"], "HardSwish",
    ),
    "times it cut off, by six": ([*CUT, "c = Mul (h, b)", "y = Div (c, six)"], "HardSwish"),
    "times a sixth of it cut off": ([*CUT, "c = Div (b, six)", "y = Mul (h, c)"], "HardSwish"),
    "a sixth of it times it cut off": ([*CUT, "c = Mul (h, b)", "y = Mul (c, sixth)"], "HardSwish"),
    "attention": ([*ATTENTION, "y = MatMul (s, h)"], "Attention"),
}  # fmt: skip


@pytest.mark.parametrize("case", JOINED)
def test_values_and_gradients_are_those_of_all_steps(case: str, tmp_path: Path) -> None:
    lines, name = JOINED[case]
    model = load(networks.save(spelled(lines), tmp_path / "m.onnx"))
    made = [line[0] for line in lines[:-1]]
    apart = load(networks.save(spelled(lines, made), tmp_path / "apart.onnx"))
    learned = ["w", *(["scale", "shift"] if "g = Mul (n, scale)" in lines else [])]
    twins = Twin(model, learned), Twin(apart, learned)
    assert name in [step.op for step in twins[0].steps]
    assert len(twins[0].steps) < len(twins[1].steps) == len(lines) + 1
    x = torch.randn(3, 2, 6, 8, generator=torch.Generator().manual_seed(0)) * 3
    for twin in twins:
        found = twin({"x": x})["y"]
        expected = Runtime(model).run({"x": x.numpy()})["y"]
        np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-4, atol=1e-5)
        (found * torch.sin(x)).sum().backward()
    for key in learned:
        torch.testing.assert_close(
            twins[0].learned[key].grad, twins[1].learned[key].grad, rtol=1e-4, atol=1e-4, msg=key
        )
    twins[0].per_sample = True
    torch.testing.assert_close(twins[0]({"x": x})["y"], found, rtol=1e-4, atol=1e-5)


APART = {
    "another axis for the variance": changed(NORM, v="ReduceMean <axes=[-2]> (s)"),
    "a slope of few digits": [*CUT, "c = Mul (h, b)", "y = Mul (c, about_a_sixth)"],
    "another root": changed(GELU, a="Div (h, two)"),
    "another value in the error function": ["z = Mul (h, two)", *changed(GELU, a="Div (z, root)")],
    "another slope": ["s = HardSigmoid <alpha=0.2, beta=0.5> (h)", "y = Mul (h, s)"],
    "a sum": ["s = Sigmoid (h)", "y = Add (s, h)"],
    "weights over another axis": [*ATTENTION[:2], "s = Softmax <axis=1> (a)", "y = MatMul (s, h)"],
    "what replaces NaN": [*UNSEEN[:2], "y = Where (n, one, s)"],
    "one that is read twice": ["s = Sigmoid (h)", "z = Mul (h, s)", "y = Add (z, s)"],
}


@pytest.mark.parametrize("case", APART)
def test_what_looks_alike_stays_apart(case: str, tmp_path: Path) -> None:
    model = load(networks.save(spelled(APART[case]), tmp_path / "m.onnx"))
    twin = Twin(model, ["w"])
    assert len(twin.steps) == len(APART[case]) + 1
    x = torch.rand(2, 2, 6, 8, generator=torch.Generator().manual_seed(0))
    expected = Runtime(model).run({"x": x.numpy()})["y"]
    found = twin({"x": x})["y"].detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "norm",
    [
        changed(
            NORM, m="ReduceMean <axes=[1]> (h)", v="ReduceMean <axes=[1]> (s)", g="Mul (n, two)"
        ),
        changed(NORM, g="Mul (n, two)"),
    ],
    ids=["another axis", "one number for a scale"],
)
def test_what_one_function_cannot_do_is_computed_as_it_stands(
    norm: list[str], tmp_path: Path
) -> None:
    model = load(networks.save(spelled(norm), tmp_path / "m.onnx"))
    x = torch.randn(3, 2, 6, 8, generator=torch.Generator().manual_seed(0))
    expected = Runtime(model).run({"x": x.numpy()})["y"]
    found = Twin(model, ["w"])({"x": x})["y"].detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_rows_that_see_nothing_have_no_gradient(tmp_path: Path) -> None:
    """As torch exports attention with a boolean mask."""
    proto = spelled(["z = Add (h, mask)", *changed(UNSEEN, s="Softmax <axis=-1> (z)")])
    mask = np.zeros((6, 8), np.float32)
    mask[2], mask[3, 1:], mask[4] = -np.inf, -np.inf, np.inf
    proto.graph.initializer.append(onnx.numpy_helper.from_array(mask, "mask"))
    model = load(networks.save(proto, tmp_path / "m.onnx"))
    twin = Twin(model, ["w"])
    assert [step.op for step in twin.steps] == ["MatMul", "Add", "MaskedSoftmax"]
    x = torch.randn(3, 2, 6, 8, generator=torch.Generator().manual_seed(0))
    expected = Runtime(model).run({"x": x.numpy()})["y"]
    found = twin({"x": x})["y"]
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-4, atol=1e-6)
    twin.per_sample = True
    torch.testing.assert_close(twin({"x": x})["y"], found)
    (found * torch.sin(x)).sum().backward()
    gradient = twin.learned["w"].grad
    assert gradient is not None
    seen = (x @ twin.learned["w"].detach())[:, :, [0, 1, 5]].requires_grad_()
    (seen.softmax(-1) * torch.sin(x)[:, :, [0, 1, 5]]).sum().backward()
    wanted = torch.einsum("bcri,bcrj->ij", x[:, :, [0, 1, 5]], seen.grad)
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("axes", "is_one"), [([-1], True), ([], False)], ids=["last", "all"])
def test_axes_may_be_an_input(axes: list[int], is_one: bool, tmp_path: Path) -> None:
    lines = changed(NORM, m="ReduceMean (h, axes)", v="ReduceMean (s, axes)")
    proto = spelled(lines, opset=18)
    places = next(tensor for tensor in proto.graph.initializer if tensor.name == "axes")
    places.CopyFrom(onnx.numpy_helper.from_array(np.array(axes, np.int64), "axes"))
    model = load(networks.save(proto, tmp_path / "m.onnx"))
    twin = Twin(model, ["w"])
    assert (len(twin.steps) == 2) == is_one
    x = torch.randn(3, 2, 6, 8, generator=torch.Generator().manual_seed(0))
    expected = Runtime(model).run({"x": x.numpy()})["y"]
    found = twin({"x": x})["y"].detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_norm_of_what_comes_from_shapes_goes_where_the_inputs_are(tmp_path: Path) -> None:
    lines = [line.replace("(h", "(z").replace("y =", "u =") for line in NORM]
    lines = ["k = Shape (h)", "z = ConstantOfShape (k)", *lines, "y = Add (h, u)"]
    twin = Twin(load(networks.save(spelled(lines), tmp_path / "m.onnx")), ["w", "scale", "shift"])
    x = {"x": torch.randn(3, 2, 6, 8, generator=torch.Generator().manual_seed(0))}
    here = twin(x)["y"]
    with OtherDevice():
        twin.prepare(OTHER)
        there = twin(x)["y"].detach().cpu()
    torch.testing.assert_close(there, here)


def test_what_adds_an_axis_stays_apart(tmp_path: Path) -> None:
    proto = spelled(GELU)
    for tensor in proto.graph.initializer:
        if tensor.name == "half":
            tensor.dims[:] = [1] * 5
    proto.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", 1, [1, "N", 2, 6, 8]))
    model = load(networks.save(proto, tmp_path / "m.onnx"))
    x = torch.randn(3, 2, 6, 8, generator=torch.Generator().manual_seed(0))
    assert Twin(model, ["w"])({"x": x})["y"].shape == (1, 3, 2, 6, 8)


@pytest.mark.parametrize("lines", [NORM, GELU], ids=["a norm", "an error function"])
def test_half_precision_is_rounded_in_between(lines: list[str], tmp_path: Path) -> None:
    model = load(networks.save(networks.in_half(spelled(lines)), tmp_path / "m.onnx"))
    kept = networks.in_half(spelled(lines, [line[0] for line in lines[:-1]]))
    apart = load(networks.save(kept, tmp_path / "apart.onnx"))
    x = torch.randn(3, 2, 6, 8, generator=torch.Generator().manual_seed(0)).half()
    found, expected = (Twin(one)({"x": x})["y"] for one in (model, apart))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize(("axis", "shape"), [(1, ["N", 6, 8]), (3, ["N", 2, 6])])
def test_queries_keys_and_values_are_taken_apart_at_once(
    axis: int, shape: list[int | str], tmp_path: Path
) -> None:
    """All of a short axis, and few places of a long one."""
    lines = [
        *(f"{name} = Gather <axis={axis}> (h, {name}_place)" for name in "abc"),
        "s = Mul (a, c)",
        "y = Add (s, b)",
    ]
    proto = spelled(lines)
    for name, place in zip("abc", (0, -1, 0), strict=True):
        proto.graph.initializer.append(
            onnx.numpy_helper.from_array(np.array(place, np.int64), f"{name}_place")
        )
    proto.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", 1, shape))
    model = load(networks.save(proto, tmp_path / "m.onnx"))
    twin = Twin(model, ["w"])
    assert [step.op for step in twin.steps] == ["MatMul", "Split", "Mul", "Add"]
    x = torch.randn(3, 2, 6, 8, generator=torch.Generator().manual_seed(0))
    found = twin({"x": x})["y"]
    expected = Runtime(model).run({"x": x.numpy()})["y"]
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5, atol=1e-6)
