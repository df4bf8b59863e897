"""MEASURE: accuracy on labelled images, and latency, independent of the learning."""

from fcpts_onnx.evaluate.classification import evaluate_classifier
from fcpts_onnx.evaluate.detection import evaluate_detector
from fcpts_onnx.evaluate.detectors import read_detector
from fcpts_onnx.evaluate.engines import ENGINES, check_installed
from fcpts_onnx.evaluate.latency import measure_latency
from fcpts_onnx.evaluate.probe import probe

__all__ = [
    "ENGINES",
    "check_installed",
    "evaluate_classifier",
    "evaluate_detector",
    "measure_latency",
    "probe",
    "read_detector",
]
