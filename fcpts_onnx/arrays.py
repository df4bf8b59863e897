"""DATA: arrays in memory, in .npy and .npz: what they are by their headers, and drawn samples."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fcpts_onnx.errors import CalibrationError
from fcpts_onnx.model import InputSpec
from fcpts_onnx.preprocess import check_type

__all__ = ["Stored", "drawn", "fitting", "in_memory", "in_npy", "in_npz"]

Array = np.ndarray[Any, Any]

# RuntimeError: encrypted, or packed in a way that zipfile does not know.
_UNREADABLE = (
    OSError, ValueError, EOFError, KeyError, MemoryError, OverflowError, RuntimeError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
_LARGE, _MOST_PACKED = 2**31, 100  # bytes unpacked; and how many times of those packed


@dataclass(frozen=True)
class Stored:
    """An array of which only shape and type are known until it is read.

    Attributes:
        origin: where it came from, for messages.
        read: gives its values; those of a .npy are mapped into memory, not read yet.
    """

    origin: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[], Array]


def in_memory(array: Array, origin: str) -> Stored:
    """An array that is there already."""
    return Stored(origin, array.shape, array.dtype, lambda: array)


def in_npy(path: Path) -> Stored:
    """The array in a file.

    Raises:
        CalibrationError: there is none.
    """
    # It is mapped anew to be read: of thousands of files that stay open, systems allow no more.
    header = _mapped(path)
    return Stored(str(path), header.shape, header.dtype, partial(_mapped, path))


def in_npz(path: Path) -> dict[str, Stored]:
    """The arrays in an archive, by name.

    Raises:
        CalibrationError: it is no archive of arrays, or far larger than its file.
    """
    with _archive(path) as archive:
        entries = archive.zip.infolist()
        unpacked = sum(entry.file_size for entry in entries)
        if unpacked > max(_LARGE, _MOST_PACKED * path.stat().st_size):
            raise CalibrationError(
                f"{path}: holds {unpacked:,} bytes packed into {path.stat().st_size:,}; no samples "
                f"pack to less than 1/{_MOST_PACKED}. Give them unpacked, as .npy."
            )
        headers = {entry.filename: _header(archive.zip, entry) for entry in entries}
    return {
        name.removesuffix(".npy"): Stored(str(path), *header, partial(_unpacked, path, name))
        for name, header in headers.items()
    }


def fitting(stored: Stored, spec: InputSpec) -> Stored:
    """An array as samples of an input along axis 0; a single sample gets that axis.

    Raises:
        CalibrationError: its shape or type does not fit.
    """
    check_type(spec)
    origin, shape, stated = stored.origin, stored.shape, spec.shape
    if stated == ():
        raise CalibrationError(
            f"{origin}: input {spec.name!r} of the graph is a single number, without an axis of "
            "samples, and cannot be fed with them. Make it a constant of the model."
        )
    if not shape:
        raise CalibrationError(f"{origin}: is a single number, not samples of {spec.name!r}.")
    if stated is not None:
        shape = (1, *shape) if len(shape) == len(stated) - 1 else shape
        fits = len(shape) == len(stated) and all(
            size is None or size == found for size, found in zip(stated[1:], shape[1:], strict=True)
        )
        if not fits:
            expected = ["samples", *("any" if size is None else size for size in stated[1:])]
            raise CalibrationError(
                f"{origin}: has shape {list(shape)}, input {spec.name!r} takes {expected}."
            )
    kind = stored.dtype.kind
    if stored.dtype != spec.dtype and (
        kind not in "fiub" or (kind == "f" and spec.dtype.kind in "iu")
    ):
        raise CalibrationError(
            f"{origin}: holds {stored.dtype}, input {spec.name!r} takes {spec.dtype}."
        )
    return replace(stored, shape=shape)


def drawn(parts: Sequence[Stored], chosen: Array, spec: InputSpec) -> Array:
    """Some samples of arrays that follow one another, in an input's type; no others are read.

    Args:
        chosen: their places in all of them, in order.

    Raises:
        CalibrationError: values do not fit.
    """
    if len(parts) == 1:
        return _taken(parts[0], chosen, spec)
    found = np.empty((len(chosen), *parts[0].shape[1:]), spec.dtype)
    ends = np.cumsum([part.shape[0] for part in parts])
    stops = np.searchsorted(chosen, ends)
    starts = [0, *stops[:-1]]
    for part, end, start, stop in zip(parts, ends, starts, stops, strict=True):
        if start < stop:
            found[start:stop] = _taken(part, chosen[start:stop] - (end - part.shape[0]), spec)
    return found


def _taken(part: Stored, places: Array, spec: InputSpec) -> Array:
    values = part.read().reshape(part.shape)
    # One that is mapped is copied as a whole too: its file may change meanwhile.
    if isinstance(values, np.memmap) or len(places) < len(values):
        values = values[places]
    if values.dtype != spec.dtype:
        _check_range(values, spec, part.origin)
        values = values.astype(spec.dtype)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise CalibrationError(f"{part.origin}: has NaN or Inf among its values.")
    return values


def _check_range(array: Array, spec: InputSpec, origin: str) -> None:
    """See that an input of integers holds all values; others would come to stand for them."""
    if spec.dtype.kind not in "iu" or not array.size:
        return
    limits, least, most = np.iinfo(spec.dtype), int(array.min()), int(array.max())
    if least < limits.min or most > limits.max:
        raise CalibrationError(
            f"{origin}: has values from {least} to {most}, input {spec.name!r} takes {spec.dtype} "
            f"({limits.min} to {limits.max}). Give the values that the model takes."
        )


def _mapped(path: Path) -> Array:
    with _reading(path, "an array"):
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded
    loaded.close()
    raise CalibrationError(f"{path}: is an archive of arrays. Name it .npz.")


@contextmanager
def _archive(path: Path) -> Iterator[Any]:
    with _reading(path, "an .npz archive"), path.open("rb") as file:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise CalibrationError(f"{path}: is a single array. Name it .npy.")
        yield loaded


def _header(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> tuple[tuple[int, ...], Any]:
    """Shape and type of an array.

    Raises:
        ValueError: it is none, or has not the values that it claims.
    """
    form = np.lib.format
    with archive.open(entry) as file:
        is_first = form.read_magic(file) == (1, 0)
        read = form.read_array_header_1_0 if is_first else form.read_array_header_2_0
        shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded, as they are pickled")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > entry.file_size:
        raise ValueError(f"{entry.filename} claims the shape {list(shape)}")
    return shape, dtype


def _unpacked(path: Path, name: str) -> Array:
    with _archive(path) as archive:
        values: Array = archive[name]
        return values


@contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    """Errors of reading a file, in which nothing pickled is ever read, as one that names it."""
    try:
        yield
    except _UNREADABLE as error:
        raise CalibrationError(f"{path}: cannot be read as {what}: {error}") from error
