"""Resizing and sampling on a grid, against onnxruntime."""

import numpy as np
import pytest
import torch

from fcpts_onnx.ops.resample import resize_11
from fcpts_onnx.ops.sampling import affine_grid, grid_sample
from tests.ops.harness import Case, check, expand, ints, name_of, normal

LINE, PLANE, SPACE = normal(1, 2, 7), normal(2, 3, 6, 5), normal(1, 2, 3, 4, 5)
ONES = [1.0, 1.0]
COORDINATES = (
    "align_corners",
    "asymmetric",
    "half_pixel",
    "pytorch_half_pixel",
    "tf_half_pixel_for_nn",
)


def floats(*values: float) -> np.ndarray:
    """A vector of float32."""
    return np.array(values, np.float32)


def by_scales(x, scales, since=11, **attributes):
    """Resize by scales; before opset 13, what is left out is empty."""
    inputs = (x, floats(), floats(*scales))
    return Case("Resize", inputs, attributes, since)


def by_sizes(x, sizes, since=13, roi=None, **attributes):
    """Resize to sizes."""
    return Case("Resize", (x, roi, None, ints(*sizes)), attributes, since, constants=(3,))


def sampled(x, grid_shape, since=20, until=27, note="", places=None, **attributes):
    """GridSample at random places, of which some lie outside or between two pixels."""
    grid = normal(x.shape[0], *grid_shape, x.ndim - 2, seed=1) if places is None else places
    return Case("GridSample", (x, grid), attributes, since, until, note=note)


MIDDLES = np.round(normal(2, 4, 5, 2, seed=1) * 12).astype(np.float32) / 6

CASES = [
    Case("Upsample", (PLANE,), {"scales": [*ONES, 2.0, 3.0]}, until=8),
    Case("Upsample", (PLANE,), {"scales": [*ONES, 1.5, 2.0], "mode": "linear"}, until=8),
    Case("Upsample", (PLANE, floats(*ONES, 2.0, 2.0)), since=9, until=9),
    Case("Upsample", (PLANE, floats(*ONES, 2, 1.4)), {"mode": "linear"}, since=9, until=9),
    # Since opset 10 the operator is deprecated: onnxruntime refuses it.
    Case("Upsample", (PLANE, floats(*ONES, 2, 2)), since=10, unknown_to_onnxruntime=True),
    Case("Resize", (PLANE, floats(*ONES, 2, 2)), since=10, until=10),
    Case("Resize", (PLANE, floats(*ONES, 0.6, 1.7)), since=10, until=10),
    Case("Resize", (PLANE, floats(*ONES, 0.6, 1.7)), {"mode": "linear"}, since=10, until=10),
    *(
        by_scales(PLANE, [*ONES, *scales], mode=mode, coordinate_transformation_mode=coordinates)
        for mode in ("nearest", "linear", "cubic")
        for coordinates in COORDINATES
        for scales in ((2, 2), (0.7, 1.6))
    ),
    *(
        by_sizes(PLANE, (2, 3, 4, 9), nearest_mode=rounding, coordinate_transformation_mode=how)
        for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
        for how in ("asymmetric", "half_pixel", "align_corners")
    ),
    # These meet the middle between two places but for the rounding of single precision.
    by_sizes(normal(1, 1, 20, 7), (1, 1, 6, 4), nearest_mode="round_prefer_ceil"),
    by_sizes(
        normal(1, 1, 11, 7),
        (1, 1, 52, 4),
        nearest_mode="round_prefer_floor",
        coordinate_transformation_mode="asymmetric",
    ),
    *(by_sizes(PLANE, (2, 3, 1, 11), mode=mode) for mode in ("nearest", "linear", "cubic")),
    by_sizes(PLANE, (2, 3, 1, 9), mode="linear", coordinate_transformation_mode="align_corners"),
    by_sizes(
        PLANE, (2, 3, 1, 9), mode="linear", coordinate_transformation_mode="pytorch_half_pixel"
    ),
    by_sizes(PLANE, (2, 3, 6, 5), mode="linear"),
    by_sizes(PLANE, (2, 3, 12, 10), mode="cubic", cubic_coeff_a=-0.5),
    by_sizes(PLANE, (2, 3, 4, 9), mode="cubic", exclude_outside=1),
    by_sizes(np.arange(60, dtype=np.uint8).reshape(1, 3, 5, 4), (1, 3, 10, 8)),
    by_sizes(PLANE[0, 0], (9, 4), mode="linear"),
    by_sizes(SPACE, (1, 2, 5, 3, 8), mode="linear"),
    by_sizes(SPACE, (1, 2, 6, 8, 10)),
    by_scales(SPACE, [*ONES, 1.5, 0.8, 2], mode="linear"),
    by_scales(normal(1, 5, 6, 3), [1, 1.5, 0.8, 1], mode="linear"),
    *(
        by_sizes(
            PLANE,
            (2, 3, 4, 7),
            roi=floats(0, 0, 0.1, -0.2, 1, 1, 0.8, 1.1),
            mode=mode,
            coordinate_transformation_mode="tf_crop_and_resize",
            extrapolation_value=7.5,
        )
        for mode in ("nearest", "linear", "cubic")
    ),
    by_sizes(
        PLANE,
        (1, 7),
        since=18,
        roi=floats(-0.2, 0.1, 1.1, 0.8),
        axes=[3, 2],
        mode="linear",
        coordinate_transformation_mode="tf_crop_and_resize",
    ),
    *(
        by_sizes(PLANE, (2, 3, 3, 8), since=18, mode=mode, antialias=1, exclude_outside=exclude)
        for mode in ("linear", "cubic")
        for exclude in (0, 1)
    ),
    by_scales(PLANE, [*ONES, 0.4, 0.6], since=18, mode="linear", antialias=1),
    by_scales(PLANE, [2, 0.6], since=18, axes=[2, 3]),
    by_scales(PLANE, [2, 0.6], since=18, axes=[-1, -2], mode="linear"),
    *(
        by_sizes(PLANE, (9, 7), since=18, axes=[2, 3], keep_aspect_ratio_policy=policy, mode=mode)
        for policy in ("stretch", "not_larger", "not_smaller")
        for mode in ("nearest", "linear")
    ),
    *(
        by_scales(
            PLANE,
            [*ONES, 0.7, 1.3],
            since=19,
            mode=mode,
            coordinate_transformation_mode="half_pixel_symmetric",
        )
        for mode in ("nearest", "linear", "cubic")
    ),
    *(
        sampled(PLANE, (4, 5), mode=mode, padding_mode=padding, align_corners=align)
        for mode in ("linear", "nearest", "cubic")
        for padding in ("zeros", "border", "reflection")
        for align in (0, 1)
    ),
    *(
        sampled(PLANE, (4, 5), 16, 19, mode=mode, padding_mode="border")
        for mode in ("bilinear", "nearest", "bicubic")
    ),
    *(
        sampled(
            PLANE,
            (4, 5),
            note=f"between two pixels, {padding} {align}",
            places=MIDDLES,
            mode="nearest",
            padding_mode=padding,
            align_corners=align,
        )
        for padding in ("zeros", "border", "reflection")
        for align in (0, 1)
    ),
    *(
        sampled(SPACE, (2, 3, 4), mode=mode, padding_mode="reflection")
        for mode in ("linear", "nearest")
    ),
    *(
        Case("AffineGrid", (normal(2, 2, 3), ints(2, 3, *size)), {"align_corners": align}, since=20)
        for align in (0, 1)
        for size in ((4, 5), (1, 3))
    ),
    Case("AffineGrid", (normal(2, 3, 4), ints(2, 3, 2, 3, 4)), since=20),
    Case("DepthToSpace", (normal(2, 12, 2, 3),), {"blocksize": 2}),
    Case("DepthToSpace", (normal(2, 12, 2, 3),), {"blocksize": 2, "mode": "DCR"}, since=11),
    Case("DepthToSpace", (normal(2, 12, 2, 3),), {"blocksize": 2, "mode": "CRD"}, since=11),
    Case("SpaceToDepth", (normal(2, 3, 4, 6),), {"blocksize": 2}),
    Case("Col2Im", (normal(2, 12, 12), ints(4, 5), ints(2, 2)), since=18),
    Case(
        "Col2Im",
        (normal(2, 12, 9), ints(6, 5), ints(2, 3)),
        {"strides": [2, 1], "pads": [1, 0, 0, 2], "dilations": [2, 2]},
        since=18,
    ),
    Case("Col2Im", (normal(2, 6, 5), ints(7), ints(3)), since=18),
    Case("Col2Im", (normal(1, 8, 8), ints(4, 3, 3), ints(2, 2, 2)), {"strides": [2, 1, 1]}, 18),
]


@pytest.mark.parametrize(("case", "opset"), expand(CASES), ids=name_of)
def test_parity(case: Case, opset: int) -> None:
    check(case, opset)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_resize_is_differentiable_where_torch_has_no_such_mode(mode: str) -> None:
    x = torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True)

    def resize(x: torch.Tensor) -> torch.Tensor:
        return resize_11(
            x, sizes=(1, 2, 7, 2), mode=mode, coordinate_transformation_mode="asymmetric"
        )

    assert torch.autograd.gradcheck(resize, (x,))


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_places_of_a_grid_stay_in_float32(kind: torch.dtype) -> None:
    theta = torch.tensor([[[1, 0.125, 0.25], [0.125, 1, 0.5]]])
    expected = affine_grid(theta, (1, 1, 224, 224))
    with torch.autocast("cpu", torch.bfloat16):
        found = affine_grid(theta.to(kind), (1, 1, 224, 224))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_reflected_nearest_samples_have_gradients() -> None:
    x = torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    grid = torch.randn(1, 2, 2, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: grid_sample(x, grid, mode="nearest", padding_mode="reflection"), (x,)
    )


@pytest.mark.parametrize(
    ("x", "attributes", "message"),
    [
        (torch.ones(1, 1, 2, 2), {"mode": "nearest", "antialias": 1}, "antialiasing"),
        (torch.ones(1, 1, 2, 2, dtype=torch.int32), {"mode": "linear"}, "floating point"),
    ],
)
def test_what_resize_refuses(x: torch.Tensor, attributes: dict, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        resize_11(x, sizes=(1, 1, 3, 3), **attributes)
