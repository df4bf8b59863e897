"""RIVALS: the smallest weights of each layer to zero, and that is all."""

from __future__ import annotations

from fcpts_onnx.sparsity.mask import apply_mask
from fcpts_onnx.sparsity.reconstruct import Learned
from fcpts_onnx.sparsity.task import Task

__all__ = ["untouched"]


def untouched(task: Task) -> Learned:
    """No reconstruction: what the others are held against."""
    counts = task.zeros
    assert counts is not None, "zeros have to be shared out before"
    stored = {weight.name: weight.value for weight in task.weights}
    dense = task.dense()
    masks = {
        weight.name: task.pattern.mask(weight, dense[weight.name].abs(), counts[weight.name])
        for weight in task.weights
    }
    sparse = {name: apply_mask(masks[name], value) for name, value in dense.items()}
    return Learned({stored[name]: value.cpu() for name, value in sparse.items()})
