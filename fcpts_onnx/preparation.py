"""LEARN: what has to be settled before: the twin that learns, its heads, its views."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fcpts_onnx.along import learned_along
from fcpts_onnx.calibration import Calibration
from fcpts_onnx.errors import ModelError, TargetError
from fcpts_onnx.model import Model
from fcpts_onnx.ort_training.gradient_graph import gradient_builder
from fcpts_onnx.recipe import Recipe
from fcpts_onnx.selection import is_choice, select
from fcpts_onnx.sparsity.centres import centres_of
from fcpts_onnx.sparsity.compensation import compensations_of
from fcpts_onnx.sparsity.inputs import values_of
from fcpts_onnx.sparsity.losses import LOSSES, Head, Loss, find_heads, variances
from fcpts_onnx.sparsity.network import Network
from fcpts_onnx.sparsity.task import Task
from fcpts_onnx.training_form import check_inference_form
from fcpts_onnx.twin import Twin
from fcpts_onnx.twin.features import features
from fcpts_onnx.weights import Weight

__all__ = [
    "BEHIND_A_CHOICE",
    "check_learning",
    "features_of",
    "heads_of",
    "informed",
    "learning_twin",
    "network_of",
    "network_to_prune",
    "weights_to_prune",
]

BEHIND_A_CHOICE = "behind a choice (ArgMax, TopK, a cast to integers)"

_NAMED = 5
_HEAD_SAMPLES = 16
_SPREAD_SAMPLES = 64


def weights_to_prune(
    model: Model, include: Sequence[str], exclude: Sequence[str], keep_dense: Sequence[str]
) -> list[Weight]:
    """The weights that the user's choice leaves to prune.

    Raises:
        ModelError: there are none.
    """
    return _prunable(model, select(model, include, exclude, keep_dense))


def _prunable(model: Model, chosen: Sequence[Weight]) -> list[Weight]:
    weights = [weight for weight in chosen if weight.excluded is None]
    if not weights:
        reasons = sorted({f"{weight.name} is {weight.excluded}" for weight in chosen})
        why = (
            "; ".join(reasons[:5]) or "no Conv, ConvTranspose, Gemm or MatMul has a constant weight"
        )
        raise ModelError(f"{model.path}: has no prunable weight: {why}.")
    return weights


def learning_twin(
    model: Model, weights: Sequence[Weight], exclude: Sequence[str]
) -> tuple[Twin, list[Weight]]:
    """The twin that learns the weights, and the biases and norms along with them.

    Returns:
        It, and the weights that a gradient reaches: others lie behind a choice, as of a TopK.

    Raises:
        ModelError: values are no numbers, nodes compute as in training, or a gradient reaches no
            weight.
    """
    check_inference_form(model)
    along = learned_along(model, weights, exclude)
    stored = [*(weight.name for weight in weights), *along]
    bad = [name for name in stored if not np.isfinite(model.array(name)).all()]
    if bad:
        raise ModelError(
            f"{model.path}: NaN or Inf in the weights {', '.join(bad[:10])}. "
            "Repair the model first."
        )
    twin = Twin(model, [*(weight.value for weight in weights), *along])
    reached = [weight for weight in weights if weight.value in twin.learned]
    if not reached:
        raise ModelError(
            f"{model.path}: no gradient reaches a weight: all lie behind a choice, as ArgMax, TopK "
            "or a cast to integers makes it. Export the part before that as a model."
        )
    if len(reached) < len(weights):  # then what is learned along is less, too
        return learning_twin(model, reached, exclude)
    return twin, reached


def network_to_prune(
    model: Model,
    include: Sequence[str],
    exclude: Sequence[str],
    keep_dense: Sequence[str],
    say: Callable[[str], None],
) -> tuple[Twin, list[Weight]]:
    """The twin that learns what the user's choice leaves to prune, and those weights.

    What stays dense against the user's choice is told of.

    Raises:
        ModelError: as `weights_to_prune` and `learning_twin`.
    """
    chosen = select(model, include, exclude, keep_dense)
    weights = _prunable(model, chosen)
    if unable := [weight for weight in chosen if weight.excluded and not is_choice(weight)]:
        share = sum(w.count for w in unable) / sum(w.count for w in chosen)
        say(
            f"{len(unable)} of {len(chosen)} weights cannot be pruned, {share:.1%} of all values: "
            "'fcpts-onnx inspect' says why"
        )
    twin, reached = learning_twin(model, weights, exclude)
    if left := [weight.name for weight in weights if weight not in reached]:
        more = ", ..." if len(left) > _NAMED else ""
        say(
            f"{len(left)} of {len(weights)} weights stay as they are, {BEHIND_A_CHOICE}: "
            f"{', '.join(left[:_NAMED])}{more}"
        )
    return twin, reached


def check_learning(twin: Twin, engine: str, losses: Mapping[str, Loss]) -> None:
    """See, before anything is read or computed, that a twin can be learned as is asked for.

    Raises:
        FcptsError: the engine is not installed.
        TargetError: a loss is unknown, or is for what is not learned against.
    """
    if engine == "ort":
        gradient_builder()
    if unknown := sorted(losses.keys() - set(twin.output_names)):
        known = ", ".join(twin.output_names)
        raise TargetError(f"--loss names {', '.join(unknown)}; what is learned against is {known}.")
    if bad := sorted(set(losses.values()) - set(LOSSES)):
        raise TargetError(f"--loss {', '.join(bad)} is unknown; expected {', '.join(LOSSES)}.")


def network_of(
    engine: str, twin: Twin, calibration: Calibration, recipe: Recipe, threads: int
) -> Network:
    """What computes gradients: the twin itself, or onnxruntime-training in its place."""
    if engine == "torch":
        return twin
    from fcpts_onnx.ort_training.engine import OrtEngine  # few have what it needs

    return OrtEngine(twin, next(calibration.batches(recipe.batch_size)), threads)


def heads_of(twin: Twin, calibration: Calibration, losses: Mapping[str, Loss]) -> tuple[Head, ...]:
    """How each output is to be met, by what the dense network gives on some samples.

    Raises:
        ModelError: no output has values.
        TargetError: a divergence of classes is asked for where there are none.
    """
    batch = calibration.take(calibration.some(_HEAD_SAMPLES))
    with torch.no_grad():
        outputs = twin(batch)
    if not (heads := find_heads(outputs, batch, losses)):
        raise ModelError(
            f"{twin.model.path}: what it could be learned against ({', '.join(outputs)}) has no "
            "values. Correct the graph, or export it again."
        )
    for head in heads:
        _check_classes(head, outputs[head.name])
    found = _some_values(twin, calibration, [head.name for head in heads if head.loss == "mse"])
    return tuple(
        replace(head, spread=variances(found[head.name])) if head.name in found else head
        for head in heads
    )


def _check_classes(head: Head, values: Tensor) -> None:
    """See that there are two classes at least: of one, any scores have the same distribution."""
    if head.loss != "kl" or (values.ndim > head.axis and values.shape[head.axis] > 1):
        return
    shape = ", ".join(["N", *map(str, values.shape[1:])])
    raise TargetError(
        f"--loss {head.name}=kl is for scores of two classes or more, [N, classes] or [N, anchors, "
        f"classes], and {head.name} is [{shape}]. Use bce, for yes or no, or mse."
    )


def features_of(
    twin: Twin,
    calibration: Calibration,
    weights: Sequence[Weight],
    heads: Sequence[Head],
    part: float,
) -> tuple[Head, ...]:
    """What the last layers before class scores read, to be met too: it says more than ten scores.

    The twin gives these values from here on.

    Args:
        part: what their squared errors, relative to their variances, count in the loss.
    """
    scores = [head.name for head in heads if head.loss != "mse"]
    if not part or not scores:
        return ()
    values = [weight.value for weight in weights]
    names = features(twin.steps, twin.input_names, twin.learned, values, scores)
    inner = [name for name in names if name not in twin.output_names]
    found = _some_values(twin, calibration, inner)
    twin.watched = tuple(found)
    return tuple(
        Head(name, "mse", spread=(float(values.var(correction=0)),), weight=part)
        for name, values in found.items()
    )


def informed(
    task: Task, twin: Twin, losses: Mapping[str, Loss], say: Callable[[str], None]
) -> Task:
    """The task with what the dense network says of the samples: what to meet, what layers read.

    Raises:
        ModelError, TargetError: as `heads_of`.
    """
    calibration, weights, recipe = task.calibration, task.weights, task.recipe
    heads = heads_of(twin, calibration, losses)
    for head in heads:
        say(f"Output {head.describe()}")
    inner = features_of(twin, calibration, weights, heads, recipe.feature_weight)
    for feature in inner:
        say(f"Feature {feature.describe()}")
    # A batch norm that is not multiplied into its layer counts in other units.
    plain = [w for w in weights if w.norm is None or (recipe.channel_scales and w.channels)]
    centres = centres_of(twin, calibration, plain) if recipe.centred else {}
    compensations = (
        compensations_of(twin, calibration, weights, centres) if recipe.compensated else {}
    )
    return replace(task, heads=heads, features=inner, centres=centres, compensations=compensations)


def _some_values(twin: Twin, calibration: Calibration, names: Sequence[str]) -> dict[str, Tensor]:
    """What the dense network gives for some samples, of values that are of float type."""
    if not names:
        return {}
    found = values_of(twin, calibration.take(calibration.some(_SPREAD_SAMPLES)), names)
    return {name: value.float() for name, value in found.items() if value.is_floating_point()}
