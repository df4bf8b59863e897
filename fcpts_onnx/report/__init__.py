"""SHOW: results as tables on a terminal."""

from fcpts_onnx.report.terminal import (
    show_comparison,
    show_evaluation,
    show_inspection,
    show_pruning,
    show_validation,
)

__all__ = [
    "show_comparison",
    "show_evaluation",
    "show_inspection",
    "show_pruning",
    "show_validation",
]
