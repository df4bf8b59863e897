"""fcpts-onnx: make a trained ONNX model sparse after training."""

from fcpts_onnx.compare import compare
from fcpts_onnx.errors import FcptsError
from fcpts_onnx.examine import bench, diff, evaluate, inspect, validate
from fcpts_onnx.int8 import quantize
from fcpts_onnx.pipeline import prune
from fcpts_onnx.preprocess import Preprocess
from fcpts_onnx.recipe import Recipe
from fcpts_onnx.rehearsal import rehearse
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
    Rehearsal,
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
    "Rehearsal",
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
    "rehearse",
    "to_json",
    "validate",
]
