"""Layer-wise rules, against cases worked out by hand and a dense solution."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fcpts_onnx.methods.pot import least_squares
from fcpts_onnx.methods.sparsegpt import sparsegpt
from fcpts_onnx.methods.wanda import wanda
from fcpts_onnx.sparsity.layerwise import Moments, Rule


def data(inputs: int = 6, outputs: int = 4, groups: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Correlated inputs (groups, places, inputs), rows, and what both give, with a mean."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(groups, inputs, inputs, generator=generator, dtype=torch.float64)
    x = torch.randn(groups, 500, inputs, generator=generator, dtype=torch.float64) @ mixing + 0.5
    rows = torch.randn(groups, outputs, inputs, generator=generator, dtype=torch.float64)
    return x, rows, x @ rows.mT


def moments(x: Tensor, y: Tensor, *, has_bias: bool = False) -> Moments:
    count = x.shape[1]
    return Moments(
        x.mT @ x / count, x.mT @ y / count, x.mean(1), y.mean(1), float(y.square().sum()) / count,
        has_bias,
    )  # fmt: skip


RULES: list[Rule] = [least_squares, sparsegpt, wanda]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("zeros", [0, 7, 31, 47])
def test_counts_are_exact(rule: Rule, zeros: int) -> None:
    x, rows, y = data(groups=2)
    found = rule(rows, moments(x, y), zeros)
    assert int((found.mask == 0).sum()) == zeros
    assert found.rows.shape == found.mask.shape == rows.shape


def test_the_error_is_that_of_the_outputs() -> None:
    x, rows, y = data()
    other, bias = rows + 0.1, torch.full((1, 4), 0.3, dtype=torch.float64)
    dense = moments(x, y, has_bias=True)
    expected = float((x @ other.mT + bias - y).square().sum() / y.square().sum())
    assert dense.error(other, bias) == pytest.approx(expected)
    assert dense.error(rows, None) == pytest.approx(0.0, abs=1e-9)


def test_least_squares() -> None:
    """Each row is what torch's solver finds with the inputs that are left and a mean on top."""
    x, rows, y = data()
    found = least_squares(rows, moments(x, y + 2.0, has_bias=True), 12)
    assert found.shift is not None
    values = found.rows * found.mask
    centred = x[0] - x[0].mean(0)
    pull = (0.001 * 500 * centred.var(0, correction=0).mean()).sqrt()  # towards the dense weights
    for row in range(4):
        left = found.mask[0, row] != 0
        design = torch.cat(
            [centred[:, left], pull * torch.eye(6, dtype=torch.float64)[left][:, left]]
        )
        wanted = torch.cat([y[0][:, row] - y[0][:, row].mean(), pull * rows[0, row, left]])
        solved = torch.linalg.lstsq(design, wanted[:, None]).solution[:, 0]
        torch.testing.assert_close(values[0, row, left], solved)
        mean = y[0][:, row].mean() + 2.0 - x[0].mean(0) @ values[0, row]
        torch.testing.assert_close(found.shift[0, row], mean)


def test_least_squares_beats_the_others() -> None:
    x, rows, y = data(inputs=12)
    dense = moments(x, y)
    errors = {}
    for rule in (least_squares, wanda):
        found = rule(rows, dense, 30)
        errors[rule] = dense.error(found.rows * found.mask, found.shift)
    assert errors[least_squares] < 0.8 * errors[wanda]


def test_wanda() -> None:
    """Eq. 1: |w| times the norm of the input, the least two of each row."""
    rows = torch.tensor([[[4.0, 3.0, -2.0, 1.0], [1.0, -1.0, 1.0, 1.0]]], dtype=torch.float64)
    x = torch.diag(torch.tensor([1.0, 1.0, 3.0, 5.0], dtype=torch.float64))[None]
    found = wanda(rows, moments(x, x @ rows.mT), 4)  # scores 4 3 6 5 and 1 1 3 5
    assert found.mask.tolist() == [[[0, 0, 1, 1], [0, 0, 1, 1]]]
    torch.testing.assert_close(found.rows, rows)


def test_wanda_keeps_the_zeros_that_are_there() -> None:
    x, rows, y = data()
    rows[0, 1] = 0.0
    found = wanda(rows, moments(x, y), 12)
    assert (found.mask[0] == 0).sum(1).tolist() == [2, 6, 2, 2]
    assert int((rows[found.mask != 0] == 0).sum()) == 0


def test_sparsegpt_makes_up_for_a_lost_column() -> None:
    """One zero in the first column: the others take the dense least-squares solution."""
    x, rows, _ = data()
    rows[0, :, 0] *= 1e-3  # the least of its row whatever else
    dense = moments(x, x @ rows.mT)
    found = sparsegpt(rows, dense, 4)
    assert found.mask[0].tolist() == [[0, 1, 1, 1, 1, 1]] * 4
    rest = x[0][:, 1:]
    for row in range(4):
        damping = 0.01 * dense.gram[0].diagonal().mean() * 500
        # Least change of the damped quadratic: what OBS solves with H = X^T X + damping.
        system = rest.T @ rest + damping * torch.eye(5, dtype=torch.float64)
        target = rest.T @ (x[0] @ rows[0, row]) + damping * rows[0, row, 1:]
        torch.testing.assert_close(found.rows[0, row, 1:], torch.linalg.solve(system, target))


def surgeon(rows: Tensor, hessian: Tensor, zeros: int, block: int) -> tuple[Tensor, Tensor]:
    """SparseGPT with the inverse Hessian of what is left worked out anew at each column."""
    values, mask, count = rows.clone(), torch.ones_like(rows), rows.shape[1]
    left = [torch.linalg.inv(hessian[column:, column:])[0] for column in range(count)]
    done = 0
    for start in range(0, count, block):
        stop = min(start + block, count)
        wanted = round(zeros * stop / count) - done
        done += wanted
        scale = torch.stack([inverse[0] for inverse in left[start:stop]])
        scores = values[:, start:stop].square() / scale
        least = scores.flatten().topk(wanted, largest=False).indices
        mask[least // (stop - start), start + least % (stop - start)] = 0
        for column in range(start, stop):
            lost = values[:, column] * (1 - mask[:, column]) / left[column][0]
            values[:, column:] -= lost[:, None] * left[column]
    return values, mask


@pytest.mark.parametrize(("inputs", "zeros"), [(6, 11), (150, 300)])
def test_sparsegpt_is_the_surgeon_column_after_column(inputs: int, zeros: int) -> None:
    """Also beyond the 128 columns of one block."""
    x, rows, y = data(inputs=inputs)
    dense = moments(x, y)
    gram = dense.gram[0]
    damping = 0.01 * gram.diagonal().mean()
    hessian = gram + damping * torch.eye(inputs, dtype=torch.float64)
    values, mask = surgeon(rows[0], hessian, zeros, 128)
    found = sparsegpt(rows, dense, zeros)
    assert int((found.mask == 0).sum()) == zeros
    torch.testing.assert_close(found.mask[0], mask)
    torch.testing.assert_close(found.rows[0] * found.mask[0], values * mask)


def test_sparsegpt_takes_what_reads_nothing_first() -> None:
    """However large it is; the zeros that are there come before, and no other is made."""
    x, rows, _ = data(inputs=8)
    x[0, :, 4:] = 0.0
    rows[0, :, 4:] *= 100
    rows[0, 0, 0] = 0.0
    dense = moments(x, x @ rows.mT)
    found = sparsegpt(rows, dense, 17)
    assert found.mask[0, :, :4].flatten().tolist() == [0] + 15 * [1]
    assert not found.mask[0, :, 4:].any()
    assert dense.error(found.rows * found.mask, None) == pytest.approx(0.0, abs=1e-9)
    some = sparsegpt(rows, dense, 5)
    assert int((some.rows * some.mask == 0).sum()) == 5
    none = sparsegpt(rows, moments(0 * x, 0 * x @ rows.mT), 9)
    assert int((none.rows * none.mask == 0).sum()) == 9
    assert bool(none.rows.isfinite().all())


def test_sparsegpt_takes_what_reads_nothing_first_in_all_blocks() -> None:
    x, rows, _ = data(inputs=200)
    x[0, :, :100] = 0.0
    dense = moments(x, x @ rows.mT)
    found = sparsegpt(rows, dense, 400)
    assert not found.mask[0, :, :100].any()
    assert found.mask[0, :, 100:].all()


def test_sparsegpt_beats_wanda() -> None:
    x, rows, y = data(inputs=200, outputs=8)
    dense = moments(x, y)
    errors = {}
    for rule in (sparsegpt, wanda):
        found = rule(rows, dense, 800)
        errors[rule] = dense.error(found.rows * found.mask, None)
    assert errors[sparsegpt] < 0.8 * errors[wanda]
