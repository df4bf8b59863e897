"""CHECK: what of a run a person has to see: how weights are spread, what they take, where from."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor

from fcpts_onnx.hardware import sizes, zipped
from fcpts_onnx.model import Model
from fcpts_onnx.results import Distribution, Sizes, WeightValues
from fcpts_onnx.sparsity.bridge import density_at, in_order, sample
from fcpts_onnx.weights import Weight

__all__ = ["values_before_and_after", "versions", "ways_to_store"]

_BINS = 60
_POINTS = 100  # of the kernel density, as the paper takes
_WITHIN = 0.998  # of the weights lie between the bins' ends


def values_before_and_after(dense: Model, sparse: Model, weights: Sequence[Weight]) -> WeightValues:
    """How the values of weights are spread in two files, and what they take."""
    return WeightValues(
        tuple(
            _distribution(weight.name, *(_flat(model, weight) for model in (dense, sparse)))
            for weight in weights
        ),
        sizes(_float_values(sparse, weight) for weight in weights),
        (dense.file_bytes, sparse.file_bytes),
    )


def _float_values(model: Model, weight: Weight) -> np.ndarray[Any, Any]:
    """A weight's values in float32: what integers stand for, where it is stored as such."""
    stored = model.array(weight.name)
    values = stored if weight.grid is None else weight.grid.values(stored)
    return np.array(values, np.float32)


def ways_to_store(model: Model, weights: Sequence[Weight]) -> tuple[Sizes, ...]:
    """What the weights that can be pruned take, stored in several ways and after zip."""
    values = [_float_values(model, weight) for weight in weights if weight.excluded is None]
    return (*sizes(values), zipped(values))


def versions() -> dict[str, str]:
    """Of what results depend on, as they run."""
    return {
        "python": platform.python_version(),
        "fcpts-onnx": _own_version(),
        **{module.__name__: str(module.__version__) for module in (onnx, ort, torch, np)},
    }


def _own_version() -> str:
    try:
        return version("fcpts-onnx")
    except PackageNotFoundError:
        return "not installed"


def _flat(model: Model, weight: Weight) -> Tensor:
    return torch.from_numpy(_float_values(model, weight)).flatten()


def _distribution(name: str, dense: Tensor, sparse: Tensor) -> Distribution:
    ordered, sizes = in_order(dense), in_order(dense.abs())
    reach = float(sizes[int(_WITHIN * (len(sizes) - 1))]) or 1.0
    below = len(sparse) - int(sparse.count_nonzero())
    width = 2 * reach / _BINS
    centres = torch.linspace(-reach + width / 2, reach - width / 2, _BINS)
    kept = sparse[sparse != 0]

    def density(values: Tensor) -> tuple[float, ...]:
        counts = torch.histc(values, _BINS, -reach, reach)
        return _rounded(counts / (len(dense) * width))

    curve = density_at(centres, sample(ordered, _POINTS))
    threshold = float(sizes[below - 1]) if below else 0.0
    return Distribution(name, reach, density(dense), density(kept), _rounded(curve), threshold)


def _rounded(values: Tensor) -> tuple[float, ...]:
    """To four digits, which is what a plot shows."""
    return tuple(float(f"{value:.4g}") for value in values.tolist())
