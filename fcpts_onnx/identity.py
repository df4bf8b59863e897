"""MEASURE: files and folders of data as a few characters, to know them again by."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

from fcpts_onnx.errors import CalibrationError
from fcpts_onnx.sources import IMAGE_SUFFIXES, visible_files

__all__ = ["hash_of_data", "hash_of_file"]

_BEGINNING = 2**14  # bytes of a file that it is known by: all of an annotation's, and some pixels
_MOST_READ = 10_000  # files of a folder; of the others, names and sizes tell
_DATA_SUFFIXES = IMAGE_SUFFIXES | {".npy", ".npz", ".xml", ".txt", ".csv"}


def hash_of_file(file: Path) -> str:
    """What stands for all that a file holds.

    Raises:
        CalibrationError: it cannot be read.
    """
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: OSError) -> CalibrationError:
    return CalibrationError(f"{file}: cannot be read: {error.strerror}.")


def hash_of_data(place: Path, out: Path) -> str:
    """What stands for a file's content, or for a folder's names, sizes and beginnings of files.

    The beginnings are of as many as can be read in seconds, evenly spread over all.

    Args:
        out: a folder of results, which are no data even if it lies in the other.

    Raises:
        CalibrationError: a file cannot be read.
    """
    if place.is_file():
        return hash_of_file(place)
    files = sorted(path for path in _read_of(place, out) if path.is_file())
    step = max(1, math.ceil(len(files) / _MOST_READ))
    entries = [
        (path.relative_to(place).as_posix(), *(_glanced(path) if rank % step == 0 else _size(path)))
        for rank, path in enumerate(files)
    ]
    return hashlib.sha256(repr(entries).encode("utf-8", "surrogateescape")).hexdigest()


def _read_of(place: Path, out: Path) -> Iterator[Path]:
    """Files in a folder that may be data by their names, but for results in a folder inside."""
    base, results = place.resolve(), out.resolve()
    own = results.relative_to(base) if base in results.parents else None
    for path in visible_files(place):
        is_own = own is not None and path.relative_to(place).is_relative_to(own)
        if path.suffix.lower() in _DATA_SUFFIXES and not is_own:
            yield path


def _glanced(file: Path) -> tuple[int, bytes]:
    """A file's size, and what stands for its beginning."""
    try:
        with file.open("rb") as content:
            start = hashlib.sha256(content.read(_BEGINNING)).digest()
            return os.fstat(content.fileno()).st_size, start
    except OSError as error:
        raise _unreadable(file, error) from error


def _size(file: Path) -> tuple[int]:
    try:
        return (file.stat().st_size,)
    except OSError as error:
        raise _unreadable(file, error) from error
