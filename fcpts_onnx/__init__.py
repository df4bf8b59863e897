"""fcpts-onnx: make a trained ONNX model sparse after training."""

from fcpts_onnx.compare import compare
from fcpts_onnx.errors import FcptsError
from fcpts_onnx.pipeline import bench, diff, evaluate, inspect, prune, quantize, validate
from fcpts_onnx.preprocess import Preprocess
from fcpts_onnx.recipe import Recipe
from fcpts_onnx.results import (
    Comparison,
    Difference,
    Evaluation,
    Inspection,
    Latency,
    Output,
    Parity,
    Progress,
    PruneResult,
    Quantization,
    Sparsity,
    Trial,
    Validation,
)
from fcpts_onnx.texts import to_json

__all__ = [
    "Comparison",
    "Difference",
    "Evaluation",
    "FcptsError",
    "Inspection",
    "Latency",
    "Output",
    "Parity",
    "Preprocess",
    "Progress",
    "PruneResult",
    "Quantization",
    "Recipe",
    "Sparsity",
    "Trial",
    "Validation",
    "bench",
    "compare",
    "diff",
    "evaluate",
    "inspect",
    "prune",
    "quantize",
    "to_json",
    "validate",
]
