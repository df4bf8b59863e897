"""RIVALS: ERK, densities from the shapes of layers alone."""

from __future__ import annotations

from fcpts_onnx.sparsity.task import Task

__all__ = ["erk"]


def erk(task: Task) -> dict[str, float]:
    """Zeros by weight: density in proportion to the sum of its axes over their product.

    Erdos-Renyi-Kernel (Mocanu et al. 2018; Evci et al. 2020): small layers stay denser. A layer
    that would be more than dense is dense, and the others share what is left.
    """
    shares = {weight.name: float(sum(weight.shape)) for weight in task.weights}
    counts = {weight.name: weight.count for weight in task.weights}
    kept = sum(counts.values()) - task.budget.zeros
    dense: set[str] = set()
    factor = 0.0
    while len(dense) < len(counts):
        left = kept - sum(counts[name] for name in dense)
        factor = left / sum(share for name, share in shares.items() if name not in dense)
        over = {n for n in shares.keys() - dense if factor * shares[n] > counts[n]}
        if not over:
            break
        dense |= over
    return {
        name: 0.0 if name in dense else counts[name] - factor * share
        for name, share in shares.items()
    }
