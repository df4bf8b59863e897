"""DATA: image folder / .npy / .npz / Python arrays -> batches for every input of the graph."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fcpts_onnx.arrays import Stored, drawn, fitting, in_memory, in_npy, in_npz
from fcpts_onnx.errors import CalibrationError
from fcpts_onnx.model import InputSpec, Model
from fcpts_onnx.preprocess import ImagePlan, Preprocess
from fcpts_onnx.sources import IMAGE_SUFFIXES, Arrays, Images, Source, find_images, visible_files
from fcpts_onnx.views import random_view

__all__ = ["Calibration", "Data", "load_calibration", "paths_of"]

_CPU = torch.device("cpu")
_DIGEST_BYTES = 16
_DIGESTED = 256  # samples at once

Data = str | os.PathLike[str] | Iterable[Any]
"""Where calibration data comes from: a path, or an iterable of arrays or of dicts by input name."""


@dataclass(frozen=True)
class Calibration:
    """The calibration set: the samples of every input of a graph.

    Attributes:
        origin: where it came from, for messages.
        skipped: files that could not be read, each with the reason.
    """

    origin: str
    sources: Mapping[str, Source]
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.sources.values())))

    @property
    def has_images(self) -> bool:
        """Whether an input is fed with images, of which random views can be made."""
        return any(isinstance(source, Images) for source in self.sources.values())

    def some(self, count: int) -> Tensor:
        """The places of so many samples at most, drawn at random, the same ones at each call.

        The first ones may all be of one class, where folders are.
        """
        generator = torch.Generator().manual_seed(0)
        return torch.randperm(len(self), generator=generator)[:count]

    def take(self, indices: Tensor) -> dict[str, Tensor]:
        """The values of every input for these samples (int64 tensor)."""
        return {name: source.take(indices) for name, source in self.sources.items()}

    def views(
        self,
        indices: Tensor,
        kinds: Sequence[str],
        generator: torch.Generator,
        device: torch.device = _CPU,
    ) -> dict[str, Tensor]:
        """As `take`, on randomly flipped or shifted views where an input holds images.

        Images go to the device as they are stored, a quarter of the bytes, to be normalised there.
        """
        return {
            name: source.plan.normalise(
                _brought(random_view(source.take_pixels(indices), kinds, generator), device)
            )
            if isinstance(source, Images)
            else _brought(source.take(indices), device)
            for name, source in self.sources.items()
        }

    def batches(self, size: int, limit: int | None = None) -> Iterator[dict[str, Tensor]]:
        """All samples once, or the first `limit`, in order."""
        count = min(len(self), limit or len(self))
        for start in range(0, count, size):
            yield self.take(torch.arange(start, min(start + size, count)))

    def file(self, index: int) -> str | None:
        """The image file of a sample, by its path in the folder; None where it is none."""
        for source in self.sources.values():
            if isinstance(source, Images):
                return source.paths[index].relative_to(self.origin).as_posix()
        return None

    def picture(self, index: int) -> Image.Image | None:
        """The image of a sample; None where there is none."""
        for source in self.sources.values():
            if isinstance(source, Images):
                return source.picture(index)
        return None

    def digest(self) -> str:
        """What stands for all samples and their order."""
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        for name, source in self.sources.items():
            digest.update(name.encode())
            for start in range(0, len(self), _DIGESTED):
                digest.update(np.ascontiguousarray(source.raw[start : start + _DIGESTED]).data)
        return digest.hexdigest()

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
            input name, one .npy, an iterable of arrays or of dicts by input name, or one dict of
            arrays.
        samples: how many to take, drawn at random by `seed` when there are more.

    Raises:
        CalibrationError: nothing is there, nothing can be read, or it does not fit the inputs.
    """
    if samples < 1 or samples != int(samples):
        raise CalibrationError(f"--samples is {samples}; expected a whole number from 1 on.")
    if seed < 0:
        raise CalibrationError(f"--seed is {seed}; expected a number from 0 on.")
    if isinstance(data, Mapping):
        given = {name: [in_memory(np.asarray(array), "Python")] for name, array in data.items()}
        return _from_arrays("Python", given, model, samples, seed)
    if not isinstance(data, (str, os.PathLike)):
        return _from_arrays("Python", _by_input(data, model), model, samples, seed)
    path = Path(data)
    if path.is_dir():
        return _from_folder(path, model, preprocess, samples, seed)
    if path.suffix == ".npy" and path.exists():
        spec = _only_input(model, path)
        return _from_arrays(str(path), {spec.name: [in_npy(path)]}, model, samples, seed)
    if path.suffix == ".npz" and path.exists():
        stored = {name: [array] for name, array in in_npz(path).items()}
        return _from_arrays(str(path), stored, model, samples, seed)
    if not path.exists():
        raise CalibrationError(f"{path}: no such file or folder.")
    raise CalibrationError(
        f"{path}: expected a folder of images or of .npy, an .npz or a .npy file."
    )


def paths_of(data: Data) -> list[Path]:
    """The file or folder that calibration data comes from, if it comes from one."""
    return [Path(data)] if isinstance(data, (str, os.PathLike)) else []


def _brought(values: Tensor, device: torch.device) -> Tensor:
    """Values on a device, which goes on working meanwhile."""
    if device.type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def _from_folder(
    folder: Path, model: Model, preprocess: Preprocess, samples: int, seed: int
) -> Calibration:
    images = find_images(folder)
    arrays = sorted(file for file in visible_files(folder) if file.suffix == ".npy")
    if not images and not arrays:
        raise CalibrationError(
            f"{folder}: no images ({', '.join(sorted(IMAGE_SUFFIXES))}) and no .npy files in it."
        )
    if images and arrays:
        raise CalibrationError(
            f"{folder}: holds {len(images)} images ({images[0].name} ...) and {len(arrays)} .npy "
            f"files ({arrays[0].name} ...). Give a folder of one kind."
        )
    spec = _only_input(model, folder)
    if images:
        chosen = [images[index] for index in _drawn_places(len(images), samples, seed)]
        read = Images.read(chosen, ImagePlan.of(spec, preprocess))
        return Calibration(str(folder), {spec.name: read}, read.skipped)
    return _from_arrays(str(folder), {spec.name: [*map(in_npy, arrays)]}, model, samples, seed)


def _drawn_places(available: int, samples: int, seed: int) -> np.ndarray[Any, Any]:
    """Which samples to take, in order."""
    if available <= samples:
        return np.arange(available)
    return np.sort(np.random.default_rng(seed).choice(available, samples, replace=False))


def _only_input(model: Model, origin: Path) -> InputSpec:
    if len(model.inputs) != 1:
        names = ", ".join(spec.name for spec in model.inputs) or "none"
        raise CalibrationError(
            f"{origin}: the graph has {len(model.inputs)} inputs ({names}); "
            "give an .npz with an array for each, keyed by input name."
        )
    return model.inputs[0]


def _by_input(data: Iterable[Any], model: Model) -> dict[str, list[Stored]]:
    """Arrays, or dicts of arrays by input name, in their order."""
    names = {spec.name for spec in model.inputs}
    collected: dict[str, list[Stored]] = {}
    for entry in data:
        if not isinstance(entry, Mapping):
            entry = {_only_input(model, Path("Python")).name: entry}
        for name, value in entry.items():
            if name not in names:
                raise CalibrationError(f"The graph has no input {name!r}, only {sorted(names)}.")
            collected.setdefault(name, []).append(in_memory(np.asarray(value), name))
    if not collected:
        raise CalibrationError("The calibration data is empty.")
    return collected


def _from_arrays(
    origin: str, arrays: Mapping[str, Sequence[Stored]], model: Model, samples: int, seed: int
) -> Calibration:
    """Some samples of arrays that follow one another, by input."""
    names = {spec.name for spec in model.inputs}
    if names != set(arrays):
        raise CalibrationError(
            f"{origin}: has arrays for {sorted(arrays)}, the graph's inputs are {sorted(names)}."
        )
    parts = {spec.name: [fitting(a, spec) for a in arrays[spec.name]] for spec in model.inputs}
    for name, found in parts.items():
        _check_shapes(found, f"{origin}, {name!r}")
    counts = {name: sum(part.shape[0] for part in found) for name, found in parts.items()}
    if len(set(counts.values())) != 1 or not min(counts.values()):
        raise CalibrationError(f"{origin}: needs as many samples for each input; found {counts}.")
    chosen = _drawn_places(min(counts.values()), samples, seed)
    return Calibration(
        origin,
        {s.name: Arrays(s.name, drawn(parts[s.name], chosen, s)) for s in model.inputs},
    )


def _check_shapes(arrays: Sequence[Stored], origin: str) -> None:
    """See that samples have one shape."""
    shapes = sorted({array.shape[1:] for array in arrays})
    if len(shapes) > 1:
        some = ", ".join(str(list(shape)) for shape in shapes[:3])
        raise CalibrationError(f"{origin}: samples of different shapes ({some} ...). Use one.")
