"""Files: whole or not there, and only those of a kind replaced."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from fcpts_onnx.errors import OutputError
from fcpts_onnx.files import check_text, read_text, staged, write_text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16-le", "utf-16-be"])
def test_texts_that_windows_wrote(encoding: str, tmp_path: Path) -> None:
    marked = encoding.startswith("utf-16")
    text = "\ufeffa = 1\r\nb = 2\r\n" if marked else "a = 1\r\nb = 2\r\n"
    (tmp_path / "a.toml").write_bytes(text.encode(encoding))
    assert read_text(tmp_path / "a.toml") == "a = 1\nb = 2\n"


def test_a_failure_leaves_the_target_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    target.write_text("old")

    def fail() -> None:
        with staged(target) as stage:
            stage.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["out.txt"]
    write_text(target, "new")
    assert target.read_text() == "new"


def test_a_file_system_that_flushes_no_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = os.fsync

    def refuse(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        flush(handle)

    monkeypatch.setattr("os.fsync", refuse)
    write_text(tmp_path / "a.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_file_of_results_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.json").write_text("{}")

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OutputError, match="exists and cannot be read: Permission denied"):
        check_text(tmp_path / "run.json", "JSON")
