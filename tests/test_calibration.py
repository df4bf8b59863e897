"""Calibration data: folders, arrays, Python objects, and what is refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from fcpts_onnx.calibration import Calibration, load_calibration
from fcpts_onnx.errors import CalibrationError
from fcpts_onnx.model import Model
from fcpts_onnx.preprocess import PRESETS, ImagePlan, Preprocess
from tests import networks
from tests.networks import save_images, values

RAW = PRESETS["raw"]


def read(data: Any, proto: onnx.ModelProto, **options: Any) -> Calibration:
    return load_calibration(data, Model(Path("m.onnx"), proto), RAW, **options)


def two_inputs() -> onnx.ModelProto:
    node = onnx.helper.make_node("Add", ["a", "b"], ["y"])
    return networks.make([node], {}, {"a": ["N", 3], "b": ["N", 3]}, {"y": ["N", 3]})


def test_images_in_folders_of_folders(tmp_path: Path) -> None:
    save_images(tmp_path / "one", 3, seed=1)
    save_images(tmp_path / "two" / "deep", 2, seed=2)
    for suffix in ("jpg", "bmp", "webp", "tif"):
        Image.fromarray(np.full((8, 8, 3), 9, np.uint8)).save(tmp_path / f"x.{suffix}")
    (tmp_path / "notes.txt").write_text("not an image")
    found = read(tmp_path, networks.cnn())
    assert len(found) == 9
    (batch,) = found.batches(20)
    assert batch["image"].shape == (9, 3, 8, 8)
    first = np.asarray(Image.open(tmp_path / "one" / "000.png"))
    np.testing.assert_array_equal(batch["image"][0], first.transpose(2, 0, 1))
    assert found.describe() == f"9 images of 8x8x3, values 0 to 255, from {tmp_path}"


@pytest.mark.parametrize("preset", ["raw", "imagenet", "tf"])
def test_images_are_described_without_all_of_them_as_floats(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_images(tmp_path, 20)
    model = Model(Path("m.onnx"), networks.cnn())
    found = load_calibration(tmp_path, model, PRESETS[preset])
    (batch,) = found.batches(20)
    image, taken, normalise = batch["image"], [], ImagePlan.normalise

    def noted(plan: ImagePlan, pixels: torch.Tensor) -> torch.Tensor:
        taken.append(pixels.numel())
        return normalise(plan, pixels)

    monkeypatch.setattr(ImagePlan, "normalise", noted)
    expected = f"values {image.min():.3g} to {image.max():.3g}, from {tmp_path}"
    assert found.describe() == f"20 images of 8x8x3, {expected}"
    assert sum(taken) < image.numel() / 20


def test_unreadable_images_are_named_and_skipped(tmp_path: Path) -> None:
    save_images(tmp_path, 3)
    (tmp_path / "001.png").write_bytes(b"not a png")
    (tmp_path / "002.png").write_bytes((tmp_path / "000.png").read_bytes()[:60])
    found = read(tmp_path, networks.cnn())
    assert len(found) == 1
    assert [line.split(":")[0] for line in found.skipped] == [
        str(tmp_path / "001.png"),
        str(tmp_path / "002.png"),
    ]


def test_sampling_depends_on_the_seed_alone(tmp_path: Path) -> None:
    save_images(tmp_path, 20)

    def some(seed: int) -> np.ndarray:
        return next(read(tmp_path, networks.cnn(), samples=6, seed=seed).batches(6))[
            "image"
        ].numpy()

    np.testing.assert_array_equal(some(1), some(1))
    assert some(1).shape[0] == 6
    assert not np.array_equal(some(1), some(2))


def test_open_size_follows_images_of_one_size(tmp_path: Path) -> None:
    proto = networks.cnn(size="S")
    save_images(tmp_path / "a", 2, (12, 10))
    assert next(read(tmp_path, proto).batches(2))["image"].shape == (2, 3, 10, 12)
    save_images(tmp_path / "b", 1, (9, 10))
    with pytest.raises(
        CalibrationError, match=r"images have 2 \(10x9, 10x12 \.\.\.\). Give --size"
    ):
        read(tmp_path, proto)
    sized = load_calibration(tmp_path, Model(Path("m.onnx"), proto), Preprocess(size=(6, 7)))
    assert next(sized.batches(3))["image"].shape == (3, 3, 6, 7)


def test_npy(tmp_path: Path) -> None:
    array = values(5, 6)
    np.save(tmp_path / "x.npy", array)
    found = read(tmp_path / "x.npy", networks.perceptron())
    np.testing.assert_array_equal(next(found.batches(9))["x"], array)
    assert found.describe().startswith("5 samples of 6 for 'x', values ")


def test_folder_of_npy_with_and_without_batch_axis(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", values(6, seed=1))
    np.save(tmp_path / "b.npy", values(3, 6, seed=2).astype(np.float64))
    found = next(read(tmp_path, networks.perceptron()).batches(9))["x"]
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found[0], values(6, seed=1))
    np.testing.assert_array_equal(found[1:], values(3, 6, seed=2))


def test_whole_numbers_that_the_input_does_not_hold() -> None:
    proto = networks.perceptron(input_type=onnx.TensorProto.UINT8)
    for low, high in ((-1, 20), (200, 300)):
        with pytest.raises(CalibrationError, match=f"values from {low} to {high}, input 'x' takes"):
            read([np.array([[low, high, 9, 9, 9, 9]]).clip(low)], proto)
    found = next(read([np.array([[0, 255, 9, 9, 9, 9]])], proto).batches(1))["x"]
    assert found.tolist() == [[0, 255, 9, 9, 9, 9]]


def test_types_of_inputs_that_numpy_lacks(tmp_path: Path) -> None:
    kind, message = onnx.TensorProto.BFLOAT16, "is of type bfloat16, which cannot be fed"
    with pytest.raises(CalibrationError, match=message):
        read([values(5, 6)], networks.perceptron(input_type=kind))
    save_images(tmp_path, 2)
    with pytest.raises(CalibrationError, match=message):
        read(tmp_path, networks.cnn(input_type=kind))


def test_a_folder_of_images_and_arrays(tmp_path: Path) -> None:
    save_images(tmp_path, 2)
    np.save(tmp_path / "samples.npy", values(9, 3, 8, 8))
    with pytest.raises(CalibrationError, match=r"2 images \(000\.png \.\.\.\) and 1 \.npy files"):
        read(tmp_path, networks.cnn())


def test_npz_for_several_inputs(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=values(4, 3, seed=1), b=values(4, 3, seed=2))
    batch = next(read(tmp_path / "x.npz", two_inputs()).batches(9))
    np.testing.assert_array_equal(batch["b"], values(4, 3, seed=2))


def test_python_iterables() -> None:
    arrays = (values(6, seed=seed) for seed in range(4))
    assert len(read(arrays, networks.perceptron())) == 4
    dicts = [{"a": values(2, 3, seed=1), "b": values(2, 3, seed=2)} for _ in range(3)]
    assert len(read(dicts, two_inputs())) == 6


def test_batches() -> None:
    found = read([values(10, 6)], networks.perceptron())
    assert [len(batch["x"]) for batch in found.batches(4)] == [4, 4, 2]
    assert [len(batch["x"]) for batch in found.batches(4, limit=5)] == [4, 1]


def test_views_flip_and_shift_whole_images(tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:, :8] = 200
    tmp_path.joinpath("i").mkdir()
    for index in range(40):
        Image.fromarray(pixels).save(tmp_path / "i" / f"{index:02}.png")
    found = read(tmp_path / "i", networks.cnn(size=16))
    everything = torch.arange(40)

    def views(*kinds: str) -> torch.Tensor:
        return found.views(everything, kinds, torch.Generator().manual_seed(0))["image"]

    assert torch.equal(views(), found.take(everything)["image"])
    left = views("flip")[:, 0, :, 0]
    assert set(left.unique().tolist()) == {0.0, 200.0}
    assert 10 < int((left[:, 0] == 200).sum()) < 30
    widths = (views("crop")[:, 0, 0] == 200).sum(1)
    assert int(widths.min()) == 6
    assert int(widths.max()) == 10


def test_hidden_images_are_left_out(tmp_path: Path) -> None:
    save_images(tmp_path / "i", 3)
    save_images(tmp_path / "i" / ".checkpoints", 3)
    assert len(read(tmp_path / "i", networks.cnn())) == 3


def test_a_half_open_size_must_be_that_of_the_images(tmp_path: Path) -> None:
    proto = networks.cnn()
    proto.graph.input[0].type.tensor_type.shape.dim[3].dim_param = "W"
    assert read(save_images(tmp_path / "fits", 3, size=(12, 8)), proto).take(torch.arange(1))[
        "image"
    ].shape == (1, 3, 8, 12)
    with pytest.raises(CalibrationError, match="states 8xany and the images have 16x20"):
        read(save_images(tmp_path / "other", 3, size=(20, 16)), proto)


def test_hidden_arrays_are_left_out(tmp_path: Path) -> None:
    """As macOS leaves one beside each file on disks of others."""
    np.save(tmp_path / "a.npy", values(5, 6))
    (tmp_path / "._a.npy").write_bytes(b"Mac OS X")
    assert len(read(tmp_path, networks.perceptron())) == 5


@pytest.mark.parametrize("reserves", [True, False])
def test_many_pixels_lie_in_a_file(
    reserves: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the system reserves no room for a file, as macOS and Windows do not."""
    if not reserves:
        monkeypatch.delattr("os.posix_fallocate")
    folder = save_images(tmp_path / "i", 5)
    in_memory = read(folder, networks.cnn())
    monkeypatch.setattr("fcpts_onnx.sources._IN_MEMORY_BYTES", 100)
    mapped = read(folder, networks.cnn())
    assert isinstance(mapped.sources["image"].pixels, np.memmap)
    everything = torch.arange(5)
    assert torch.equal(mapped.take(everything)["image"], in_memory.take(everything)["image"])
    if reserves:
        monkeypatch.setattr("os.posix_fallocate", lambda *_: os.truncate("/nowhere", 1))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(CalibrationError, match=r"No room for 0\.0 GiB of images"):
        read(folder, networks.cnn())


BAD_ARRAYS = [
    (values(4, 7), r"has shape \[4, 7\], input 'x' takes \['samples', 6\]"),
    (np.array([["a"] * 6]), "input 'x' takes float32"),
    (np.array(1.0), "is a single number"),
    (np.full((2, 6), np.nan, np.float32), "NaN or Inf"),
    (values(0, 6), "as many samples for each input"),
]


@pytest.mark.parametrize(("array", "message"), BAD_ARRAYS)
def test_bad_arrays(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(CalibrationError, match=message):
        read(tmp_path / "x.npy", networks.perceptron())


def test_bad_places(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.npy").write_text("text")
    (tmp_path / "text.npz").write_text("text")
    (tmp_path / "list.txt").write_text("text")
    np.savez(tmp_path / "other.npz", c=values(2, 6))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "other.npz").read_bytes()[:-30])
    shutil.copy(tmp_path / "other.npz", tmp_path / "archive.npy")
    with (tmp_path / "array.npz").open("wb") as file:
        np.save(file, values(2, 6))
    np.savez(tmp_path / "uneven.npz", a=values(2, 3), b=values(3, 3))
    np.save(tmp_path / "object.npy", np.array([{}], object), allow_pickle=True)
    for name, message in {
        "empty": "no images",
        "nowhere": "no such file or folder",
        "text.npy": "cannot be read as an array",
        "object.npy": "cannot be read as an array",
        "text.npz": r"cannot be read as an \.npz archive",
        "cut.npz": r"cannot be read as an \.npz archive",
        "array.npz": r"is a single array\. Name it \.npy",
        "archive.npy": r"is an archive of arrays\. Name it \.npz",
        "list.txt": "expected a folder of images",
        "other.npz": r"has arrays for \['c'\], the graph's inputs are \['x'\]",
    }.items():
        with pytest.raises(CalibrationError, match=message):
            read(tmp_path / name, networks.perceptron())
    with pytest.raises(CalibrationError, match=r"found \{'a': 2, 'b': 3\}"):
        read(tmp_path / "uneven.npz", two_inputs())
    with pytest.raises(CalibrationError, match=r"2 inputs \(a, b\); give an \.npz"):
        read(save_images(tmp_path / "images"), two_inputs())
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_text("text")
    with pytest.raises(CalibrationError, match="None of the 1 images can be read"):
        read(tmp_path / "bad", networks.cnn())
    with pytest.raises(CalibrationError, match="calibration data is empty"):
        read([], networks.perceptron())
    with pytest.raises(CalibrationError, match="no input 'z'"):
        read([{"z": values(1, 6)}], networks.perceptron())
