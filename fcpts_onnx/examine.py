"""What can be asked of files: inspect, diff, validate, evaluate, bench."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor

from fcpts_onnx.along import learned_along
from fcpts_onnx.calibration import Data, load_calibration
from fcpts_onnx.difference import difference
from fcpts_onnx.errors import FcptsError
from fcpts_onnx.evaluate import (
    check_installed,
    evaluate_classifier,
    evaluate_detector,
    measure_latency,
    probe,
    read_detector,
)
from fcpts_onnx.evidence import ways_to_store
from fcpts_onnx.hardware import CHIPS, MNN, estimate, gains_from, target_densities
from fcpts_onnx.model import InputSpec, Model, PathLike, load
from fcpts_onnx.ops.dtypes import to_torch
from fcpts_onnx.preparation import BEHIND_A_CHOICE, learning_twin
from fcpts_onnx.preprocess import Preprocess
from fcpts_onnx.results import (
    Difference,
    Estimate,
    Evaluation,
    Inspection,
    Latency,
    Validation,
    silent,
)
from fcpts_onnx.selection import select
from fcpts_onnx.sparsity.losses import find_heads
from fcpts_onnx.twin import Twin
from fcpts_onnx.twin.bounds import Bounded
from fcpts_onnx.validate import COMPARED, validate_models
from fcpts_onnx.weights import Weight, find_weights

__all__ = ["bench", "diff", "evaluate", "inspect", "validate"]

_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
_OPEN_SIZE = 64  # of an axis that the graph leaves open, to try it out
_MOST_TRIED = 2**26, 2**32  # values in one tensor and in all, to try it out
_LEAST_MATRIX = 1024  # values: less is not worth a word


def inspect(
    model: PathLike,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    keep_dense: Sequence[str] = (),
    hardware: str | None = None,
    size: tuple[int, int] | None = None,
    sizes: bool = False,
) -> Inspection:
    """List what can be pruned in a model, and why the rest cannot.

    Args:
        hardware: of `hardware.DEVICES`. A chip: say from where on zeros save no more time on it.
            "mnn": see from where on each layer is faster there.
        size: height and width of images, where the graph leaves them open; for `hardware`.
        sizes: say what the weights take in several ways to store them, too.

    Raises:
        FcptsError: the model cannot be loaded, a glob matches nothing, or a size is given that
            nothing asks for.
    """
    if size is not None and hardware is None:
        raise FcptsError("--size is the images' on a chip or on MNN; say which with --hardware.")
    loaded = load(model)
    chosen = select(loaded, include, exclude, keep_dense)
    twin, weights, obstacle = _tried(loaded, chosen, exclude)
    along = tuple(learned_along(loaded, weights, exclude))
    return Inspection(
        model=str(model),
        opset=loaded.opsets[""],
        inputs=tuple(f"{spec.name}: {spec.dtype} {_lengths(spec.shape)}" for spec in loaded.inputs),
        weights=weights,
        along=along,
        others=_others(loaded, {*along, *(weight.name for weight in weights)}),
        heads=() if twin is None else _heads_tried_out(twin),
        obstacle=obstacle,
        densities=target_densities(loaded, weights, hardware) if hardware in CHIPS else {},
        gains_from=_probed(loaded, weights, size) if hardware == MNN else {},
        estimate=_estimated(loaded, weights, hardware, size) if hardware in CHIPS else None,
        sizes=ways_to_store(loaded, weights) if sizes else (),
    )


def _others(model: Model, known: Collection[str]) -> int:
    """How many values matrices of float type have that are not among those that are known."""
    left = (t for name, t in model.tensors.items() if name not in known and len(t.dims) > 1)
    counts = [math.prod(tensor.dims) for tensor in left if tensor.data_type in _FLOATS]
    return sum(count for count in counts if count >= _LEAST_MATRIX)


def _probed(
    model: Model, weights: Sequence[Weight], size: tuple[int, int] | None
) -> dict[str, float | None]:
    check_installed(MNN)
    chosen = [weight for weight in weights if weight.excluded is None]
    return {name: gains_from(times) for name, times in probe(model, chosen, size).items()}


def _estimated(
    model: Model, weights: Sequence[Weight], chip: str, size: tuple[int, int] | None
) -> Estimate | None:
    return estimate(model, weights, {weight.name: weight.zeros for weight in weights}, chip, size)


def _lengths(shape: Sequence[int | None] | None) -> str:
    if shape is None:
        return "of any shape"
    return f"[{', '.join(str(length or '?') for length in shape)}]"


def diff(first: PathLike, second: PathLike) -> Difference:
    """What differs between two files: values of tensors, one by one, and parts of the rest.

    Raises:
        FcptsError: a file cannot be loaded.
    """
    return difference(load(first), load(second))


def validate(
    dense: PathLike,
    sparse: PathLike,
    *,
    calib: Data,
    preprocess: Preprocess | str = "imagenet",
    samples: int = COMPARED,
    seed: int = 0,
    threads: int = 0,
) -> Validation:
    """Hold a sparse file against its dense origin: zeros, what changed, how outputs differ.

    Raises:
        FcptsError: a file cannot be loaded or run, or the two have different outputs.
    """
    origin = load(dense)
    calibration = load_calibration(
        calib, origin, Preprocess.of(preprocess), samples=samples, seed=seed
    )
    weights = [weight for weight in find_weights(origin) if weight.name in origin.tensors]
    return validate_models(
        origin, load(sparse), calibration, weights, samples=samples, threads=threads
    )


def evaluate(
    model: PathLike,
    *,
    data: PathLike,
    preprocess: Preprocess | str = "imagenet",
    labels: PathLike | None = None,
    label_offset: int = 0,
    boxes: PathLike | None = None,
    detector: PathLike | None = None,
    threads: int = 0,
    report: Callable[[int, int], None] = silent,
) -> Evaluation:
    """Accuracy on labelled images: of a classifier, or, with `boxes` and `detector`, of one.

    Args:
        data: images, of a classifier in folders named after their class unless `labels` says so.
        labels: the classes in order, one a line, or a .csv with the columns file and label; of
            boxes, what the numbers in their .txt files stand for.
        label_offset: the place of the first class among the scores.
        boxes: a folder with an .xml (PASCAL VOC) or .txt (YOLO) for each image.
        detector: a TOML file that says what the outputs mean.
        report: told how many images of how many are done.

    Raises:
        FcptsError: the model or the images cannot be read, or do not fit each other.
    """
    loaded, settings, folder = load(model), Preprocess.of(preprocess), Path(data)
    names = None if labels is None else Path(labels)
    if boxes is None and detector is None:
        return evaluate_classifier(
            loaded, folder, settings, labels=names, offset=label_offset, threads=threads,
            report=report,
        )  # fmt: skip
    if boxes is None or detector is None:
        raise FcptsError("A detector needs both --boxes and --detector.")
    if label_offset:
        raise FcptsError("--label-offset is for classifiers; a detector's file has first_label.")
    return evaluate_detector(
        loaded, folder, Path(boxes), read_detector(Path(detector)), settings, names=names,
        threads=threads, report=report,
    )  # fmt: skip


def bench(
    dense: PathLike,
    sparse: PathLike,
    *,
    engines: Sequence[str] = ("ort",),
    runs: int = 100,
    threads: int = 1,
    size: tuple[int, int] | None = None,
    report: Callable[[int, int], None] = silent,
) -> Latency:
    """How long a dense and a sparse model take on the engines at hand, measured in turns.

    Args:
        engines: names of `evaluate.ENGINES`.
        runs: how often each model is timed on each engine.
        threads: of each engine.
        size: height and width of images, where the graph leaves them open.
        report: told how many turns of how many are over.

    Raises:
        FcptsError: a file cannot be loaded, or an engine is not installed.
    """
    for engine in engines:
        check_installed(engine)
    return measure_latency(
        load(dense), load(sparse), engines, runs=runs, threads=threads, size=size, report=report
    )


def _tried(
    model: Model, weights: Sequence[Weight], exclude: Sequence[str]
) -> tuple[Twin | None, tuple[Weight, ...], str | None]:
    """The twin that would learn, the weights with why it leaves some, and why there is none."""
    pruned = [weight for weight in weights if weight.excluded is None]
    if not pruned:
        return None, tuple(weights), None
    try:
        twin, reached = learning_twin(model, pruned, exclude)
    except FcptsError as error:
        return None, tuple(weights), str(error)
    known = tuple(
        replace(weight, excluded=BEHIND_A_CHOICE)
        if weight.excluded is None and weight not in reached
        else weight
        for weight in weights
    )
    return twin, known, None


def _heads_tried_out(twin: Twin) -> tuple[str, ...]:
    """What would be learned against, found with noise for inputs."""
    model = twin.model
    # A batch of 1 is written in for good, or only stated; sample by sample is right for both.
    is_stated = any(spec.shape and spec.shape[0] == 1 for spec in model.inputs)
    for per_sample in sorted({is_stated, True}):
        twin.per_sample = per_sample
        try:
            with torch.no_grad(), Bounded(*_MOST_TRIED):
                noise = _noise(model.inputs)
                outputs = twin(noise)
        except (RuntimeError, TypeError):  # sizes that do not fit, or are too large; 8-bit floats
            continue
        return tuple(head.describe() for head in find_heads(outputs, noise))
    return tuple(twin.output_names)


def _noise(inputs: Sequence[InputSpec]) -> dict[str, Tensor]:
    """Two samples of random values for each input."""
    generator, noise = torch.Generator().manual_seed(0), {}
    for spec in inputs:
        shape = [2, *(size or _OPEN_SIZE for size in (spec.shape or ())[1:])]
        values = torch.rand(shape, generator=generator)
        noise[spec.name] = values.to(to_torch(np.zeros(0, spec.dtype)).dtype)
    return noise
