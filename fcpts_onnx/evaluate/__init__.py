"""MEASURE: how good a model is on labelled data."""

from fcpts_onnx.evaluate.classification import evaluate_classifier

__all__ = ["evaluate_classifier"]
