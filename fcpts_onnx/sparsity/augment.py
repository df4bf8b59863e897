"""LEARN: which random views of the images to learn from: what the dense network takes for such."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fcpts_onnx.calibration import Calibration
from fcpts_onnx.recipe import Recipe
from fcpts_onnx.sparsity.inputs import values_of
from fcpts_onnx.sparsity.losses import Head, class_scores
from fcpts_onnx.sparsity.precision import precision_of
from fcpts_onnx.sparsity.run import epochs_of, steps_of
from fcpts_onnx.team import Team
from fcpts_onnx.twin import Twin

__all__ = ["misleading_views", "with_usable_views"]

_LEAST_SAME = 0.75
"""The share of views that have to get the class of their image. Measured: a flip leaves 63 % of
digits in their class, and 92 to 99 % of objects; a shift leaves 63 % with a network that was
trained without, and 86 to 98 % with others."""

_MOST_APART = 0.1
"""How far values may move on average, in standard deviations, put in order of size. Measured on
detectors and classifiers: flips 0.00 to 0.04, shifts to 0.05; upside down 0.02 to 0.27, with the
brightness inverted 0.03 to 0.24, with noise to 2.5."""

_SAMPLES = 256
_PASSES = 4  # of a step: one through the dense network, one and its gradient (two) the sparse one
_BATCH = 64  # whose views are drawn, and values compared, together
_MOST_VALUES = 2**20


@torch.no_grad()
def misleading_views(
    twin: Twin, calibration: Calibration, kinds: Sequence[str], heads: Sequence[Head]
) -> dict[str, str]:
    """The kinds of view that show the network what images do not, each with the reason.

    With class scores, those that often get another class than their image. Other outputs, also
    embeddings with as many axes, move about with what an image shows: those whose values, all
    together, are distributed in another way. Nothing speaks against a view where there is
    nothing to compare. A mixture of two images shows neither of them; whatever the dense network
    sees there is right.

    Args:
        heads: how the outputs are to be met: by squared error they are no class scores.
    """
    generator = torch.Generator().manual_seed(0)
    same: dict[str, list[Tensor]] = {}
    apart: dict[str, float] = {}
    names = [head.name for head in heads]
    judged = [kind for kind in kinds if kind != "mix"]
    for chosen in calibration.some(_SAMPLES).split(_BATCH) if judged else ():
        plain = values_of(twin, calibration.take(chosen), names)
        for kind in judged:
            viewed = values_of(twin, calibration.views(chosen, [kind], generator), names)
            for head in heads:
                one, other = plain[head.name], viewed[head.name]
                before, after = class_scores(one), class_scores(other)
                if before is not None and after is not None and head.loss != "mse":
                    same.setdefault(kind, []).append(before.argmax(1) == after.argmax(1))
                else:
                    apart[kind] = max(apart.get(kind, 0.0), _moved(one, other))
        if not same:
            break  # one batch has values enough
    if same:
        shares = {kind: float(torch.cat(parts).float().mean()) for kind, parts in same.items()}
        return {
            kind: f"the dense network sees the same class in {share:.0%} only"
            for kind, share in shares.items()
            if share < _LEAST_SAME
        }
    return {
        kind: f"the dense network's outputs lie {far:.2f} standard deviations off"
        for kind, far in apart.items()
        if far > _MOST_APART
    }


def _moved(before: Tensor, after: Tensor) -> float:
    """The distance between two distributions of values, in standard deviations of the first.

    It is the mean between values of the same rank (Wasserstein's, of order 1).
    """
    if before.shape != after.shape or not before.is_floating_point() or not before.numel():
        return 0.0
    places = torch.arange(before.numel())
    if len(places) > _MOST_VALUES:  # at random: columns of an image are not alike
        generator = torch.Generator().manual_seed(0)
        places = torch.randint(len(places), (_MOST_VALUES,), generator=generator)
    places = places.to(before.device)
    first, second = (x.flatten()[places].float().sort().values for x in (before, after))
    far, spread = (first - second).abs().mean(), first.std(correction=0)
    if far == 0:
        return 0.0
    return float(far / spread) if far.isfinite() and spread > 0 else math.inf


def with_usable_views(
    recipe: Recipe,
    twin: Twin,
    calibration: Calibration,
    heads: Sequence[Head],
    seconds: float | None,
    team: Team,
    say: Callable[[str], None],
) -> Recipe:
    """The recipe with the random views that keep the meaning of an image, and pay.

    Args:
        seconds: how long to learn, instead of the recipe's epochs.
    """
    if not calibration.has_images:
        return replace(recipe, augment=())
    left_out = misleading_views(twin, calibration, recipe.augment, heads)
    if "mix" in recipe.augment and (least := recipe.epochs_to_mix):
        epochs = epochs_of(len(calibration), recipe)
        if seconds is not None:
            epochs *= seconds / _seconds_of(recipe, twin, calibration)
        epochs = team.from_first(epochs)  # times differ, and all have to do the same
        if epochs < least:
            left_out["mix"] = f"which pays from {least:g} epochs on; here are {epochs:.3g}"
    for kind, reason in left_out.items():
        say(f"Views: no {kind}, {reason}")
    return replace(recipe, augment=tuple(k for k in recipe.augment if k not in left_out))


@torch.no_grad()
def _seconds_of(recipe: Recipe, twin: Twin, calibration: Calibration) -> float:
    """How long a recipe takes, roughly: by the pace of one pass through the dense network."""
    batch = calibration.take(torch.arange(min(len(calibration), recipe.batch_size)))
    with precision_of(recipe, twin.device)():
        for _ in range(2):  # the first one may take memory, or wait for what is under way
            start = time.monotonic()
            next(iter(twin(batch).values())).sum().item()
    pace = _PASSES * (time.monotonic() - start)
    return steps_of(len(calibration), recipe) * pace
