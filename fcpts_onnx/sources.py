"""DATA: the samples of one input: image files decoded once, or ready-made arrays."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fcpts_onnx.errors import CalibrationError
from fcpts_onnx.preprocess import IMAGE_FORMATS, ImagePlan

__all__ = [
    "IMAGE_SUFFIXES",
    "Arrays",
    "Images",
    "Source",
    "find_images",
    "image_size",
    "visible_files",
]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif"})
_IN_MEMORY_BYTES = 2**31
_UNREADABLE = (
    OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip


class Source(Protocol):
    """The samples of one input."""

    @property
    def raw(self) -> np.ndarray[Any, Any]:
        """As they are held, a sample an entry of axis 0."""

    def __len__(self) -> int: ...

    def take(self, indices: Tensor) -> Tensor: ...

    def describe(self) -> str: ...


@dataclass(frozen=True)
class Images:
    """Decoded images of one input: uint8 pixels, normalised when they are taken.

    Attributes:
        pixels: (count, height, width, channels), in memory or memory-mapped.
        skipped: what could not be read: file and reason.
    """

    plan: ImagePlan
    pixels: np.ndarray[Any, Any]
    paths: tuple[Path, ...]
    skipped: tuple[str, ...] = ()

    @classmethod
    def read(cls, paths: Sequence[Path], plan: ImagePlan) -> Images:
        """Decode files once, several at a time; what cannot be read is left out and named.

        Raises:
            CalibrationError: not one image could be read, or their sizes differ where nothing
                states a size.
        """
        if not paths:
            raise CalibrationError(
                f"There are no images ({', '.join(sorted(IMAGE_SUFFIXES))}) to be read."
            )
        kept: list[Path] = []
        skipped: list[str] = []
        with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
            # What Pillow only warns of takes a gigabyte, on several threads at once.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            plan = _settle_size(paths, plan)
            pixels = _store((len(paths), plan.height or 1, plan.width or 1, plan.channels))
            for path, result in zip(
                paths, pool.map(lambda p: _decode(p, plan), paths), strict=True
            ):
                if isinstance(result, str):
                    skipped.append(f"{path}: {result}")
                else:
                    pixels[len(kept)] = result
                    kept.append(path)
        if not kept:
            raise CalibrationError(
                f"None of the {len(paths)} images can be read, the first: {skipped[0]}"
            )
        return cls(plan, pixels[: len(kept)], tuple(kept), tuple(skipped))

    @property
    def raw(self) -> np.ndarray[Any, Any]:
        return self.pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, indices: Tensor) -> Tensor:
        """The input's values for these samples."""
        return self.plan.normalise(self.take_pixels(indices))

    def take_pixels(self, indices: Tensor) -> Tensor:
        """uint8 (batch, height, width, channels)."""
        return torch.from_numpy(np.ascontiguousarray(self.pixels[indices.numpy()]))

    def picture(self, index: int) -> Image.Image:
        """An image as it is taken, cut and scaled, in its own colours."""
        pixels = np.asarray(self.pixels[index])
        if self.plan.preprocess.channels == "bgr":
            pixels = pixels[..., ::-1]
        return Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)

    def describe(self) -> str:
        """Count, size and the range of values after preprocessing."""
        some = self.pixels[:1000]
        # The ends by channel tell the range: normalised, a thousand images take nine times as much.
        ends = np.stack([some.min(axis=(0, 1, 2)), some.max(axis=(0, 1, 2))])
        values = self.plan.normalise(torch.from_numpy(ends[:, None, None])).float()
        height, width, channels = self.pixels.shape[1:]
        return (
            f"{len(self)} images of {height}x{width}x{channels}, "
            f"values {values.min():.3g} to {values.max():.3g}"
        )


@dataclass(frozen=True)
class Arrays:
    """Ready-made values of one input, a sample an entry of axis 0."""

    name: str
    values: np.ndarray[Any, Any]

    @property
    def raw(self) -> np.ndarray[Any, Any]:
        return self.values

    def __len__(self) -> int:
        return len(self.values)

    def take(self, indices: Tensor) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.values[indices.numpy()]))

    def describe(self) -> str:
        some = self.values[:1000]
        shape = "x".join(str(size) for size in self.values.shape[1:]) or "1"
        return (
            f"{len(self)} samples of {shape} for {self.name!r}, "
            f"values {some.min():.3g} to {some.max():.3g}"
        )


def find_images(folder: Path) -> list[Path]:
    """All image files in a folder and below, sorted; hidden ones are left out.

    Raises:
        CalibrationError: the folder may not be read; a search passes over what lies in such.
    """
    try:
        os.scandir(folder).close()
    except OSError as error:
        raise CalibrationError(f"{folder}: cannot be read: {error.strerror}.") from error
    return sorted(
        path
        for path in visible_files(folder)
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not (path.exists() and not path.is_file())  # a pipe would be waited for without end
    )


def visible_files(folder: Path) -> Iterator[Path]:
    """All files in a folder and below but hidden ones, as macOS leaves beside others.

    Links are followed, but for those to where they lie in.
    """
    for root, folders, names in os.walk(folder, followlinks=True):
        place = Path(root)
        folders[:] = [
            f for f in folders if not place.resolve().is_relative_to((place / f).resolve())
        ]
        if not any(part.startswith(".") for part in place.relative_to(folder).parts):
            yield from (place / name for name in names if not name.startswith("."))


def _settle_size(paths: Sequence[Path], plan: ImagePlan) -> ImagePlan:
    """Where neither graph nor user states the whole size, the images have to have one size."""
    if plan.height is not None and plan.width is not None:
        return plan
    sizes = {size for path in paths if (size := image_size(path)) is not None}
    if len(sizes) > 1:
        some = ", ".join(f"{height}x{width}" for height, width in sorted(sizes)[:3])
        raise CalibrationError(
            f"Input {plan.spec.name!r} states no image size and the images have {len(sizes)} "
            f"({some} ...). Give --size HEIGHTxWIDTH."
        )
    height, width = sizes.pop() if sizes else (1, 1)
    if plan.height not in (None, height) or plan.width not in (None, width):
        raise CalibrationError(
            f"Input {plan.spec.name!r} states {plan.height or 'any'}x{plan.width or 'any'} and the "
            f"images have {height}x{width}. Give --size HEIGHTxWIDTH."
        )
    return replace(plan, height=height, width=width)


def image_size(path: Path) -> tuple[int, int] | None:
    """Height and width by the file's header, None where it cannot be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path, formats=IMAGE_FORMATS) as image:
                return image.height, image.width
        except _UNREADABLE:
            return None


def _decode(path: Path, plan: ImagePlan) -> np.ndarray[Any, Any] | str:
    """The pixels of a file, or why it cannot be read."""
    try:
        return plan.decode(path)
    except _UNREADABLE as error:
        return str(error) or type(error).__name__


def _store(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Room for pixels: in memory, or in a nameless file when it is large.

    Raises:
        CalibrationError: the disk has no room.
    """
    size = int(np.prod(shape, dtype=np.int64))
    if size <= _IN_MEMORY_BYTES:
        return np.empty(shape, np.uint8)
    with tempfile.TemporaryFile() as file:
        try:
            _reserve(file.fileno(), size)
        except OSError as error:
            raise CalibrationError(
                f"No room for {size / 2**30:.1f} GiB of images in {tempfile.gettempdir()}: "
                f"{error.strerror}. Set TMPDIR to a larger disk, or take fewer --samples."
            ) from error
        return np.memmap(file, np.uint8, "r+", shape=shape)


def _reserve(file: int, size: int) -> None:
    """Take room on the disk: without it, writing to memory would end the process, unexplained.

    Raises:
        OSError: there is none.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    elif shutil.disk_usage(tempfile.gettempdir()).free < size:  # all that other systems tell
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    else:
        os.ftruncate(file, size)
