"""Write a network as an ONNX file, a detector with its post-processing if wanted."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from tools.networks.ssd import SSD, Detector

__all__ = ["EXPORTERS", "export"]

EXPORTERS = ("torchscript", "dynamo")
BOXES_PER_CLASS, IOU_THRESHOLD, SCORE_THRESHOLD = 200, 0.45, 0.01


def export(
    module: nn.Module,
    path: Path,
    *,
    size: int,
    exporter: str = "torchscript",
    opset: int = 18,
    post_processing: bool = False,
) -> None:
    """Write a network that takes images (batch, 3, size, size).

    Outputs are `scores`, and of detectors `boxes`: those of SSD. With post-processing the batch
    is 1, they are those of Detector, and `selected` is what NonMaxSuppression gives: rows of
    image, class (the background not counted) and box.
    """
    names = ["scores", "boxes"] if isinstance(module, SSD) else ["scores"]
    axes = {} if post_processing else {key: {0: "batch"} for key in ("image", *names)}
    options: dict[str, Any] = {"dynamic_axes": axes}
    if exporter == "dynamo":
        options = {"dynamic_shapes": (axes.get("image"),), "external_data": False}
    with warnings.catch_warnings():
        for kind in (DeprecationWarning, FutureWarning):  # of torch, about its own code
            warnings.simplefilter("ignore", kind)
        torch.onnx.export(
            Detector(module).eval() if post_processing else module,
            (torch.zeros(1 if post_processing else 2, 3, size, size),),
            str(path),
            input_names=["image"],
            output_names=names,
            opset_version=opset,
            dynamo=exporter == "dynamo",
            verbose=False,
            **options,
        )
    if post_processing:
        onnx.save(_suppressed(onnx.load(path)), path)


def _suppressed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with NonMaxSuppression behind its boxes and scores."""
    constants: dict[str, np.ndarray] = {
        "boxes_per_class": np.array([BOXES_PER_CLASS], np.int64),
        "iou_threshold": np.array([IOU_THRESHOLD], np.float32),
        "score_threshold": np.array([SCORE_THRESHOLD], np.float32),
    }
    graph = model.graph
    graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())
    inputs = ["boxes", "scores", *constants]
    graph.node.append(helper.make_node("NonMaxSuppression", inputs, ["selected"], "suppress"))
    graph.output.append(helper.make_tensor_value_info("selected", TensorProto.INT64, [None, 3]))
    onnx.checker.check_model(model)
    return model
