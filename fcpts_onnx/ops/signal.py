"""TWIN: transforms and windows of signals."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from onnx import TensorProto
from torch import Tensor

from fcpts_onnx.ops.dtypes import TORCH_TYPES
from fcpts_onnx.ops.registry import op

__all__: list[str] = []

_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)


@op("DFT", since=17)
def dft_17(
    input: Tensor,
    dft_length: Tensor | None = None,
    *,
    axis: int = 1,
    inverse: int = 0,
    onesided: int = 0,
) -> Tensor:
    length = None if dft_length is None else int(dft_length)
    axis %= input.ndim
    signal = _complex(input)
    if inverse and onesided:
        length = 2 * (signal.shape[axis] - 1) if length is None else length
        if signal.shape[axis] != length // 2 + 1:
            # onnxruntime fills up or cuts such a half in a way of its own.
            raise ValueError(f"{signal.shape[axis]} are not one half of {length} frequencies")
        real = torch.fft.irfft(signal, length, axis)
        return real.unsqueeze(-1).to(input.dtype)
    found = (torch.fft.ifft if inverse else torch.fft.fft)(signal, length, axis)
    return _pairs(_half(found, axis) if onesided else found, input.dtype)


@op("DFT", since=20)
def dft_20(
    input: Tensor,
    dft_length: Tensor | None = None,
    axis: Tensor | None = None,
    *,
    inverse: int = 0,
    onesided: int = 0,
) -> Tensor:
    along = -2 if axis is None else int(axis)
    return dft_17(input, dft_length, axis=along, inverse=inverse, onesided=onesided)


@op("STFT")
def stft(
    signal: Tensor,
    frame_step: Tensor,
    window: Tensor | None = None,
    frame_length: Tensor | None = None,
    *,
    onesided: int = 1,
) -> Tensor:
    if frame_length is not None:
        length = int(frame_length)
    elif window is not None:
        length = len(window)
    else:
        raise ValueError("needs a window or a frame_length")
    frames = _complex(signal).unfold(1, length, int(frame_step))
    found = torch.fft.fft(frames if window is None else frames * window)
    return _pairs(_half(found, -1) if onesided else found, signal.dtype)


@op("HannWindow", only={"output_datatype": _FLOATS})
def hann_window(
    size: Tensor, *, output_datatype: int = TensorProto.FLOAT, periodic: int = 1
) -> Tensor:
    return _window((0.5, 0.5, 0.0), size, output_datatype, periodic)


@op("HammingWindow", only={"output_datatype": _FLOATS})
def hamming_window(
    size: Tensor, *, output_datatype: int = TensorProto.FLOAT, periodic: int = 1
) -> Tensor:
    return _window((25 / 46, 21 / 46, 0.0), size, output_datatype, periodic)


@op("BlackmanWindow", only={"output_datatype": _FLOATS})
def blackman_window(
    size: Tensor, *, output_datatype: int = TensorProto.FLOAT, periodic: int = 1
) -> Tensor:
    return _window((0.42, 0.5, 0.08), size, output_datatype, periodic)


@op("MelWeightMatrix")
def mel_weight_matrix(
    num_mel_bins: Tensor,
    dft_length: Tensor,
    sample_rate: Tensor,
    lower_edge_hertz: Tensor,
    upper_edge_hertz: Tensor,
    *,
    output_datatype: int = TensorProto.FLOAT,
) -> Tensor:
    count, length, rate = int(num_mel_bins), int(dft_length), int(sample_rate)
    low, high = (
        2595 * math.log10(1 + float(edge) / 700) for edge in (lower_edge_hertz, upper_edge_hertz)
    )
    mels = [low + place * (high - low) / (count + 2) for place in range(count + 2)]
    bins = [math.floor((length + 1) * 700 * (10 ** (mel / 2595) - 1) / rate) for mel in mels]
    weights = torch.zeros(length // 2 + 1, count, dtype=torch.float64)
    for column, (left, center, right) in enumerate(zip(bins, bins[1:], bins[2:], strict=False)):
        for row in range(left, center):
            weights[row, column] = (row - left) / (center - left)
        for row in range(center, right):
            weights[row, column] = (right - row) / (right - center)
        weights[center, column] = 1.0
    return weights.to(TORCH_TYPES[output_datatype])


def _window(
    weights: tuple[float, float, float], size: Tensor, output_datatype: int, periodic: int
) -> Tensor:
    """A sum of cosines of no, one and two periods, with alternating signs."""
    count = int(size)
    angles = torch.arange(count, dtype=torch.float64) * (2 * math.pi)
    angles = angles / (count if periodic else count - 1)
    window = weights[0] - weights[1] * angles.cos() + weights[2] * (2 * angles).cos()
    return window.to(TORCH_TYPES[output_datatype])


def _complex(x: Tensor) -> Tensor:
    """A signal whose last axis holds the real part, or both parts, as complex numbers."""
    x = x if x.dtype is torch.float64 else x.float()
    return torch.view_as_complex(F.pad(x, (0, 2 - x.shape[-1])))


def _pairs(x: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.view_as_real(x).to(dtype)


def _half(x: Tensor, axis: int) -> Tensor:
    """What is left of a transform when the part that mirrors it is dropped."""
    return x.narrow(axis, 0, x.shape[axis] // 2 + 1)
