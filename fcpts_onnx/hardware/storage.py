"""DEPLOY: what weights take in bytes, stored dense and in ways that leave zeros out."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from fcpts_onnx.results import Sizes

__all__ = ["sizes", "zeros_for_size", "zipped"]

Values = np.ndarray[Any, Any]

_INT8_MOST = 127


def sizes(weights: Iterable[Values]) -> tuple[Sizes, ...]:
    """What weights take dense, with a bit a weight for where zeros are, as CSR, and as COO.

    CSR takes each weight as a matrix, a row an entry of its first axis, with a column number of 16
    bits (32 where there are more columns) for each value and a row start of 32 bits; COO takes a
    place of 32 bits for each value. Scales of 8-bit values are left out: they are few.
    """
    shapes = [(value.shape, value.size, int(np.count_nonzero(value))) for value in weights]
    return tuple(
        _named(name, (sum(bits(*shape, width) for shape in shapes) for width in (32, 16, 8)))
        for name, bits in _BITS.items()
    )


def zipped(weights: Iterable[Values]) -> Sizes:
    """What the dense values take after zip's compression (Deflate, level 6).

    8-bit values are those of a symmetric scale a tensor, from its largest value.
    """
    squeezers = [zlib.compressobj() for _ in range(3)]
    lengths = [0, 0, 0]
    for value in weights:
        for place, stored in enumerate(_in_types(value)):
            lengths[place] += len(squeezers[place].compress(stored.tobytes()))
    ends = (len(squeezer.flush()) for squeezer in squeezers)
    return Sizes("zip", *(length + end for length, end in zip(lengths, ends, strict=True)))


def zeros_for_size(count: int, target: float) -> int:
    """The fewest zeros that save a share of what weights take in 8 bits, with a bitmask for all.

    Args:
        count: of the weights.
        target: share of their dense size to save, 0 to 1.
    """
    return math.ceil(target * count + count / 8)


def _named(name: str, bits: Iterable[int]) -> Sizes:
    return Sizes(name, *(-(-count // 8) for count in bits))


def _in_types(value: Values) -> Iterator[Values]:
    wide = value.astype(np.float32)
    yield wide
    yield wide.astype(np.float16)
    largest = float(np.abs(wide).max(initial=0.0)) or 1.0
    yield np.rint(wide / largest * _INT8_MOST).astype(np.int8)


def _dense(shape: tuple[int, ...], count: int, kept: int, width: int) -> int:
    del shape, kept
    return count * width


def _bitmask(shape: tuple[int, ...], count: int, kept: int, width: int) -> int:
    del shape
    return count + kept * width


def _csr(shape: tuple[int, ...], count: int, kept: int, width: int) -> int:
    rows = shape[0] if len(shape) > 1 else 1
    column = 16 if count // max(1, rows) <= 1 << 16 else 32
    return kept * (width + column) + (rows + 1) * 32


def _coo(shape: tuple[int, ...], count: int, kept: int, width: int) -> int:
    del shape, count
    return kept * (width + 32)


_BITS: dict[str, Callable[[tuple[int, ...], int, int, int], int]] = {
    "dense": _dense,
    "bitmask": _bitmask,
    "CSR": _csr,
    "COO": _coo,
}
