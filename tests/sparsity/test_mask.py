"""The hard mask: Eq. 1 forward, the published gradient backward."""

import torch

from fcpts_onnx.sparsity.mask import apply_threshold, mask_of_smallest


def test_forward_is_a_hard_mask() -> None:
    weights = torch.tensor([-0.3, -0.1, 0.0, 0.2, 0.5])
    found = apply_threshold(weights, torch.tensor(0.2))
    assert found.tolist() == torch.tensor([-0.3, 0.0, 0.0, 0.0, 0.5]).tolist()


def test_backward_reaches_threshold_and_weights() -> None:
    weights = torch.tensor([-0.3, 0.1, 0.5], requires_grad=True)
    threshold = torch.tensor(0.2, requires_grad=True)
    gradient = torch.tensor([1.0, 2.0, 3.0])
    apply_threshold(weights, threshold).backward(gradient)
    # dL/dt = -0.5 sum g w; dL/dw = g (M + 0.5 |w|).
    torch.testing.assert_close(threshold.grad, torch.tensor(-0.5 * (-0.3 + 0.2 + 1.5)))
    expected = gradient * (torch.tensor([1.0, 0.0, 1.0]) + 0.5 * weights.detach().abs())
    torch.testing.assert_close(weights.grad, expected)


def test_far_from_the_threshold_no_gradient_passes() -> None:
    threshold = torch.tensor(0.2, requires_grad=True)
    apply_threshold(torch.tensor([1.5]), threshold).sum().backward()
    assert float(threshold.grad) == 0.0


def test_masks_lie_in_memory_as_weights_do() -> None:
    sizes = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    expected = mask_of_smallest(sizes, 20)
    found = mask_of_smallest(sizes.contiguous(memory_format=torch.channels_last), 20)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found, expected)
