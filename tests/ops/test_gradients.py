"""Gradients of every operator that lets one through, in double against finite differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from fcpts_onnx.ops import find_op
from fcpts_onnx.twin import Twin
from tests.ops.harness import Case, one_node
from tests.ops.test_registry import FAMILIES

# No finite difference holds for these, and why.
EXEMPT = {
    "QuantizeLinear": "rounds; its gradient passes as if it did not",
    "DequantizeLinear": "computes in the float32 of its scale",
    "MelWeightMatrix": "makes a constant of numbers",
}
# Inputs beyond these are settings: regions, scales, running means.
FIRST_INPUTS = {"BatchNormalization": 3, "MaxRoiPool": 1, "Resize": 1, "RoiAlign": 1}


def is_float(array: np.ndarray | None) -> bool:
    return (
        array is not None and np.asarray(array).dtype == np.float32 and np.asarray(array).size > 0
    )


def doubled(case: Case) -> Case:
    inputs = tuple(x.astype(np.float64) if is_float(x) else x for x in case.inputs)
    return replace(case, inputs=inputs)


def lets_through(case: Case) -> bool:
    found = find_op(case.domain, case.op, max(case.opsets()))
    live = [x for place, x in enumerate(case.inputs) if place not in case.constants]
    return (
        found is not None
        and found.gradient in ("through", "first", "values")
        and case.op not in EXEMPT
        and not case.op.startswith(("QLinear", "QGemm", "ConvInteger", "MatMulInteger"))
        and any(is_float(x) for x in live)
        and all(is_float(x) or np.asarray(x).dtype.kind in "iub" for x in live if x is not None)
    )


def first_cases() -> list[Case]:
    """One case an operator."""
    chosen: dict[tuple[str, str], Case] = {}
    for case in (case for family in FAMILIES for case in family.CASES):
        if lets_through(case):
            chosen.setdefault((case.domain, case.op), case)
    return list(chosen.values())


@pytest.mark.parametrize("case", first_cases(), ids=str)
def test_gradients(case: Case) -> None:
    case = doubled(case)
    twin = Twin(one_node(case, max(case.opsets())))
    feeds = {
        f"x{place}": torch.from_numpy(np.asarray(array))
        for place, array in enumerate(case.inputs)
        if array is not None and place not in case.constants
    }
    most = FIRST_INPUTS.get(case.op, len(feeds))
    names = [name for name in list(feeds)[:most] if feeds[name].is_floating_point()]

    def run(*values: Tensor) -> tuple[Tensor, ...]:
        found = twin(feeds | dict(zip(names, values, strict=True)))
        return tuple(y for y in found.values() if y.is_floating_point() and y.requires_grad)

    inputs = [feeds[name].clone().requires_grad_() for name in names]
    assert run(*inputs)
    assert torch.autograd.gradcheck(run, inputs, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("op", ["ReduceL2", "LpNormalization", "LpPool"])
def test_lengths_of_zero_have_no_slope(op: str) -> None:
    """Windows are padded with zeros, and what divides by their length is held above none."""
    attributes = {"kernel_shape": [2]} if op == "LpPool" else {}
    twin = Twin(one_node(Case(op, (np.zeros((1, 2, 4), np.float32),), attributes), 17))
    x = torch.zeros(1, 2, 4, requires_grad=True)
    (y,) = twin({"x0": x}).values()
    y.sum().backward()
    assert torch.isfinite(x.grad).all()


def test_most_operators_are_checked() -> None:
    assert len(first_cases()) > 100
