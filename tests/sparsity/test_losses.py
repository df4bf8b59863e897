"""Reconstruction losses against their definitions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fcpts_onnx.sparsity.losses import (
    Head,
    class_scores,
    find_heads,
    kl_divergence,
    reconstruction_loss,
    variances,
)

DENSE = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, 3.0]])
SPARSE = torch.tensor([[1.0, 0.0, 0.5], [0.3, 1.0, 2.0]])


KL = Head("y", "kl")


def by_hand(temperature: float) -> float:
    p, q = (torch.softmax(x.double() / temperature, 1) for x in (DENSE, SPARSE))
    return float((p * (p / q).log()).sum(1).mean())


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kl(temperature: float) -> None:
    found = kl_divergence(DENSE, SPARSE, KL, temperature)
    assert float(found) == pytest.approx(by_hand(temperature), rel=1e-4)
    loss = reconstruction_loss({"y": DENSE}, {"y": SPARSE}, [KL], temperature)
    assert float(loss) == pytest.approx(temperature**2 * by_hand(temperature), rel=1e-4)
    assert float(kl_divergence(DENSE, DENSE, KL, temperature)) == pytest.approx(0.0, abs=1e-6)


def test_a_softmax_or_its_logarithm_in_the_graph_changes_nothing() -> None:
    for inside in (torch.softmax, torch.log_softmax):
        dense, sparse = inside(DENSE, 1), inside(SPARSE, 1)
        (head,) = find_heads({"y": dense}, {})
        found = kl_divergence(dense, sparse, head, 4.0)
        assert float(found) == pytest.approx(by_hand(4.0), rel=1e-4)


def test_probabilities_of_zero_give_finite_losses_and_gradients() -> None:
    sparse = torch.tensor([[1.0, 0.0, 0.0]], requires_grad=True)
    head = Head("y", "kl", probabilities=True)
    loss = kl_divergence(torch.tensor([[0.2, 0.3, 0.5]]), sparse, head)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(sparse.grad).all()


def test_what_counts_as_class_scores() -> None:
    assert class_scores(torch.zeros(2, 5)).shape == (2, 5)
    assert class_scores(torch.zeros(2, 5, 1, 1)).shape == (2, 5)
    assert class_scores(torch.zeros(2, 1)) is None
    assert class_scores(torch.zeros(2, 5, 7)) is None
    assert class_scores(torch.zeros(2, 5, dtype=torch.int64)) is None


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


HEADS = {
    "class scores": (normal(4, 5), Head("y", "kl", axis=1)),
    "with axes of size 1": (normal(4, 5, 1, 1), Head("y", "kl", axis=1)),
    "softmax on a map": (normal(4, 5, 3, 3).softmax(1), Head("y", "kl", 1, probabilities=True)),
    "softmax in the end": (normal(4, 7, 5).softmax(2), Head("y", "kl", 2, probabilities=True)),
    "sigmoid on a map": (normal(4, 5, 3, 3).sigmoid(), Head("y", "bce", probabilities=True)),
    "a map": (normal(4, 5, 3, 3), Head("y", "mse")),
    "a number": (normal(4, 1), Head("y", "mse")),
    "a unit vector": (torch.nn.functional.normalize(normal(4, 8)), Head("y", "mse")),
    "what was put in": (normal(4, 640), Head("y", "mse")),
}


@pytest.mark.parametrize("name", HEADS)
def test_heads_are_chosen_by_what_the_dense_network_gives(name: str) -> None:
    values, expected = HEADS[name]
    assert find_heads({"y": values}, {"x": torch.zeros(4, 640)}) == (expected,)


def test_heads_of_a_detector() -> None:
    outputs = {"scores": normal(2, 30, 21), "boxes": normal(2, 30, 4), "height": normal(2, 30)}
    outputs["count"] = torch.ones(2).int()
    outputs["sure"] = normal(2, 31, 20).sigmoid()
    expected = (
        Head("scores", "kl", axis=2),
        Head("boxes", "mse"),
        Head("height", "mse"),
        Head("sure", "bce", probabilities=True),
    )
    assert find_heads(outputs, {}) == expected


def test_landmarks_beside_probabilities_are_no_class_scores() -> None:
    outputs = {"boxes": normal(2, 30, 4), "sure": normal(2, 30, 1).sigmoid()}
    outputs["landmarks"] = normal(2, 30, 10)
    assert [head.loss for head in find_heads(outputs, {})] == ["mse", "bce", "mse"]


def test_a_score_beside_a_box_is_no_distribution() -> None:
    outputs = {"box": normal(2, 1, 4), "object": normal(2, 1, 1)}
    assert [head.loss for head in find_heads(outputs, {})] == ["mse", "mse"]


def test_a_loss_that_is_asked_for() -> None:
    outputs = {"a": normal(2, 5), "b": normal(2, 5)}
    assert find_heads(outputs, {}, {"a": "mse"})[0].loss == "mse"
    assert find_heads(outputs, {}, {"a": "bce"})[0] == Head("a", "bce")
    assert find_heads({"a": normal(2, 5).sigmoid()}, {}, {"a": "bce"})[0].probabilities


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((2, 5), 1), ((2, 5, 1), 1), ((2, 5, 4), 2), ((2, 1, 5), 2), ((2, 5, 6, 6), 1)],
    ids=str,
)
def test_classes_of_a_divergence_that_is_asked_for(shape: tuple[int, ...], axis: int) -> None:
    dense, sparse = normal(*shape), normal(*shape).flip(axis)
    (head,) = find_heads({"y": dense}, {"x": dense}, {"y": "kl"})
    assert (head.loss, head.axis) == ("kl", axis)
    assert float(reconstruction_loss({"y": dense}, {"y": sparse}, [head])) > 0.1


def test_divergence_at_each_place() -> None:
    """As the sum of the divergences of Bernoulli distributions, of scores and of probabilities."""
    p, q = torch.sigmoid(DENSE), torch.sigmoid(SPARSE)
    by_place = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    wanted = float(by_place.sum(1).mean())
    loss = reconstruction_loss({"y": DENSE}, {"y": SPARSE}, [Head("y", "bce")])
    assert float(loss) == pytest.approx(wanted, rel=1e-4)
    head = Head("y", "bce", probabilities=True)
    loss = reconstruction_loss({"y": p}, {"y": q}, [head])
    assert float(loss) == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("shape", [(2, 30, 5), (2, 5, 30), (2, 5, 6, 5)])
def test_divergence_of_anchors_is_their_mean(shape: tuple[int, ...]) -> None:
    """Whichever axis classes lie along."""
    dense, sparse = normal(*shape), normal(*shape) + 0.1
    place = F.binary_cross_entropy_with_logits
    wanted = place(sparse, dense.sigmoid()) - place(dense, dense.sigmoid())
    loss = reconstruction_loss({"y": dense}, {"y": sparse}, [Head("y", "bce")])
    assert float(loss) == pytest.approx(5 * float(wanted), rel=1e-3)


@pytest.mark.parametrize("transposed", [True, False])
def test_scores_beside_boxes_in_pixels_count_too(transposed: bool) -> None:
    """As YOLO exports give them: (batch, 4 + classes, anchors)."""
    boxes, scores = 100 * normal(2, 4, 500), (3 * normal(2, 3, 500) - 6).sigmoid()
    dense = torch.cat([boxes, scores], 1)
    blind, moved = dense.clone(), dense.clone()
    blind[:, 4:] = 0
    moved[:, :4] += 10
    if transposed:
        dense, blind, moved = (x.mT for x in (dense, blind, moved))
    head = Head("y", "mse", spread=variances(dense))
    lost, far = (float(reconstruction_loss({"y": dense}, {"y": x}, [head])) for x in (blind, moved))
    assert lost > 0.3
    assert far == pytest.approx(4 / 7 * 0.01, rel=0.1)


def test_classes_that_no_sample_shows_count_little() -> None:
    dense = (3 * normal(2, 3, 500) - 6).sigmoid()
    dense[:, 2] *= 1e-4
    common, rare, never = variances(dense)
    assert never == pytest.approx(0.1 * (common + rare) / 3, rel=1e-3)


def test_other_outputs_count_relative_to_their_variance() -> None:
    dense = normal(4, 3, 5)
    for scale in (1.0, 100.0):
        head = Head("y", "mse")
        loss = reconstruction_loss({"y": scale * dense}, {"y": scale * (dense + 0.1)}, [head])
        assert float(loss) == pytest.approx(0.01 / float(dense.var(correction=0)), rel=1e-3)


def test_outputs_that_do_not_vary_count_relative_to_their_size() -> None:
    """As those of a branch that is switched off, of which there is no variance."""
    for dense, expected in ((torch.full((4, 3), -2.0), 0.01 / 4), (torch.zeros(4, 3), 0.01)):
        for spread in (None, (0.0,)):
            head = Head("y", "mse", spread=spread)
            loss = reconstruction_loss({"y": dense}, {"y": dense + 0.1}, [head])
            assert float(loss) == pytest.approx(expected, rel=1e-3)


def test_heads_add_up() -> None:
    one = reconstruction_loss({"y": DENSE}, {"y": SPARSE}, [KL])
    two = [KL, Head("z", "kl")]
    both = reconstruction_loss({"y": DENSE, "z": DENSE}, {"y": SPARSE, "z": SPARSE}, two)
    assert float(both) == pytest.approx(2 * float(one))
