"""Preprocessing: presets, files, and how an image is brought to the input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fcpts_onnx.errors import CalibrationError, RecipeError
from fcpts_onnx.model import InputSpec
from fcpts_onnx.preprocess import PRESETS, ImagePlan, Preprocess

NCHW = InputSpec("x", np.dtype("float32"), (None, 3, 8, 8))
NHWC = InputSpec("x", np.dtype("float32"), (None, 8, 8, 3))


def picture(path: Path, width: int, height: int) -> Path:
    """Red grows to the right, green downwards, blue is 7."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.arange(width)
    pixels[..., 1] = np.arange(height)[:, None]
    pixels[..., 2] = 7
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("imagenet", [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225], [0.515 / 0.229] * 1),
        ("tf", [-1.0] * 3, [1.0]),
        ("unit", [0.0] * 3, [1.0]),
        ("raw", [0.0] * 3, [255.0]),
    ],
)
def test_presets(name: str, low: list[float], high: list[float]) -> None:
    plan = ImagePlan.of(NCHW, PRESETS[name])
    ends = plan.normalise(torch.tensor([[[[0, 0, 0], [255, 255, 255]]]], dtype=torch.uint8))
    assert ends.shape == (1, 3, 1, 2)
    np.testing.assert_allclose(ends[0, :, 0, 0], low, rtol=1e-6)
    np.testing.assert_allclose(ends[0, 0, 0, 1], high[0], rtol=1e-6)


def test_layout_follows_the_input() -> None:
    pixels = torch.zeros((2, 8, 8, 3), dtype=torch.uint8)
    assert ImagePlan.of(NHWC, PRESETS["raw"]).normalise(pixels).shape == (2, 8, 8, 3)
    assert ImagePlan.of(NCHW, PRESETS["raw"]).normalise(pixels).shape == (2, 3, 8, 8)
    forced = ImagePlan.of(
        InputSpec("x", np.dtype("float32"), (1, None, None, None)), Preprocess(layout="nhwc")
    )
    assert forced.nhwc


def test_integer_inputs_get_whole_numbers() -> None:
    spec = InputSpec("x", np.dtype("uint8"), (1, 2, 2, 3))
    pixels = torch.tensor([0, 100, 255], dtype=torch.uint8).expand(1, 2, 2, 3)
    values = ImagePlan.of(spec, PRESETS["raw"]).normalise(pixels)
    assert values.dtype == torch.uint8
    assert values[0, 0, 0].tolist() == [0, 100, 255]
    shifted = InputSpec("x", np.dtype("int8"), (1, 2, 2, 3))
    values = ImagePlan.of(shifted, Preprocess(mean=(128.0,))).normalise(pixels)
    assert values[0, 0, 0].tolist() == [-128, -28, 127]


@pytest.mark.parametrize(
    ("dtype", "preprocess", "message"),
    [
        ("uint8", PRESETS["imagenet"], r"makes -2\.12 to 2\.64 of pixels .*--preprocess raw, or"),
        ("int32", PRESETS["unit"], "rounded away there. Give --preprocess raw, or"),
        ("int8", PRESETS["raw"], r"makes 0 to 255 .*--preprocess raw --mean 128, or"),
        ("uint8", PRESETS["raw"].overridden(mean=(128.0,)), "makes -128 to 127 of pixels"),
    ],
)
def test_integer_inputs_that_would_not_tell_pixels_apart(
    dtype: str, preprocess: Preprocess, message: str
) -> None:
    with pytest.raises(CalibrationError, match=message):
        ImagePlan.of(InputSpec("x", np.dtype(dtype), (1, 2, 2, 3)), preprocess)
    for held in (PRESETS["raw"].overridden(std=(2.0,)), Preprocess(mean=(0.4,), std=(2.004,))):
        assert ImagePlan.of(InputSpec("x", np.dtype(dtype), (1, 2, 2, 3)), held).channels == 3


def test_an_image_of_the_size_is_left_as_it_is(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", 8, 8)
    plan = ImagePlan.of(NCHW, Preprocess(resize=16))
    np.testing.assert_array_equal(plan.decode(path), np.asarray(Image.open(path)))


def test_short_side_then_centre_crop(tmp_path: Path) -> None:
    wide = picture(tmp_path / "wide.png", 40, 16)
    found = ImagePlan.of(NCHW, Preprocess()).decode(wide)
    assert found.shape == (8, 8, 3)
    # 40x16 becomes 20x8; the middle 8 columns show the source's columns 12 to 28.
    np.testing.assert_allclose(found[4, :, 0], 12.5 + 2 * np.arange(8), atol=1)
    zoomed = ImagePlan.of(NCHW, Preprocess(resize=16)).decode(wide)
    np.testing.assert_array_equal(zoomed[0, :, 0], np.arange(16, 24))


def test_bgr_and_grey(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", 8, 8)
    bgr = ImagePlan.of(NCHW, Preprocess(channels="bgr")).decode(path)
    assert bgr[5, 2].tolist() == [7, 5, 2]
    grey = ImagePlan.of(InputSpec("x", np.dtype("float32"), (1, 1, 8, 8)), PRESETS["unit"])
    assert grey.decode(path).shape == (8, 8, 1)


def test_pixels_of_more_than_8_bits(tmp_path: Path) -> None:
    grey = ImagePlan.of(InputSpec("x", np.dtype("float32"), (1, 1, 8, 8)), PRESETS["unit"])
    deep = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(grey.decode(tmp_path / "deep.png")[..., 0], deep >> 8)
    Image.fromarray(np.ones((8, 8), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match="pixels of mode F have no range of 0 to 255"):
        grey.decode(tmp_path / "float.tif")


def test_toml(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('preset = "unit"\nmean = [0.1, 0.2, 0.3]\nsize = [16, 24]\n')
    found = Preprocess.named(str(path))
    assert found == Preprocess(1 / 255, mean=(0.1, 0.2, 0.3), size=(16, 24))
    path.write_text("mean = 127.5\nstd = 64\n")
    assert Preprocess.named(str(path)) == Preprocess(mean=(127.5,), std=(64,))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mean = 'x", "cannot be read as preprocessing"),
        ("colour = 1", "unknown colour; known are channels"),
        ("mean = [1, 2]", "mean is \\(1, 2\\); expected 1 or 3"),
        ("std = [0, 1, 1]", "must not be zero"),
        ("layout = 'hwcn'", "layout is 'hwcn'"),
        ("preset = 'cifar'", "preset 'cifar' is unknown"),
        ("mean = ['a', 'b', 'c']", "mean is"),
        ("resize = 1.5", "resize is 1.5"),
        ("resize = -5", "must be above zero"),
        ("size = [-8, 8]", "must be above zero"),
        ("scale = [0.5]", "scale is \\(0.5,\\)"),
        ("preset = ['unit']", "is unknown"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        Preprocess.named(str(path))


def test_numbers_of_python_and_numpy() -> None:
    expected = Preprocess(1 / 255, (0.5, 0.25, 0.5), (0.5,), size=(8, 16))
    for mean, std, size in (
        ([0.5, 0.25, 0.5], 0.5, [8, 16]),
        (np.array([0.5, 0.25, 0.5], np.float32), np.float32(0.5), np.array([8, 16])),
        ([np.float32(0.5), 0.25, np.float64(0.5)], [0.5], (np.int64(8), 16)),
    ):
        found = Preprocess(np.float64(1 / 255), mean, std, size=size)
        assert found == expected
        assert {type(n) for n in (found.scale, *found.mean, *found.std)} == {float}
        assert {type(n) for n in found.size} == {int}
    with pytest.raises(RecipeError, match="mean is"):
        Preprocess(mean=np.zeros((3, 1)))


def test_a_preset_follows_the_order_of_channels(tmp_path: Path) -> None:
    preset = PRESETS["imagenet"]
    bgr = preset.overridden(channels="bgr")
    assert (bgr.mean, bgr.std) == (preset.mean[::-1], preset.std[::-1])
    assert bgr.overridden(channels="bgr", resize=9).mean == bgr.mean
    assert bgr.overridden(channels="rgb") == preset
    given = preset.overridden(channels="bgr", mean=(0.1, 0.2, 0.3))
    assert (given.mean, given.std) == ((0.1, 0.2, 0.3), preset.std[::-1])
    (tmp_path / "mine.toml").write_text('preset = "imagenet"\nchannels = "bgr"\n')
    assert Preprocess.named(str(tmp_path / "mine.toml")) == bgr
    (tmp_path / "mine.toml").write_text("mean = [104, 117, 123]\n")
    stored = Preprocess.named(str(tmp_path / "mine.toml"))
    assert stored.overridden(channels="bgr").mean == (104, 117, 123)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"scale": 1 / 255, "mean": 127.5}, "mean .* is of pixels from 0 to 255"),
        ({"scale": 1 / 255, "std": (58.4, 57.1, 57.4)}, "std .* is of pixels from 0 to 255"),
        ({"mean": 0.5, "std": 0.5}, "pixels from 0 to 1, and they are from 0 to 255. Start from u"),
        ({"mean": (0.0, 0.4, 0.4), "std": (0.2, 0.2, 0.2)}, "pixels from 0 to 1"),
    ],
)
def test_scales_that_are_mixed_up(numbers: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Preprocess(**numbers)
    Preprocess(std=0.5)  # twice the pixels
    Preprocess(mean=0.5, std=255)
    Preprocess(scale=-1, mean=-255)  # inverted


def test_unknown_name() -> None:
    with pytest.raises(
        RecipeError, match=r"'cifar10' is unknown; expected imagenet, tf, unit, raw"
    ):
        Preprocess.named("cifar10")


@pytest.mark.parametrize(
    ("shape", "preprocess", "message"),
    [
        ((None, 640), Preprocess(), "images need four dimensions"),
        ((1, 5, 8, 8), Preprocess(), "has 5 channels"),
        ((1, 1, 8, 8), PRESETS["imagenet"], "has one channel, the preprocessing has three"),
        ((1, 3, 8, 8), Preprocess(size=(9, 8)), "asks for a height of 9; input 'x' has 8"),
    ],
)
def test_inputs_that_images_do_not_fit(
    shape: tuple[int, ...], preprocess: Preprocess, message: str
) -> None:
    with pytest.raises(CalibrationError, match=message):
        ImagePlan.of(InputSpec("x", np.dtype("float32"), shape), preprocess)
