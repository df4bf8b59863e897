"""Images and arrays by anybody: what cannot be read is named, and takes neither memory nor time."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from fcpts_onnx.cli import main
from tests import networks
from tests.networks import QUICK, save_images

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)


def prune(folder: Path, calib: Path) -> Result:
    (folder / "quick.toml").write_text(QUICK)
    source = networks.save(networks.cnn(), folder / "in.onnx")
    files = [str(file) for file in (source, folder / "out.onnx", calib, folder / "quick.toml")]
    options = ["--target", "0.5", "--calib", files[2], "--recipe", files[3]]
    result = CliRunner().invoke(main, ["prune", *files[:2], *options])
    assert isinstance(result.exception, SystemExit | None), result.exception
    assert (folder / "out.onnx").exists() == (result.exit_code == 0)
    return result


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes with a size in its header."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def cut_jpeg(path: Path) -> None:
    Image.fromarray(PIXELS).resize((64, 64)).save(path)
    path.write_bytes(path.read_bytes()[:400])


UNREADABLE: dict[str, Callable[[Path], object]] = {
    "bomb.png": lambda path: path.write_bytes(png_that_claims(60_000, 60_000)),
    "large.png": lambda path: path.write_bytes(png_that_claims(10_000, 10_000)),
    "cut.jpg": cut_jpeg,
    "nothing.png": lambda path: path.write_bytes(b""),
    "text.jpg": lambda path: path.write_text("hello"),
    "long.png": lambda path: Image.new("L", (1, 3_000_000)).save(path),
    "program.png": lambda path: path.write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n{} loop\n"
    ),
    "float.tif": lambda path: Image.fromarray(PIXELS).convert("F").save(path),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_images_that_cannot_be_read(name: str, tmp_path: Path) -> None:
    UNREADABLE[name](tmp_path / name)
    (tmp_path / "images").mkdir()
    os.rename(tmp_path / name, tmp_path / "images" / name)
    alone = prune(tmp_path, tmp_path / "images")
    assert alone.exit_code == 1
    assert "None of the 1 images can be read" in alone.output
    assert name in alone.output
    save_images(tmp_path / "images", 4)
    beside = prune(tmp_path, tmp_path / "images")
    assert beside.exit_code == 0, beside.output
    assert f"{name}: " in beside.output.replace("\n", "")


def test_images_of_every_kind(tmp_path: Path) -> None:
    folder, image = tmp_path / "images", Image.fromarray(PIXELS)
    folder.mkdir()
    for mode, name in {
        "P": "p.png", "1": "1.png", "LA": "la.png", "RGBA": "rgba.png", "CMYK": "cmyk.jpg",
        "LAB": "lab.tif", "L": "l.bmp",
    }.items():  # fmt: skip
        image.convert(mode).save(folder / name)
    Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 200).save(folder / "16.png")
    turned = Image.Exif()
    turned[0x112] = 6
    image.save(folder / "turned.jpg", exif=turned)
    for name in ("moving.webp", "moving.png", "moving.gif"):
        image.save(folder / name, save_all=True, append_images=[image] * 3)
    (folder / "moving.gif").rename(folder / "renamed.png")
    result = prune(tmp_path, folder)
    assert result.exit_code == 0, result.output
    assert "Calibration: 12 images of 8x8x3" in result.output
    assert "Skipped" not in result.output


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    save_images(tmp_path / "images", 4)
    os.mkfifo(tmp_path / "images" / "pipe.png")
    (tmp_path / "images" / "folder.png").mkdir()
    assert "Calibration: 4 images" in prune(tmp_path, tmp_path / "images").output


def array_that_claims(shape: str) -> bytes:
    """A .npy with a shape in its header and 64 bytes of values."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64)


def packed(path: Path, content: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("image.npy", content)


def zip_bomb(path: Path) -> None:
    """Three gigabytes of zeros by what the archive's directory says."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.npy", array_that_claims("(4000000, 3, 8, 8)"))
    content = path.read_bytes()
    size = content.index(b"PK\x01\x02") + 24
    path.write_bytes(content[:size] + struct.pack("<I", 3 * 2**30) + content[size + 4 :])


def encrypted(path: Path) -> None:
    packed(path, bytes(100))
    content = bytearray(path.read_bytes())
    for place in (6, content.index(b"PK\x01\x02") + 8):
        content[place] |= 1
    path.write_bytes(content)


THINGS = np.array([{"a": 1}], dtype=object)
ARRAYS: dict[str, tuple[Callable[[Path], object], str]] = {
    "things.npy": (lambda path: np.save(path, THINGS), "cannot be read as an array"),
    "things.npz": (lambda path: np.savez(path, image=THINGS), "Object arrays cannot be loaded"),
    "pickled.npy": (lambda path: path.write_bytes(pickle.dumps(1)), "pickled"),
    "nothing.npy": (lambda path: path.write_bytes(b""), "cannot be read as an array"),
    "huge.npy": (
        lambda path: path.write_bytes(array_that_claims("(1048576, 3, 1024, 1024)")),
        "cannot be read as an array",
    ),
    "short.npy": (
        lambda path: path.write_bytes(array_that_claims("(99, 3, 8, 8)")),
        "cannot be read as an array",
    ),
    "negative.npy": (
        lambda path: path.write_bytes(array_that_claims("(-1, 3, 8, 8)")),
        "cannot be read as an array",
    ),
    "deep.npy": (
        lambda path: path.write_bytes(array_that_claims("(" * 4000 + ")" * 4000)),
        "cannot be read as an array",
    ),
    "huge.npz": (
        lambda path: packed(path, array_that_claims("(1048576, 3, 1024, 1024)")),
        "cannot be read as an .npz",
    ),
    "negative.npz": (
        lambda path: packed(path, array_that_claims("(-1, 3, 8, 8)")),
        "cannot be read as an .npz",
    ),
    "bomb.npz": (zip_bomb, "bytes packed into"),
    "encrypted.npz": (encrypted, "is encrypted"),
    "texts.npy": (lambda path: np.save(path, np.full((4, 3, 8, 8), "a")), "holds <U1"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_cannot_be_read(name: str, tmp_path: Path) -> None:
    write, message = ARRAYS[name]
    write(tmp_path / name)
    result = prune(tmp_path, tmp_path / name)
    assert result.exit_code == 1
    assert message in result.output
    assert name in result.output
