"""The budget: exact sums within bounds, exact masks with ties, and targets out of reach."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from fcpts_onnx.errors import TargetError
from fcpts_onnx.sparsity.budget import Budget, control_loss
from fcpts_onnx.sparsity.mask import mask_of_smallest
from fcpts_onnx.sparsity.pattern import PATTERNS
from fcpts_onnx.weights import Weight


def weight(name: str, rows: int, columns: int, zeros: int = 0) -> Weight:
    return Weight(name, (rows, columns), "float32", "Gemm", ("n",), 0, zeros)


def test_budget_is_rounded_to_the_weight() -> None:
    weights = [weight("a", 3, 5), weight("b", 2, 4)]
    assert Budget.of(weights, 0.5).zeros == 12
    assert Budget.of(weights, 0.52).zeros == 12
    assert Budget.of(weights, 0.55).zeros == 13


@pytest.mark.parametrize("target", [0.0, 1.0, -0.2, 1.7, float("nan"), float("inf")])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_target_out_of_range(target: float, pattern: str) -> None:
    several = replace(weight("a", 8, 8), input_axis=1)
    with pytest.raises(TargetError, match="expected a share between 0 and 1"):
        Budget.of([several], target, pattern=PATTERNS[pattern])


def test_target_below_present_zeros() -> None:
    with pytest.raises(TargetError, match=r"below the 0\.4000 of zeros already there \(6 of 15"):
        Budget.of([weight("a", 3, 5, zeros=6)], 0.3)


def test_target_that_would_empty_a_layer() -> None:
    with pytest.raises(TargetError, match=r"at most 0\.8000 can be zero"):
        Budget.of([weight("a", 3, 5)], 0.9)


def test_counts_sum_exactly_within_bounds() -> None:
    generator = random.Random(0)
    for _ in range(300):
        weights = [
            weight(str(place), rows := generator.randint(1, 9), columns := generator.randint(1, 40),
                   generator.randint(0, rows * columns // 3))
            for place in range(generator.randint(1, 6))
        ]  # fmt: skip
        most = sum(max(w.zeros, w.count - w.shape[0]) for w in weights)
        least = sum(w.zeros for w in weights)
        total = sum(w.count for w in weights)
        zeros = generator.randint(least, most)
        if not 0 < zeros < total:
            continue
        budget = Budget.of(weights, zeros / total)
        wanted = {w.name: generator.uniform(-5, 1.2 * w.count) for w in weights}
        found = budget.counts(wanted)
        assert sum(found.values()) == budget.zeros == zeros
        for w in weights:
            assert w.zeros <= found[w.name] <= max(w.zeros, w.count - w.shape[0])


def test_counts_that_fit_stay() -> None:
    budget = Budget.of([weight("a", 2, 50), weight("b", 2, 50)], 0.5)
    assert budget.counts({"a": 70.2, "b": 29.8}) == {"a": 70, "b": 30}


def test_what_is_useful_is_filled_first() -> None:
    weights = [weight("a", 2, 50), weight("b", 2, 50), weight("c", 2, 50, zeros=30)]
    densities = {"a": 0.4, "c": 0.9}  # 60 zeros are useful in a, and the 30 there are in c
    budget = Budget.of(weights, 0.5, densities)
    assert budget.counts({"a": 90, "b": 30, "c": 30}) == {"a": 60, "b": 60, "c": 30}
    # Beyond 60 + 98 + 30 in all, others gain nothing; each has what is useful by then.
    budget = Budget.of(weights, 0.7, densities)
    found = budget.counts({"a": 90, "b": 20, "c": 30})
    assert found["b"] == 98
    assert found["a"] >= 60
    assert found["c"] >= 30
    assert sum(found.values()) == 210


def test_mask_is_exact_with_ties() -> None:
    sizes = torch.ones(3, 3)
    for zeros in range(10):
        mask = mask_of_smallest(sizes, zeros)
        assert int((mask == 0).sum()) == zeros
    mask = mask_of_smallest(torch.tensor([2.0, 1.0, 1.0, 1.0, 3.0]), 2)
    assert mask.tolist() == [1, 0, 0, 1, 1]


def test_control_loss_and_its_gradient() -> None:
    counts = torch.tensor([30.0, 10.0])
    rates = torch.tensor([0.5, 0.9], requires_grad=True)
    loss = control_loss(rates, counts, 0.7)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.1)
    assert rates.grad.tolist() == pytest.approx([-0.75, -0.25])  # Eq. 8, below the target
