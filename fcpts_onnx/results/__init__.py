"""SHOW: what every command gives back: plain data, ready for a terminal, JSON or a page."""

from fcpts_onnx.results.files import Difference, Inspection, TensorDifference
from fcpts_onnx.results.measures import Comparison, Evaluation, Latency, Timing, Trial
from fcpts_onnx.results.pruning import (
    Departure,
    Distribution,
    Estimate,
    Output,
    Parity,
    Progress,
    PruneResult,
    Quantization,
    Rehearsal,
    Sizes,
    Sparsity,
    Validation,
    WeightValues,
    silent,
)

__all__ = [
    "Comparison",
    "Departure",
    "Difference",
    "Distribution",
    "Estimate",
    "Evaluation",
    "Inspection",
    "Latency",
    "Output",
    "Parity",
    "Progress",
    "PruneResult",
    "Quantization",
    "Rehearsal",
    "Sizes",
    "Sparsity",
    "TensorDifference",
    "Timing",
    "Trial",
    "Validation",
    "WeightValues",
    "silent",
]
