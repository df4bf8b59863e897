"""MEASURE: top-1 and top-5 accuracy on labelled images, through onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor

from fcpts_onnx.errors import CalibrationError
from fcpts_onnx.evaluate.boxes import Array
from fcpts_onnx.evaluate.labels import Labelled, labelled_images
from fcpts_onnx.model import Model
from fcpts_onnx.preprocess import ImagePlan, Preprocess
from fcpts_onnx.results import Evaluation, silent
from fcpts_onnx.runtime import Runtime, as_arrays, check_finite
from fcpts_onnx.sources import Images
from fcpts_onnx.sparsity.losses import class_scores

__all__ = ["evaluate_classifier"]

_BATCH = 100
_WITH_BACKGROUND = 1001  # scores of networks for ImageNet, as TensorFlow's are
_CHANCE, _CLEARLY = 0.05, 10  # what guesses or one class for all images do not come to


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
            model's classes, there are fewer folders or names than these, or the labels are one
            place before the scores.
    """
    if len(model.inputs) != 1:
        raise CalibrationError(f"{model.path}: has {len(model.inputs)} inputs; images feed one.")
    labelled = labelled_images(folder, labels)
    if (declared := _declared(model)) is not None:
        _check_classes(labelled, offset, model, *declared)
    images = Images.read(list(labelled.places), ImagePlan.of(model.inputs[0], preprocess))
    wanted = np.array([labelled.places[path] + offset for path in images.paths])
    runtime = Runtime(model, threads=threads)
    name, first = _scores(model, runtime, images.take(torch.arange(1)))
    _check_classes(labelled, offset, model, name, first.shape[1])
    parts = []
    for start in range(0, len(images), _BATCH):
        places = torch.arange(start, min(start + _BATCH, len(images)))
        parts.append(_scores(model, runtime, images.take(places))[1])
        report(start + len(places), len(images))
    scores = torch.cat(parts)
    top = scores.topk(min(5, scores.shape[1])).indices.numpy()
    if not labelled.names_all and not offset:
        _check_first_class(labelled, model, scores.shape[1], top[:, 0], wanted)
    hits = top == wanted[:, None]
    return Evaluation(
        model=str(model.path),
        data=str(folder),
        samples=len(images),
        classes=len(np.unique(wanted)),
        scores={"top-1": float(hits[:, 0].mean()), "top-5": float(hits.any(1).mean())},
        skipped=images.skipped,
    )


def _declared(model: Model) -> tuple[str, int] | None:
    """The output of class scores and how many, as far as the graph says so."""
    for value in model.proto.graph.output:
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type") or tensor.elem_type == TensorProto.STRING:
            continue
        sizes = [dim.dim_value for dim in tensor.shape.dim]
        is_scores = len(sizes) > 1 and sizes[1] > 1 and set(sizes[2:]) <= {1}
        return (value.name, sizes[1]) if is_scores else None
    return None


def _check_classes(
    labelled: Labelled, offset: int, model: Model, output: str, classes: int
) -> None:
    """See that labels and scores are of the same classes.

    Raises:
        CalibrationError: a label is beyond the scores, or the source names fewer classes.
    """
    count = labelled.classes + offset
    if count == classes or (count < classes and not labelled.names_all):
        return
    beyond = [path for path, place in labelled.places.items() if place + offset >= classes]
    shown = f"; {len(beyond)} images are beyond, as {beyond[0]}" if beyond else ""
    raise CalibrationError(
        f"{labelled.source}: has {labelled.classes} classes"
        f"{f' from place {offset} on' if offset else ''}, but output {output!r} of {model.path} "
        f"has {classes}{shown}. {_advice(labelled)}"
    )


def _advice(labelled: Labelled) -> str:
    """What to do where there are other classes than scores."""
    if not labelled.names_all:
        return "Correct the numbers, which count from 0 on, or --label-offset."
    offset = "or --label-offset if the first scores are of none"
    if labelled.source.is_dir():
        return f"Give --labels with the class of each score in order, {offset}."
    return f"Give it a line for each score in order, the last with a name, {offset}."


def _check_first_class(
    labelled: Labelled, model: Model, classes: int, top: Array, wanted: Array
) -> None:
    """See that ImageNet's labels are not one place before the scores of a network that begins
    with one for background.

    A table need not show all classes, so that only the answers can tell.

    Raises:
        CalibrationError: they are.
    """
    own, later = float((top == wanted).mean()), float((top == wanted + 1).mean())
    if classes == _WITH_BACKGROUND and later > max(_CHANCE, _CLEARLY * own):
        raise CalibrationError(
            f"{labelled.source}: labels fit the {classes} classes of {model.path} one place later, "
            f"top-1 {later:.2%} instead of {own:.2%}. If the first is of none, as of background, "
            "give --label-offset 1."
        )


def _scores(model: Model, runtime: Runtime, batch: Tensor) -> tuple[str, Tensor]:
    """The first output of numbers, and what it is on a batch as class scores (images, classes)."""
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
    return name, scores
