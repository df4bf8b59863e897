"""MEASURE: accuracy on labelled images, independent of the learning."""

from fcpts_onnx.evaluate.classification import evaluate_classifier
from fcpts_onnx.evaluate.detection import evaluate_detector
from fcpts_onnx.evaluate.detectors import read_detector

__all__ = ["evaluate_classifier", "evaluate_detector", "read_detector"]
