"""MEASURE: top-1 and top-5 accuracy on labelled images, through onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fcpts_onnx.errors import CalibrationError
from fcpts_onnx.evaluate.labels import labelled_images
from fcpts_onnx.model import Model
from fcpts_onnx.preprocess import ImagePlan, Preprocess
from fcpts_onnx.results import Evaluation, silent
from fcpts_onnx.runtime import Runtime, as_arrays, check_finite
from fcpts_onnx.sources import Images
from fcpts_onnx.sparsity.losses import class_scores

__all__ = ["evaluate_classifier"]

_BATCH = 100


def evaluate_classifier(
    model: Model,
    folder: Path,
    preprocess: Preprocess,
    *,
    labels: Path | None = None,
    offset: int = 0,
    threads: int = 0,
    report: Callable[[int, int], None] = silent,
) -> Evaluation:
    """Run a classifier on labelled images.

    Args:
        folder, labels: as `labels.labelled_images` reads them.
        offset: the place of the first class among the model's scores, 1 where a network for 1000
            classes gives 1001.
        report: told how many images of how many are done.

    Raises:
        CalibrationError: the images or their labels cannot be read, a label is beyond the
            model's classes, or there are fewer folders than these and no list says which.
    """
    if len(model.inputs) != 1:
        raise CalibrationError(f"{model.path}: has {len(model.inputs)} inputs; images feed one.")
    labelled = labelled_images(folder, labels)
    images = Images.read(list(labelled.places), ImagePlan.of(model.inputs[0], preprocess))
    wanted = np.array([labelled.places[path] + offset for path in images.paths])
    runtime = Runtime(model, threads=threads)
    classes = _scores(model, runtime, images.take(torch.arange(1))).shape[1]
    if classes < labelled.classes + offset:
        beyond = int((wanted >= classes).sum())
        raise CalibrationError(
            f"{labels or folder}: has {labelled.classes} classes"
            f"{f' from place {offset} on' if offset else ''}, but output {model.outputs[0]!r} of "
            f"{model.path} has {classes}; {beyond} images are beyond. Give --labels, or another "
            "model."
        )
    if labels is None and classes > labelled.classes + offset:
        raise CalibrationError(
            f"{folder}: has folders of {labelled.classes} classes, but output "
            f"{model.outputs[0]!r} of {model.path} has {classes}, so that their places among these "
            "are unknown. Give --labels with all classes in order, or --label-offset if the first "
            "ones are of none."
        )
    parts = []
    for start in range(0, len(images), _BATCH):
        places = torch.arange(start, min(start + _BATCH, len(images)))
        parts.append(_scores(model, runtime, images.take(places)))
        report(start + len(places), len(images))
    scores = torch.cat(parts)
    top = scores.topk(min(5, scores.shape[1])).indices.numpy()
    hits = top == wanted[:, None]
    return Evaluation(
        model=str(model.path),
        data=str(folder),
        samples=len(images),
        classes=labelled.classes,
        scores={"top-1": float(hits[:, 0].mean()), "top-5": float(hits.any(1).mean())},
        skipped=images.skipped,
    )


def _scores(model: Model, runtime: Runtime, batch: Tensor) -> Tensor:
    """The first output of numbers on a batch, as class scores (images, classes)."""
    outputs = runtime.run(as_arrays({model.inputs[0].name: batch}))
    check_finite(model.path, outputs)
    name = next((name for name in model.outputs if name in outputs), None)
    if name is None:
        raise CalibrationError(f"{model.path}: gives no numbers. Give a classifier.")
    found = torch.from_numpy(outputs[name])
    scores = class_scores(found)
    if scores is None:
        raise CalibrationError(
            f"{model.path}: output {name!r} has shape {list(found.shape[1:])} a "
            "sample, which is not a score for each class. Give a classifier, or --boxes and "
            "--detector for a detector."
        )
    return scores
