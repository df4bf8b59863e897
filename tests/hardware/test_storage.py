"""What weights take in bytes, counted by hand."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from fcpts_onnx.hardware import sizes, zipped
from tests.networks import values


def test_by_hand() -> None:
    """2 x 4 values, three of which are not zero."""
    weight = np.array([[1, 0, 0, 2], [0, 0, 3, 0]], np.float32)
    found = {size.name: (size.float32, size.float16, size.int8) for size in sizes([weight])}
    assert found == {
        "dense": (32, 16, 8),
        "bitmask": (12 + 1, 6 + 1, 3 + 1),
        "CSR": (3 * (4 + 2) + 3 * 4, 3 * (2 + 2) + 3 * 4, 3 * (1 + 2) + 3 * 4),
        "COO": (3 * (4 + 4), 3 * (2 + 4), 3 * (1 + 4)),
    }


@pytest.mark.parametrize("shape", [(5,), (), (0, 3), (2, 3, 3, 3)], ids=str)
def test_any_shape(shape: tuple[int, ...]) -> None:
    dense, bitmask, csr, coo = sizes([np.ones(shape, np.float32)])
    count = int(np.prod(shape))
    assert dense.float32 == 4 * count
    assert bitmask.int8 == count + -(-count // 8)
    assert csr.float32 >= coo.float32 - 2 * count
    assert zipped([np.ones(shape, np.float32)]).int8 > 0


def test_rows_wider_than_16_bits_can_count() -> None:
    narrow, wide = (
        {s.name: s for s in sizes([np.ones((1, width), np.float32)])}["CSR"].int8
        for width in (1 << 16, (1 << 16) + 1)
    )
    assert (narrow, wide) == ((1 << 16) * 3 + 8, ((1 << 16) + 1) * 5 + 8)


def test_several_weights_add_up() -> None:
    one, two = values(8, 9), values(4, 8) * (values(4, 8) > 0)
    for name, both in ((s.name, s) for s in sizes([one, two])):
        apart = [{s.name: s for s in sizes([weight])}[name].float16 for weight in (one, two)]
        assert sum(apart) - 1 <= both.float16 <= sum(apart)


def test_zip_is_that_of_zlib() -> None:
    one, two = values(64, 9), values(32, 8) * (values(32, 8) > 0)
    found = zipped([one, two])
    assert found.float32 == len(zlib.compress(one.tobytes() + two.tobytes()))
    assert found.int8 < found.float16 < found.float32
    assert zipped([np.zeros((64, 64), np.float32)]).float32 < 100
