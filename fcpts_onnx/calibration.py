"""DATA: image folder / .npy / .npz / Python arrays -> batches for every input of the graph."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fcpts_onnx.errors import CalibrationError
from fcpts_onnx.model import InputSpec, Model
from fcpts_onnx.preprocess import ImagePlan, Preprocess
from fcpts_onnx.views import random_view

__all__ = ["IMAGE_SUFFIXES", "Calibration", "Data", "Images", "find_images", "load_calibration"]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"})
_IN_MEMORY_BYTES = 2**31

Data = str | os.PathLike[str] | Iterable[Any]
"""Where calibration data comes from: a path, or an iterable of arrays or of dicts by input name."""


class _Source(Protocol):
    """The samples of one input."""

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
        plan = _settle_size(paths, plan)
        pixels = _store((len(paths), plan.height or 1, plan.width or 1, plan.channels))
        kept: list[Path] = []
        skipped: list[str] = []
        with ThreadPoolExecutor() as pool:
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

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, indices: Tensor) -> Tensor:
        """The input's values for these samples."""
        return self.plan.normalise(self.take_pixels(indices))

    def take_pixels(self, indices: Tensor) -> Tensor:
        """uint8 (batch, height, width, channels)."""
        return torch.from_numpy(np.ascontiguousarray(self.pixels[indices.numpy()]))

    def describe(self) -> str:
        """Count, size and the range of values after preprocessing."""
        some = self.take(torch.arange(min(len(self), 1000))).float()
        height, width, channels = self.pixels.shape[1:]
        return (
            f"{len(self)} images of {height}x{width}x{channels}, "
            f"values {some.min():.3g} to {some.max():.3g}"
        )


@dataclass(frozen=True)
class _Arrays:
    """Ready-made values of one input, a sample an entry of axis 0."""

    name: str
    values: np.ndarray[Any, Any]

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


@dataclass(frozen=True)
class Calibration:
    """The calibration set: the samples of every input of a graph.

    Attributes:
        origin: where it came from, for messages.
        skipped: files that could not be read, each with the reason.
    """

    origin: str
    sources: Mapping[str, _Source]
    skipped: tuple[str, ...] = ()
    _first: _Source = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_first", next(iter(self.sources.values())))

    def __len__(self) -> int:
        return len(self._first)

    @property
    def has_images(self) -> bool:
        """Whether an input is fed with images, of which random views can be made."""
        return any(isinstance(source, Images) for source in self.sources.values())

    def take(self, indices: Tensor) -> dict[str, Tensor]:
        """The values of every input for these samples (int64 tensor)."""
        return {name: source.take(indices) for name, source in self.sources.items()}

    def views(
        self, indices: Tensor, kinds: Sequence[str], generator: torch.Generator
    ) -> dict[str, Tensor]:
        """As `take`, on randomly flipped or shifted views where an input holds images."""
        return {
            name: source.plan.normalise(random_view(source.take_pixels(indices), kinds, generator))
            if isinstance(source, Images)
            else source.take(indices)
            for name, source in self.sources.items()
        }

    def batches(self, size: int, limit: int | None = None) -> Iterator[dict[str, Tensor]]:
        """All samples once, or the first `limit`, in order."""
        count = min(len(self), limit or len(self))
        for start in range(0, count, size):
            yield self.take(torch.arange(start, min(start + size, count)))

    def shuffled(self, size: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Indices of batches in random order, epoch after epoch, without end."""
        size = min(size, len(self))
        while True:
            order = torch.randperm(len(self), generator=generator)
            for start in range(0, len(self) - size + 1, size):
                yield order[start : start + size]

    def describe(self) -> str:
        """One line: what was read."""
        parts = "; ".join(source.describe() for source in self.sources.values())
        return f"{parts}, from {self.origin}"


def load_calibration(
    data: Data, model: Model, preprocess: Preprocess, *, samples: int = 10_000, seed: int = 0
) -> Calibration:
    """Read calibration data for a model.

    Args:
        data: a folder of images (searched recursively), a folder of .npy, an .npz keyed by
            input name, one .npy, or an iterable of arrays or of dicts by input name.
        samples: how many to take, drawn at random by `seed` when there are more.

    Raises:
        CalibrationError: nothing is there, nothing can be read, or it does not fit the inputs.
    """
    if samples < 1:
        raise CalibrationError(f"--samples is {samples}; at least one sample is needed.")
    if not isinstance(data, (str, os.PathLike)):
        return _from_arrays("Python", _stack(data, model), model, samples, seed)
    path = Path(data)
    if path.is_dir():
        _check_readable(path)
        if images := find_images(path):
            spec = _only_input(model, path)
            plan = ImagePlan.of(spec, preprocess)
            chosen = [images[index] for index in _draw(len(images), samples, seed)]
            read = Images.read(chosen, plan)
            return Calibration(str(path), {spec.name: read}, read.skipped)
        if arrays := sorted(path.rglob("*.npy")):
            spec = _only_input(model, path)
            values = np.concatenate([_samples(_load(file), spec, str(file)) for file in arrays])
            return _from_arrays(str(path), {spec.name: values}, model, samples, seed)
        raise CalibrationError(
            f"{path}: no images ({', '.join(sorted(IMAGE_SUFFIXES))}) and no .npy files in it."
        )
    if path.suffix == ".npy" and path.exists():
        spec = _only_input(model, path)
        return _from_arrays(str(path), {spec.name: _load(path)}, model, samples, seed)
    if path.suffix == ".npz" and path.exists():
        return _from_arrays(str(path), _load_npz(path), model, samples, seed)
    if not path.exists():
        raise CalibrationError(f"{path}: no such file or folder.")
    raise CalibrationError(
        f"{path}: expected a folder of images or of .npy, an .npz or a .npy file."
    )


def find_images(folder: Path) -> list[Path]:
    """All image files in a folder and below, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)


def _check_readable(folder: Path) -> None:
    """Searching a folder passes over what may not be read; the folder itself has to be."""
    try:
        os.scandir(folder).close()
    except OSError as error:
        raise CalibrationError(f"{folder}: cannot be read: {error.strerror}.") from error


def _draw(available: int, samples: int, seed: int) -> list[int]:
    """Which samples to take, in order."""
    if available <= samples:
        return list(range(available))
    chosen = np.random.default_rng(seed).choice(available, samples, replace=False)
    return sorted(int(index) for index in chosen)


def _only_input(model: Model, origin: Path) -> InputSpec:
    if len(model.inputs) != 1:
        names = ", ".join(spec.name for spec in model.inputs) or "none"
        raise CalibrationError(
            f"{origin}: the graph has {len(model.inputs)} inputs ({names}); "
            "give an .npz with an array for each, keyed by input name."
        )
    return model.inputs[0]


def _settle_size(paths: Sequence[Path], plan: ImagePlan) -> ImagePlan:
    """Where neither graph nor user states a size, the images have to have one size."""
    if plan.height is not None and plan.width is not None:
        return plan
    sizes = {
        result.shape[:2] for path in paths if not isinstance(result := _decode(path, plan), str)
    }
    if len(sizes) > 1:
        some = ", ".join(f"{height}x{width}" for height, width in sorted(sizes)[:3])
        raise CalibrationError(
            f"Input {plan.spec.name!r} states no image size and the images have {len(sizes)} "
            f"({some} ...). Give --size HEIGHTxWIDTH."
        )
    height, width = sizes.pop() if sizes else (1, 1)
    return replace(plan, height=height, width=width)


def _decode(path: Path, plan: ImagePlan) -> np.ndarray[Any, Any] | str:
    """The pixels of a file, or why it cannot be read."""
    try:
        return plan.decode(path)
    except (OSError, ValueError, SyntaxError) as error:
        return str(error) or type(error).__name__


def _store(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Room for pixels: in memory, or in a nameless file when it is large."""
    if int(np.prod(shape, dtype=np.int64)) <= _IN_MEMORY_BYTES:
        return np.empty(shape, np.uint8)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.uint8, "w+", shape=shape)


def _load(path: Path) -> np.ndarray[Any, Any]:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise CalibrationError(f"{path}: cannot be read as an array: {error}") from error


def _load_npz(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError) as error:
        raise CalibrationError(f"{path}: cannot be read as an .npz archive: {error}") from error


def _stack(data: Iterable[Any], model: Model) -> dict[str, np.ndarray[Any, Any]]:
    """Arrays, or dicts of arrays by input name, joined along the sample axis."""
    specs = {spec.name: spec for spec in model.inputs}
    collected: dict[str, list[np.ndarray[Any, Any]]] = {}
    for entry in data:
        if not isinstance(entry, Mapping):
            entry = {_only_input(model, Path("Python")).name: entry}
        for name, value in entry.items():
            if name not in specs:
                raise CalibrationError(f"The graph has no input {name!r}, only {sorted(specs)}.")
            collected.setdefault(name, []).append(_samples(np.asarray(value), specs[name], name))
    if not collected:
        raise CalibrationError("The calibration data is empty.")
    return {name: np.concatenate(values) for name, values in collected.items()}


def _from_arrays(
    origin: str, arrays: Mapping[str, np.ndarray[Any, Any]], model: Model, samples: int, seed: int
) -> Calibration:
    names = {spec.name for spec in model.inputs}
    if names != set(arrays):
        raise CalibrationError(
            f"{origin}: has arrays for {sorted(arrays)}, the graph's inputs are {sorted(names)}."
        )
    values = {spec.name: _samples(arrays[spec.name], spec, origin) for spec in model.inputs}
    counts = {name: len(array) for name, array in values.items()}
    if len(set(counts.values())) != 1 or not min(counts.values()):
        raise CalibrationError(f"{origin}: needs as many samples for each input; found {counts}.")
    chosen = _draw(min(counts.values()), samples, seed)
    return Calibration(
        origin, {name: _Arrays(name, array[chosen]) for name, array in values.items()}
    )


def _samples(array: np.ndarray[Any, Any], spec: InputSpec, origin: str) -> np.ndarray[Any, Any]:
    """An array as samples of an input along axis 0, in the input's type.

    Raises:
        CalibrationError: its shape, type or values do not fit.
    """
    if spec.shape is not None:
        if array.ndim == len(spec.shape) - 1:
            array = array[None]
        stated = spec.shape[1:]
        fits = array.ndim == len(spec.shape) and all(
            size is None or size == found
            for size, found in zip(stated, array.shape[1:], strict=True)
        )
        if not fits:
            expected = ["samples", *("any" if size is None else size for size in stated)]
            raise CalibrationError(
                f"{origin}: has shape {list(array.shape)}, input {spec.name!r} takes {expected}."
            )
    if array.dtype != spec.dtype:
        if array.dtype.kind not in "fiub" or (array.dtype.kind == "f" and spec.dtype.kind in "iu"):
            raise CalibrationError(
                f"{origin}: holds {array.dtype}, input {spec.name!r} takes {spec.dtype}."
            )
        array = array.astype(spec.dtype)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise CalibrationError(f"{origin}: has NaN or Inf among its values.")
    return array
