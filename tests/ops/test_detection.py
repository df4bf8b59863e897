"""Regions and boxes: what detectors end with, against onnxruntime."""

import numpy as np
import pytest
import torch

from fcpts_onnx.ops.detection import deform_conv, roi_align_16
from tests.ops.harness import Case, check, expand, ints, name_of, normal

IMAGES = normal(2, 3, 8, 9)
# One lies partly outside, one has no extent, one is the wrong way around.
REGIONS = np.array(
    [[0.5, 1.2, 6.3, 7.1], [-3, 2, 4, 12], [3, 3, 3, 3], [6, 5, 2, 3]], dtype=np.float32
)
IMAGE_OF_REGION = ints(0, 1, 1, 0)


def regions(since, until=27, unknown=False, **attributes):
    """RoiAlign of the regions."""
    size = {"output_height": 3, "output_width": 2, "spatial_scale": 0.75}
    return Case(
        "RoiAlign",
        (IMAGES, REGIONS, IMAGE_OF_REGION),
        size | attributes,
        since,
        until,
        unknown_to_onnxruntime=unknown,
    )


def scalar(value, dtype=np.float32):
    """A tensor of no axes."""
    return np.array(value, dtype)


BOXES = np.random.default_rng(0).uniform(0, 1, (2, 12, 4)).astype(np.float32)
SCORES = np.random.default_rng(1).uniform(0, 1, (2, 3, 12)).astype(np.float32).round(1)
FIVE = scalar(5, np.int64)


def suppression(*thresholds, limit=FIVE, **attributes):
    """NonMaxSuppression; some of the scores are equal."""
    return Case("NonMaxSuppression", (BOXES, SCORES, limit, *thresholds), attributes, since=10)


def deformed(w, offset_channels, *more, size=(7, 8), x=(2, 4, 8, 9), **attributes):
    """DeformConv with offsets that reach beyond the image."""
    offset = 2 * normal(x[0], offset_channels, *size, seed=1)
    return Case("DeformConv", (normal(*x), normal(*w, seed=2), offset, *more), attributes, since=19)


CASES = [
    *(
        regions(10, 15, mode=mode, sampling_ratio=ratio)
        for mode in ("avg", "max")
        for ratio in (0, 2)
    ),
    *(
        regions(16, 21, mode=mode, sampling_ratio=ratio, coordinate_transformation_mode=how)
        for mode in ("avg", "max")
        for ratio in (0, 2)
        for how in ("half_pixel", "output_half_pixel")
    ),
    *(regions(22, unknown=True, mode=mode) for mode in ("avg", "max")),
    Case(
        "MaxRoiPool",
        (
            normal(2, 3, 8, 9),
            np.array([[0, 1, 1, 5, 6], [1, -4.5, 3, 20, 5.5], [1, 6, 6, 2, 2]], np.float32),
        ),
        {"pooled_shape": [3, 2], "spatial_scale": 0.5},
        until=21,
    ),
    suppression(scalar(0.3)),
    suppression(scalar(0.3), scalar(0.4)),
    suppression(scalar(0.3), scalar(2)),
    suppression(scalar(0.1), limit=scalar(100, np.int64), center_point_box=1),
    suppression(limit=scalar([1], np.int64)),
    suppression(limit=scalar(0, np.int64)),
    Case("NonMaxSuppression", (BOXES, SCORES), since=10, note="limit left out"),
    deformed((5, 4, 2, 2), 8),
    deformed((6, 2, 2, 2), 16, normal(6), normal(2, 8, 7, 8, seed=3), group=2, offset_group=2),
    deformed(
        (5, 4, 3, 2),
        12,
        None,
        normal(2, 6, 4, 8, seed=3),
        size=(4, 8),
        strides=[2, 1],
        dilations=[1, 2],
        pads=[1, 0, 1, 1],
    ),
]


@pytest.mark.parametrize(("case", "opset"), expand(CASES), ids=name_of)
def test_parity(case: Case, opset: int) -> None:
    check(case, opset)


def test_roi_align_is_differentiable() -> None:
    x = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor([[0.4, 0.7, 4.2, 3.1]], dtype=torch.float64, requires_grad=True)

    def align(x: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
        return roi_align_16(x, rois, torch.tensor([0]), output_height=2, output_width=2)

    assert torch.autograd.gradcheck(align, (x, rois))


def test_deform_conv_reads_the_right_pixels_in_bfloat16() -> None:
    """Whose 8 digits tell apart no two pixels far from the first."""
    x, w = map(torch.from_numpy, (normal(1, 1, 300, 300), normal(1, 1, 1, 1, seed=1)))
    offset = torch.zeros(1, 2, 300, 300, dtype=torch.bfloat16)
    expected = w.squeeze() * x
    torch.testing.assert_close(deform_conv(x, w, offset), expected, rtol=0.01, atol=0.01)


def test_deform_conv_is_differentiable() -> None:
    torch.manual_seed(0)
    shapes = ((1, 2, 4, 4), (2, 2, 2, 2), (1, 8, 3, 3), (2,), (1, 4, 3, 3))
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(deform_conv, inputs)
