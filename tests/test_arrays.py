"""Arrays of samples: which are drawn, that no others are read, and what cannot be fed."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest

from fcpts_onnx.errors import CalibrationError
from tests import networks
from tests.networks import values
from tests.test_calibration import read


def test_the_samples_that_a_seed_draws(tmp_path: Path) -> None:
    """The same ones from one file and from several, from arrays, and from an archive."""
    array, proto = values(30, 6), networks.perceptron()
    (tmp_path / "folder").mkdir()
    for place, part in enumerate(np.split(array, [1, 9, 21])):
        np.save(tmp_path / "folder" / f"{place}.npy", part)
    np.save(tmp_path / "x.npy", array)
    np.savez(tmp_path / "x.npz", x=array)
    chosen = sorted(np.random.default_rng(5).choice(30, 7, replace=False))
    for data in (
        tmp_path / "folder", tmp_path / "x.npy", tmp_path / "x.npz", {"x": array}, [*array],
    ):  # fmt: skip
        found = read(data, proto, samples=7, seed=5)
        np.testing.assert_array_equal(next(found.batches(9))["x"], array[chosen])
        assert len(read(data, proto)) == 30


@pytest.mark.parametrize("place", ["one.npy", "folder"])
def test_only_drawn_samples_are_read(place: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    shape = (2**21, 6)  # 48 MiB
    for path in (tmp_path / "one.npy", tmp_path / "folder" / "a.npy", tmp_path / "folder/b.npy"):
        np.lib.format.open_memmap(path, "w+", np.float32, shape).flush()
    tracemalloc.start()
    found = read(tmp_path / place, networks.perceptron(), samples=8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == 8
    assert peak < 2**22


def test_arrays_that_are_taken_whole_are_not_copied() -> None:
    array = values(5, 6)
    found = read({"x": array}, networks.perceptron())
    assert np.shares_memory(found.sources["x"].raw, array)


def test_an_input_without_an_axis_of_samples(tmp_path: Path) -> None:
    node = onnx.helper.make_node("Mul", ["a", "b"], ["y"])
    proto = networks.make([node], {}, {"a": ["N", 3], "b": []}, {"y": ["N", 3]})
    np.savez(tmp_path / "x.npz", a=values(4, 3), b=np.float32(2))
    with pytest.raises(CalibrationError, match=r"input 'b' of the graph is a single number, .* Ma"):
        read(tmp_path / "x.npz", proto)
