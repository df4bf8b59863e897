"""MEASURE: top-1 and top-5 accuracy on images in class-named folders, through onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fcpts_onnx.errors import CalibrationError
from fcpts_onnx.model import Model
from fcpts_onnx.preprocess import ImagePlan, Preprocess
from fcpts_onnx.results import Evaluation
from fcpts_onnx.runtime import Runtime, check_finite
from fcpts_onnx.sources import Images, find_images
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
    images = Images.read(find_images(folder), ImagePlan.of(model.inputs[0], preprocess))
    index = {name: place for place, name in enumerate(names)}
    wanted = np.array([index[path.relative_to(folder).parts[0]] for path in images.paths])
    scores = _scores(model, images, threads)
    if scores.shape[1] < len(names):
        raise CalibrationError(
            f"{folder}: has {len(names)} classes, but output {model.outputs[0]!r} of {model.path} "
            f"has {scores.shape[1]}. Give --labels, or another model."
        )
    top = scores.topk(min(5, scores.shape[1])).indices.numpy()
    hits = top == wanted[:, None]
    return Evaluation(
        model=str(model.path),
        data=str(folder),
        samples=len(images),
        classes=len(names),
        top1=float(hits[:, 0].mean()),
        top5=float(hits.any(1).mean()),
        skipped=images.skipped,
    )


def _scores(model: Model, images: Images, threads: int) -> Tensor:
    """The first output on all images, as class scores (images, classes)."""
    runtime, parts = Runtime(model, threads=threads), []
    for start in range(0, len(images), _BATCH):
        batch = images.take(torch.arange(start, min(start + _BATCH, len(images))))
        outputs = runtime.run({model.inputs[0].name: np.ascontiguousarray(batch.numpy())})
        check_finite(model.path, outputs)
        found = torch.from_numpy(outputs[model.outputs[0]])
        scores = class_scores(found)
        if scores is None:
            raise CalibrationError(
                f"{model.path}: output {model.outputs[0]!r} has shape {list(found.shape[1:])} a "
                "sample, which is not a score for each class. Give a classifier."
            )
        parts.append(scores)
    return torch.cat(parts)


def class_names(folder: Path, labels: Path | None) -> list[str]:
    """The class names in the order of the model's outputs.

    Raises:
        CalibrationError: there are no class folders, the list cannot be read, or it misses one.
    """
    if not folder.is_dir():
        raise CalibrationError(f"{folder}: no such folder of labelled images.")
    images = find_images(folder)
    entries = (entry for entry in folder.iterdir() if not entry.name.startswith("."))
    folders = sorted(entry.name for entry in entries if entry.is_dir())
    loose = [entry for entry in images if entry.parent == folder]
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
    if twice := sorted(name for name in folders if names.count(name) > 1):
        raise CalibrationError(f"{labels}: has the class {', '.join(twice)} more than once.")
    return names
