"""DATA: how an image file becomes a value of the graph's input."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fcpts_onnx.errors import CalibrationError, RecipeError
from fcpts_onnx.files import read_text
from fcpts_onnx.model import InputSpec, image_axes

__all__ = ["IMAGE_FORMATS", "PRESETS", "ImagePlan", "Preprocess", "check_type"]

_MOST_PIXELS = 2**27
_LARGEST = 2.5  # mean and deviation of pixels that are scaled to 2 at most
_LEAST_LEVELS = 64  # of integers that pixels of 0..255 may come to
_BEYOND = 2  # levels that may be cut off at either end, as rounded deviations have it
IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF")
"""What a file of images may hold, whatever it is called: Pillow starts programs for some others."""

_CHOICES = {
    "fit": ("crop", "stretch"),
    "channels": ("rgb", "bgr"),
    "layout": ("auto", "nchw", "nhwc"),
}
# Field, what it holds, and how many of them in a tuple; None for a plain number.
_NUMBERS = (
    ("scale", (int, float), None),
    ("mean", (int, float), (1, 3)),
    ("std", (int, float), (1, 3)),
    ("size", (int,), (2,)),
    ("resize", (int,), None),
)


@dataclass(frozen=True)
class Preprocess:
    """value = (pixel * scale - mean) / std, on an image brought to the size of the input.

    Attributes:
        scale: what a pixel of 0..255 is multiplied with.
        mean, std: one number, or one a channel in the order of the model's channels. Lists and
            numpy's numbers are taken too.
        size: (height, width) where the graph leaves it open; None takes it from the graph.
        resize: length of the short side in pixels before the centre crop; None takes the least
            that covers the size. An image that has the size already is left as it is.
        fit: "crop", or "stretch": the whole image to the size, whatever becomes of its proportions.
        channels: "rgb" or "bgr", the order of the model's channels.
        layout: "nchw", "nhwc", or "auto": where the graph's input has 1 or 3 channels.

    Raises:
        RecipeError: a value is out of range.
    """

    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    size: tuple[int, int] | None = None
    resize: int | None = None
    fit: str = "crop"
    channels: str = "rgb"
    layout: str = "auto"

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _plain(field.name, getattr(self, field.name)))
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise RecipeError(
                    f"Preprocessing: {name} is {getattr(self, name)!r}, expected one of {allowed}."
                )
        for name, kind, sizes in _NUMBERS:
            value = getattr(self, name)
            several = isinstance(value, tuple)
            numbers = value if isinstance(value, tuple) else (value,)
            fits = several == (sizes is not None) and len(numbers) in (sizes or (1,))
            if value is None and name in ("size", "resize"):
                continue
            if not fits or not all(type(n) in kind and math.isfinite(n) for n in numbers):
                counts = " or ".join(str(size) for size in sizes) + " in a list" if sizes else "1"
                raise RecipeError(
                    f"Preprocessing: {name} is {value!r}; expected {counts} number(s) "
                    f"({' or '.join(k.__name__ for k in kind)})."
                )
        if 0 in (self.scale, *self.std):
            raise RecipeError("Preprocessing: scale and std must not be zero.")
        self._check_scales()
        lengths = (*(self.size or ()), *((self.resize,) if self.resize is not None else ()))
        if any(length < 1 for length in lengths):
            raise RecipeError("Preprocessing: size and resize must be above zero.")

    def _check_scales(self) -> None:
        """See that mean and std are those of pixels that are scaled so."""
        for name in ("mean", "std"):
            values = getattr(self, name)
            if abs(self.scale) < 1 / 100 and any(abs(value) > _LARGEST for value in values):
                raise RecipeError(
                    f"Preprocessing: the {name} {values} is of pixels from 0 to 255, and they are "
                    f"scaled by {self.scale:.3g} before. Start from raw, or give what is left of "
                    "it."
                )
        below = all(abs(value) < 1 for value in (*self.mean, *self.std))
        if self.scale == 1 and any(self.mean) and below:
            raise RecipeError(
                f"Preprocessing: the mean {self.mean} and std {self.std} are of pixels from 0 to "
                "1, and they are from 0 to 255. Start from unit, which scales them by 1/255."
            )

    @classmethod
    def of(cls, choice: Preprocess | str) -> Preprocess:
        """A preprocessing, or the one of a name.

        Raises:
            RecipeError: as `named`.
        """
        return choice if isinstance(choice, Preprocess) else cls.named(choice)

    @classmethod
    def named(cls, name: str) -> Preprocess:
        """A preset by name, or the preprocessing stored in a TOML file.

        Raises:
            RecipeError: there is no such preset or file, or the file has unknown keys.
        """
        if name in PRESETS:
            return PRESETS[name]
        path = Path(name)
        if path.suffix != ".toml":
            raise RecipeError(
                f"Preprocessing {name!r} is unknown; expected {', '.join(PRESETS)} or a .toml file."
            )
        try:
            entries = tomllib.loads(read_text(path))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise RecipeError(f"{path}: cannot be read as preprocessing: {error}") from error
        return cls.read(entries, str(path))

    @classmethod
    def read(cls, entries: Mapping[str, Any], source: str) -> Preprocess:
        """The entries of a TOML file: a preset and what differs from it.

        Args:
            source: where they stand, for messages.

        Raises:
            RecipeError: an entry is unknown or out of range.
        """
        preset = entries.get("preset", "raw")
        if not isinstance(preset, str) or preset not in PRESETS:
            raise RecipeError(
                f"{source}: preset {preset!r} is unknown; expected one of {', '.join(PRESETS)}."
            )
        others = {key: value for key, value in entries.items() if key != "preset"}
        return PRESETS[preset].overridden(**others)

    def overridden(self, **entries: Any) -> Preprocess:
        """The same with other values for what is named; None leaves a value as it is.

        Mean and std of a preset follow the channels: BGR reverses them. Those that are named, or
        were before, are in the order of the model's channels already.

        Raises:
            RecipeError: an entry is unknown or out of range.
        """
        known = {field.name for field in fields(self)}
        if unknown := sorted(set(entries) - known):
            raise RecipeError(
                f"Preprocessing: unknown {', '.join(unknown)}; "
                f"known are {', '.join(sorted(known))}."
            )
        given = {key: value for key, value in entries.items() if value is not None}
        if given.get("channels", self.channels) != self.channels:
            given = {name: getattr(self, name)[::-1] for name in self._of_presets()} | given
        return replace(self, **given)

    def _of_presets(self) -> Iterator[str]:
        """Which of mean and std are those of a preset, in either order of channels."""
        for name in ("mean", "std"):
            known, own = {getattr(preset, name) for preset in PRESETS.values()}, getattr(self, name)
            if own in known or own[::-1] in known:
                yield name


def _plain(name: str, value: Any) -> Any:
    """A field's value in Python's own numbers: lists as tuples, one mean for all channels too."""
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return tuple(n.item() if isinstance(n, np.generic) else n for n in value)
    return (value,) if name in ("mean", "std") and isinstance(value, (int, float)) else value


PRESETS = {
    "imagenet": Preprocess(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "tf": Preprocess(1 / 127.5, (1.0,), (1.0,)),
    "unit": Preprocess(1 / 255),
    "raw": Preprocess(),
}
"""imagenet: RGB, x/255, torchvision's mean and std; tf: x/127.5-1; unit: x/255; raw: 0..255."""


@dataclass(frozen=True)
class ImagePlan:
    """Preprocessing settled for one input: what size, how many channels, in which order.

    Attributes:
        height, width: in pixels; None until the images themselves have to say.
    """

    spec: InputSpec
    preprocess: Preprocess
    channels: int
    height: int | None
    width: int | None
    nhwc: bool

    @classmethod
    def of(cls, spec: InputSpec, preprocess: Preprocess) -> ImagePlan:
        """Read layout, channels and size off the input, where it states them.

        Raises:
            CalibrationError: images do not fit the input.
        """
        check_type(spec)
        shape = (None,) * 4 if spec.shape is None else spec.shape
        if len(shape) != 4:
            raise CalibrationError(
                f"Input {spec.name!r} has shape {list(shape)}; images need four dimensions. "
                "Give arrays instead: a .npy, an .npz or a folder of .npy."
            )
        nhwc = preprocess.layout == "nhwc" or (
            preprocess.layout == "auto" and image_axes(shape) == (1, 2)
        )
        channels, height, width = (
            (shape[3], shape[1], shape[2]) if nhwc else (shape[1], shape[2], shape[3])
        )
        channels = channels or 3
        if channels not in (1, 3):
            raise CalibrationError(
                f"Input {spec.name!r} has {channels} channels ({list(shape)} read as "
                f"{'NHWC' if nhwc else 'NCHW'}); images have 1 or 3. Give --layout or arrays."
            )
        if channels == 1 and max(len(preprocess.mean), len(preprocess.std)) > 1:
            raise CalibrationError(
                f"Input {spec.name!r} has one channel, the preprocessing has three means or "
                "deviations. Give one of each, or --preprocess unit, tf or raw."
            )
        if spec.dtype.kind in "iu":
            _check_levels(spec, preprocess)
        height, width = _sides(spec, preprocess, height, width)
        if (height or 1) * (width or 1) > _MOST_PIXELS:
            raise CalibrationError(
                f"Input {spec.name!r} takes images of {height or '?'}x{width or '?'}; more than "
                f"{_MOST_PIXELS:,} pixels are not made of one."
            )
        return cls(spec, preprocess, channels, height, width, nhwc)

    def decode(self, path: Path) -> np.ndarray[Any, Any]:
        """One image file as uint8 of shape (height, width, channels), in the model's order.

        Raises:
            OSError, ValueError, SyntaxError: the file is not an image that can be read.
        """
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            pixels = _in_8_bits(image).convert("RGB" if self.channels == 3 else "L")
        pixels = self._fit(pixels)
        array = np.asarray(pixels).reshape(pixels.height, pixels.width, self.channels)
        return array[..., ::-1] if self.preprocess.channels == "bgr" else array

    def _fit(self, image: Image.Image) -> Image.Image:
        """Bring an image to the size: short side first, then a crop from the centre."""
        if self.height is None or self.width is None:
            return image
        if image.size == (self.width, self.height):
            return image
        if self.preprocess.fit == "stretch":
            return image.resize((self.width, self.height), Image.Resampling.BILINEAR)
        factor = max(self.height / image.height, self.width / image.width)
        if self.preprocess.resize:
            factor = max(factor, self.preprocess.resize / min(image.size))
        width = max(self.width, round(image.width * factor))
        height = max(self.height, round(image.height * factor))
        if width * height > _MOST_PIXELS:
            raise ValueError(f"{image.height}x{image.width} is too long to be scaled and cut")
        left, top = (width - self.width) // 2, (height - self.height) // 2
        resized = image.resize((width, height), Image.Resampling.BILINEAR)
        return resized.crop((left, top, left + self.width, top + self.height))

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 (batch, height, width, channels) -> the input's values, layout and type.

        NCHW results are views in channels-last memory.
        """
        mean, std = (
            torch.tensor(of_channels).to(pixels.device, non_blocking=True)
            for of_channels in (self.preprocess.mean, self.preprocess.std)
        )
        values = (pixels.float() * self.preprocess.scale - mean) / std
        if self.spec.dtype.kind in "iu":
            limits = np.iinfo(self.spec.dtype)
            values = values.round().clamp(int(limits.min), int(limits.max))
        values = values.to(torch.from_numpy(np.empty(0, self.spec.dtype)).dtype)
        return values if self.nhwc else values.permute(0, 3, 1, 2)


def check_type(spec: InputSpec) -> None:
    """See that arrays of an input's type exist in numpy, from which onnxruntime takes them.

    Raises:
        CalibrationError: it is bfloat16 or the like.
    """
    if spec.dtype.isbuiltin != 1:
        raise CalibrationError(
            f"Input {spec.name!r} is of type {spec.dtype}, which cannot be fed; expected float32, "
            "float16, double or integers. Export the model with one of these, and a Cast."
        )


def _in_8_bits(image: Image.Image) -> Image.Image:
    """An image whose pixels Pillow can convert; it would cut larger ones off at 255."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} have no range of 0 to 255; convert it")
    return image


def _sides(
    spec: InputSpec, preprocess: Preprocess, height: int | None, width: int | None
) -> tuple[int | None, int | None]:
    """Height and width that the user asks for, which must not contradict those of the input."""
    if preprocess.size is None:
        return height, width
    stated = (("height", height), ("width", width))
    for (side, found), asked in zip(stated, preprocess.size, strict=True):
        if found not in (None, asked):
            raise CalibrationError(
                f"--size asks for a {side} of {asked}; input {spec.name!r} has {found}."
            )
    return preprocess.size


def _check_levels(spec: InputSpec, preprocess: Preprocess) -> None:
    """See that an input of integers tells apart what the preprocessing makes of pixels."""
    pixels, limits = np.array([[0.0], [255.0]]), np.iinfo(spec.dtype)
    ends = (pixels * preprocess.scale - np.array(preprocess.mean)) / np.array(preprocess.std)
    least, most = ends.min(), ends.max()
    within = limits.min - _BEYOND <= least and most <= limits.max + _BEYOND
    if not within or np.abs(ends[1] - ends[0]).min() < _LEAST_LEVELS - 1:
        asked = "raw --mean 128" if spec.dtype.name == "int8" else "raw"
        raise CalibrationError(
            f"Input {spec.name!r} takes {spec.dtype}; the preprocessing makes {least:.3g} to "
            f"{most:.3g} of pixels of 0 to 255, which is cut off or rounded away there. Give "
            f"--preprocess {asked}, or what the input was made with."
        )
