"""Files as everyone reads and writes them: texts of any system, and whole or not at all."""

from __future__ import annotations

import codecs
import os
import secrets
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from fcpts_onnx.errors import OutputError

__all__ = ["check_place", "check_text", "locked", "read_text", "staged", "write_text"]

_FIRST = {"JSON": b"{", "HTML": b"<"}  # what a file of results begins with


def read_text(file: Path) -> str:
    """What a text file says, also one that Windows' redirection or editors wrote.

    Raises:
        OSError, UnicodeDecodeError: it cannot be read.
    """
    content = file.read_bytes()
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if wide else "utf-8-sig").replace("\r\n", "\n")


def check_place(
    target: Path, source: Path | None = None, reads: Iterable[Path] = (), overwrite: bool = False
) -> None:
    if not target.parent.is_dir():
        raise OutputError(f"{target}: the folder {target.parent} does not exist. Make it first.")
    if target.is_dir():
        raise OutputError(f"{target}: is a folder. Name a file.")
    if target.exists() and not target.is_file():
        raise OutputError(f"{target}: is a device or a pipe, not a file. Name a file.")
    if source is not None and _same(target, source) and not overwrite:
        raise OutputError(f"{target}: is the input itself. Pass --overwrite to replace it.")
    if any(_same(target, file) for file in reads):
        raise OutputError(f"{target}: is read for this run. Name another file.")
    with staged(target):
        pass


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Write a file, and its external data, whole or not at all.

    Yields a path of the same name in a hidden folder beside the target. When the block ends well,
    what lies in that folder is flushed to disk and moved over, the file itself last. Whatever
    else happens, the folder goes and the target stays as it was.

    Raises:
        OutputError: the operating system refuses (read-only, out of disk, ...).
    """
    # One by mkdtemp is for its owner alone; on Windows, so is what is moved out of it.
    folder = target.parent / f".{target.name}.{secrets.token_hex(4)}"
    try:
        folder.mkdir()
        stage = folder / target.name
        yield stage
        files = sorted(folder.iterdir(), key=lambda file: file == stage)
        for file in files:
            _flush(file)
        for file in files:
            file.replace(target.parent / file.name)
        with suppress(OSError):  # some file systems flush no folders; all is in place
            _flush(target.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{target}: cannot be written: {reason}. Nothing was written.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked(file: Path, taken: str) -> Iterator[None]:
    """Hold a lock that a file stands for, in a folder that is made if there is none.

    Args:
        taken: what is said where another process has it; nobody waits.

    Raises:
        OutputError: another has it, or the operating system refuses.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file, timeout=0)
        lock.acquire()
    except Timeout as error:
        raise OutputError(taken) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"{file.parent}: cannot be made or written: {reason}. Nothing was written."
        ) from error
    try:
        yield
    finally:
        lock.release()


def check_text(target: Path, kind: Literal["JSON", "HTML"]) -> None:
    """See before any work that a result can be written; only files of its kind are ever replaced.

    Raises:
        OutputError: it cannot.
    """
    check_place(target)
    if target.exists() and _first_byte(target) not in (b"", _FIRST[kind]):
        raise OutputError(f"{target}: exists and is not {kind}. Name another file.")


def write_text(target: Path, text: str) -> None:
    """Write a text file, whole or not at all.

    Raises:
        OutputError: the operating system refuses.
    """
    with staged(target) as stage:
        stage.write_text(text, encoding="utf-8")


def _first_byte(target: Path) -> bytes:
    try:
        with target.open("rb") as file:
            return file.read(1)
    except OSError as error:
        raise OutputError(
            f"{target}: exists and cannot be read: {error.strerror}. Name another file."
        ) from error


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _flush(path: Path) -> None:
    """Have the operating system put a file, or a folder's entries, on the disk."""
    on_windows = sys.platform == "win32"
    if on_windows and path.is_dir():
        return  # it opens no folders, and keeps their entries itself
    handle = os.open(path, os.O_RDWR if on_windows else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
