"""MEASURE: top-1 and top-5 accuracy on images in class-named folders, through onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from fcpts_onnx.calibration import Images, find_images
from fcpts_onnx.errors import CalibrationError
from fcpts_onnx.model import Model
from fcpts_onnx.preprocess import ImagePlan, Preprocess
from fcpts_onnx.results import Evaluation
from fcpts_onnx.runtime import Runtime
from fcpts_onnx.sparsity.losses import class_scores

__all__ = ["class_names", "evaluate_classifier"]

_BATCH = 100


def evaluate_classifier(
    model: Model,
    folder: Path,
    preprocess: Preprocess,
    *,
    labels: Path | None = None,
    threads: int = 0,
) -> Evaluation:
    """Run a classifier on labelled images.

    Args:
        folder: one folder a class, named after it; images in it and below.
        labels: a text file with one class name a line, in the order of the model's outputs; by
            default the folders' names, sorted.

    Raises:
        CalibrationError: the folder has no class folders or images, names a class that is not in
            the list, or has more classes than the model.
    """
    if len(model.inputs) != 1:
        raise CalibrationError(f"{model.path}: has {len(model.inputs)} inputs; images feed one.")
    names = class_names(folder, labels)
    paths = find_images(folder)
    images = Images.read(paths, ImagePlan.of(model.inputs[0], preprocess))
    index = {name: place for place, name in enumerate(names)}
    wanted = np.array([index[path.relative_to(folder).parts[0]] for path in images.paths])
    runtime = Runtime(model, threads=threads)
    top = []
    for start in range(0, len(images), _BATCH):
        batch = images.take(torch.arange(start, min(start + _BATCH, len(images))))
        output = runtime.run({model.inputs[0].name: np.ascontiguousarray(batch.numpy())})
        scores = class_scores(torch.from_numpy(output[runtime.outputs[0]]))
        if scores is None or scores.shape[1] < len(names):
            shape = list(output[runtime.outputs[0]].shape[1:])
            raise CalibrationError(
                f"{folder}: has {len(names)} classes, but output {runtime.outputs[0]!r} of "
                f"{model.path} has shape {shape} a sample. Give --labels, or another model."
            )
        top.append(scores.topk(min(5, scores.shape[1])).indices.numpy())
    hits = np.concatenate(top) == wanted[:, None]
    return Evaluation(
        model=str(model.path),
        data=str(folder),
        samples=len(images),
        classes=len(names),
        top1=float(hits[:, 0].mean()),
        top5=float(hits.any(1).mean()),
        skipped=images.skipped,
    )


def class_names(folder: Path, labels: Path | None) -> list[str]:
    """The class names in the order of the model's outputs.

    Raises:
        CalibrationError: there are no class folders, the list cannot be read, or it misses one.
    """
    if not folder.is_dir():
        raise CalibrationError(f"{folder}: no such folder of labelled images.")
    folders = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    loose = [entry for entry in find_images(folder) if entry.parent == folder]
    if not folders or loose:
        found = f"the image {loose[0].name} lies outside one" if loose else "there are none"
        raise CalibrationError(f"{folder}: images must lie in a folder a class, but {found}.")
    if labels is None:
        return folders
    try:
        names = labels.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(f"{labels}: cannot be read as a list of classes: {error}") from error
    names = [name.strip() for name in names if name.strip()]
    if missing := sorted(set(folders) - set(names)):
        raise CalibrationError(f"{labels}: has no class {', '.join(missing)}, which {folder} has.")
    return names
