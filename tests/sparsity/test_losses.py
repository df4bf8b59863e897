"""Reconstruction losses against their definitions."""

from __future__ import annotations

import pytest
import torch

from fcpts_onnx.sparsity.losses import class_scores, kl_divergence, reconstruction_loss

DENSE = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, 3.0]])
SPARSE = torch.tensor([[1.0, 0.0, 0.5], [0.3, 1.0, 2.0]])


def by_hand(temperature: float) -> float:
    p, q = (torch.softmax(x.double() / temperature, 1) for x in (DENSE, SPARSE))
    return float((p * (p / q).log()).sum(1).mean())


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kl(temperature: float) -> None:
    found = kl_divergence(DENSE, SPARSE, temperature)
    assert float(found) == pytest.approx(by_hand(temperature), rel=1e-4)
    loss = reconstruction_loss({"y": DENSE}, {"y": SPARSE}, temperature)
    assert float(loss) == pytest.approx(temperature**2 * by_hand(temperature), rel=1e-4)
    assert float(kl_divergence(DENSE, DENSE, temperature)) == pytest.approx(0.0, abs=1e-6)


def test_a_softmax_or_its_logarithm_in_the_graph_changes_nothing() -> None:
    for inside in (torch.softmax, torch.log_softmax):
        found = kl_divergence(inside(DENSE, 1), inside(SPARSE, 1), 4.0)
        assert float(found) == pytest.approx(by_hand(4.0), rel=1e-4)


def test_probabilities_of_zero_give_finite_losses_and_gradients() -> None:
    sparse = torch.tensor([[1.0, 0.0, 0.0]], requires_grad=True)
    loss = kl_divergence(torch.tensor([[0.2, 0.3, 0.5]]), sparse)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(sparse.grad).all()


def test_what_counts_as_class_scores() -> None:
    assert class_scores(torch.zeros(2, 5)).shape == (2, 5)
    assert class_scores(torch.zeros(2, 5, 1, 1)).shape == (2, 5)
    assert class_scores(torch.zeros(2, 1)) is None
    assert class_scores(torch.zeros(2, 5, 7)) is None
    assert class_scores(torch.zeros(2, 5, dtype=torch.int64)) is None


def test_other_outputs_count_relative_to_their_variance() -> None:
    dense = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    for scale in (1.0, 100.0):
        loss = reconstruction_loss({"y": scale * dense}, {"y": scale * (dense + 0.1)})
        assert float(loss) == pytest.approx(0.01 / float(dense.var(correction=0)), rel=1e-3)


def test_outputs_add_up_and_whole_numbers_do_not_count() -> None:
    one = reconstruction_loss({"a": DENSE}, {"a": SPARSE})
    both = reconstruction_loss(
        {"a": DENSE, "b": DENSE, "n": torch.ones(2, 3, dtype=torch.int64)},
        {"a": SPARSE, "b": SPARSE, "n": torch.zeros(2, 3, dtype=torch.int64)},
    )
    assert float(both) == pytest.approx(2 * float(one))
