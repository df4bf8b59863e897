"""MEASURE: mean average precision of a detector on annotated images, through onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fcpts_onnx.errors import CalibrationError, RecipeError
from fcpts_onnx.evaluate.annotations import annotated
from fcpts_onnx.evaluate.boxes import Boxes
from fcpts_onnx.evaluate.detectors import Detector
from fcpts_onnx.evaluate.labels import listed_names
from fcpts_onnx.evaluate.mean_precision import average_precision
from fcpts_onnx.model import Model
from fcpts_onnx.preprocess import ImagePlan, Preprocess
from fcpts_onnx.results import Evaluation, silent
from fcpts_onnx.runtime import Runtime, as_arrays, check_finite
from fcpts_onnx.sources import Images, find_images

__all__ = ["evaluate_detector"]

_BATCH = 16


def evaluate_detector(
    model: Model,
    folder: Path,
    boxes: Path,
    detector: Detector,
    preprocess: Preprocess,
    *,
    names: Path | None = None,
    threads: int = 0,
    report: Callable[[int, int], None] = silent,
) -> Evaluation:
    """Run a detector on annotated images, each brought to the size of its input as a whole.

    Args:
        boxes: a folder with an .xml or .txt for each image.
        names: a text file with what the numbers in .txt stand for, one a line.
        report: told how many images of how many are done.

    Raises:
        CalibrationError: images or annotations cannot be read.
        RecipeError: the outputs are not what the detector's settings say.
    """
    if len(model.inputs) != 1:
        raise CalibrationError(f"{model.path}: has {len(model.inputs)} inputs; images feed one.")
    paths = find_images(folder)
    if not paths:
        raise CalibrationError(f"{folder}: no images in it.")
    plan = ImagePlan.of(model.inputs[0], replace(preprocess, fit="stretch"))
    numbered = None if names is None else listed_names(names)
    wanted = annotated(paths, boxes, detector.classes, numbered, leave_out=detector.other_classes)
    _check_boxes(wanted, boxes, detector)
    images = Images.read(paths, plan)
    by_path = dict(zip(paths, wanted, strict=True))
    wanted = [by_path[path] for path in images.paths]
    _check_boxes(wanted, boxes, detector, " in an image that can be read")
    found = _detections(model, images, detector, threads, report)
    precisions = {
        name: average_precision(found, wanted, place) for place, name in enumerate(detector.classes)
    }
    counted = {name: precision for name, precision in precisions.items() if precision.count}
    return Evaluation(
        model=str(model.path),
        data=str(folder),
        samples=len(images),
        classes=len(counted),
        scores={
            "mAP50": float(np.mean([precision.area for precision in counted.values()])),
            "mAP50 (2007)": float(np.mean([precision.points for precision in counted.values()])),
        },
        skipped=images.skipped,
        by_class={name: precision.area for name, precision in counted.items()},
    )


def _check_boxes(wanted: Sequence[Boxes], boxes: Path, detector: Detector, where: str = "") -> None:
    """See that there is something to find: a mean of nothing is no number."""
    if not any((~of_image.difficult).any() for of_image in wanted):
        raise CalibrationError(
            f"{boxes}: has no box that counts{where}: of the classes "
            f"{', '.join(detector.classes)}, and not difficult."
        )


def _detections(
    model: Model,
    images: Images,
    detector: Detector,
    threads: int,
    report: Callable[[int, int], None],
) -> list[Boxes]:
    runtime, found = Runtime(model, threads=threads), list[Boxes]()
    while len(found) < len(images):
        end = min(len(found) + (runtime.batch or _BATCH), len(images))
        batch = images.take(torch.arange(len(found), end))
        outputs = runtime.run(as_arrays({model.inputs[0].name: batch}))
        if len(batch) > (runtime.batch or _BATCH):
            continue  # one by one, as it turned out: how many boxes there are differs
        check_finite(model.path, outputs)
        boxes = detector.detections(outputs)
        if len(boxes) != len(batch):
            raise RecipeError(
                f"{model.path}: gives boxes of {len(boxes)} images for a batch of {len(batch)}. "
                "Export it for batches of 1."
            )
        found += boxes
        report(len(found), len(images))
    return found
