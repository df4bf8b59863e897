"""LEARN: reconstruction losses, Eq. 4 and its kin for outputs that are not class scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "LOSSES",
    "Head",
    "Loss",
    "as_float",
    "class_scores",
    "find_heads",
    "kl_divergence",
    "kl_divergences",
    "log_probabilities",
    "reconstruction_loss",
    "relative_to",
    "variances",
]

Loss = Literal["kl", "bce", "mse"]
LOSSES: tuple[Loss, ...] = ("kl", "bce", "mse")

_SMALLEST_PROBABILITY = 1e-12
_BOX = 4
_LEAST_SPREAD = 1e-8  # of the mean square: less is rounding
_LEAST_OF_SHARES = 0.1


@dataclass(frozen=True)
class Head:
    """How one output of the dense network is to be met.

    Attributes:
        name: the output, or the value before it that gradients reach.
        loss: "kl" between distributions over classes; "bce", one between distributions of yes
            and no at each place; "mse", the squared error relative to the dense output's variance.
        axis: of the classes; "kl" only.
        probabilities: whether the values are probabilities, not what goes into a softmax or
            sigmoid.
        spread: the variance that "mse" is relative to, or that of each channel (see `variances`);
            of each batch as a whole if None.
        weight: what the loss is multiplied with in the sum.
    """

    name: str
    loss: Loss
    axis: int = 1
    probabilities: bool = False
    spread: tuple[float, ...] | None = None
    weight: float = 1.0

    def describe(self) -> str:
        """The head in a few words."""
        if self.loss == "mse":
            whose = "each channel's" if len(self.spread or ()) > 1 else "its"
            return f"{self.name}: squared error, relative to {whose} variance (mse)"
        of = "probabilities" if self.probabilities else "scores"
        place = f" along axis {self.axis}" if self.loss == "kl" else ""
        return f"{self.name}: divergence of {of}{place} ({self.loss})"


def find_heads(
    outputs: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    chosen: Mapping[str, Loss] | None = None,
) -> tuple[Head, ...]:
    """Choose a loss for each output by what the dense network gives on some samples.

    Class scores, (batch, classes) with any number of axes of size 1 behind, or a softmax along
    any axis: KL. Class scores of each anchor, (batch, anchors, classes), beside boxes of the same
    anchors: KL along the last axis, unless others of these anchors are probabilities already, as
    where landmarks are given too. Values between 0 and 1, as sigmoids give: bce.
    Anything else, also one number an anchor, what has the shape of an input (autoencoders) and
    what has length 1 (embeddings): mse.

    Args:
        outputs, inputs: of float type and not empty are what heads are made of, samples along
            axis 0.
        chosen: losses by output, instead of what would be chosen.
    """
    by_anchor = [x for x in outputs.values() if x.ndim == 3 and x.is_floating_point() and x.numel()]
    anchors = {x.shape[:2] for x in by_anchor if x.shape[2] == _BOX}
    anchors -= {x.shape[:2] for x in by_anchor if x.shape[2] != _BOX and _are_shares(x)}
    # What has such a shape is no class scores: an input again, or a number for each anchor.
    shapes = {x.shape for x in inputs.values()}
    shapes |= {x.shape[:2] for x in outputs.values() if x.ndim == 3}
    heads = []
    for name, values in outputs.items():
        if values.is_floating_point() and values.numel():
            head = _head(name, values.float(), values.shape in shapes, anchors)
            loss = (chosen or {}).get(name, head.loss)
            heads.append(head if loss == head.loss else _as_asked(name, values.float(), loss))
    return tuple(heads)


def class_scores(output: Tensor) -> Tensor | None:
    """An output as class scores (batch, classes), or None if it is not one score a class.

    Scores may be 8-bit integers, as quantised networks give them. Axes of size 1 behind the
    classes are dropped: (batch, classes, 1, 1) is what networks without a fully connected layer
    give.
    """
    output = as_float(output)
    if output.ndim < 2 or not output.is_floating_point():
        return None
    if output.shape[1] < 2 or output.shape[2:].numel() != 1:
        return None
    return output.flatten(1)


def as_float(output: Tensor) -> Tensor:
    """An output of 8-bit integers, which quantised networks give, in float; others as they are."""
    return output.float() if output.dtype in (torch.int8, torch.uint8) else output


def kl_divergence(dense: Tensor, sparse: Tensor, head: Head, temperature: float = 1.0) -> Tensor:
    """KL(dense || sparse), Eq. 4, in nats, averaged over all places but the classes.

    With a temperature both distributions are softened (Hinton et al. 2015).

    Args:
        dense, sparse: of one shape, classes along the head's axis.
    """
    return kl_divergences(dense, sparse, head, temperature).mean()


def kl_divergences(dense: Tensor, sparse: Tensor, head: Head, temperature: float = 1.0) -> Tensor:
    """As `kl_divergence`, at each place."""
    target = log_probabilities(dense, head, temperature)
    found = log_probabilities(sparse, head, temperature)
    return (target.exp() * (target - found)).sum(head.axis)


def log_probabilities(values: Tensor, head: Head, temperature: float = 1.0) -> Tensor:
    """log softmax(values / T); of probabilities, of what went into the softmax."""
    if head.probabilities:
        values = values.clamp_min(_SMALLEST_PROBABILITY).log()
    return F.log_softmax(values / temperature, head.axis)


def reconstruction_loss(
    dense: Mapping[str, Tensor],
    sparse: Mapping[str, Tensor],
    heads: Sequence[Head],
    temperature: float = 1.0,
) -> Tensor:
    """L_rec: how far the sparse network is from the dense one, summed over heads.

    Divergences at a temperature count times its square, which keeps the gradient's size (Hinton
    et al. 2015).
    """
    parts = []
    for head in heads:
        target, found = dense[head.name].float(), sparse[head.name].float()
        parts.append(head.weight * _LOSSES[head.loss](target, found, head, temperature))
    return torch.stack(parts).sum()


def variances(values: Tensor) -> tuple[float, ...]:
    """What squared errors of an output are relative to: of more than two axes, one a channel.

    Detectors give boxes in pixels and scores between 0 and 1 side by side; relative to one
    variance, scores count for nothing. Channels of shares count relative to at least a tenth of
    the mean variance of such: classes that no sample shows say nothing but noise.
    """
    values = values.float()
    if values.ndim < 3:
        return (float(values.var(correction=0)),)
    rows = values.movedim(_channels(values), 0).flatten(1)
    found, shares = rows.var(1, correction=0), (rows.amin(1) >= 0) & (rows.amax(1) <= 1)
    if shares.any():
        least = _LEAST_OF_SHARES * found[shares].mean()
        found = torch.where(shares, found.clamp_min(least), found)
    return tuple(found.tolist())


def relative_to(dense: Tensor, head: Head) -> Tensor:
    """The variances of a head, in a shape that divides its values; never zero.

    What does not vary counts relative to its size, and what is all zero as it is.
    """
    spread = head.spread or ()
    if len(spread) < 2:
        variance = dense.new_full((), spread[0]) if spread else dense.var(correction=0)
        size = dense.square().mean()
    else:
        channels = _channels(dense)
        others = [axis for axis in range(dense.ndim) if axis != channels]
        size = dense.square().mean(others, keepdim=True)
        variance = dense.new_tensor(spread).reshape(size.shape)
    variance = torch.where(variance > _LEAST_SPREAD * size, variance, size)
    return torch.where(variance > 0, variance, 1.0)


def _channels(values: Tensor) -> int:
    """The axis of classes and the like: 1, or behind anchors, which are more than these, 2."""
    return 2 if values.ndim == 3 and values.shape[2] < values.shape[1] else 1


def _head(name: str, values: Tensor, is_other: bool, anchors: set[torch.Size]) -> Head:
    for axis in range(1, values.ndim):
        if _are_distributions(values, axis):
            return Head(name, "kl", axis, probabilities=True)
    if values.ndim < 2 or is_other or _are_unit_vectors(values):
        return Head(name, "mse")
    if _are_shares(values):
        return Head(name, "bce", probabilities=True)
    if class_scores(values) is not None:
        return Head(name, "kl")
    are_classes = values.ndim == 3 and values.shape[2] not in (1, _BOX)
    if are_classes and values.shape[:2] in anchors:
        return Head(name, "kl", axis=2)
    return Head(name, "mse")


def _as_asked(name: str, values: Tensor, loss: Loss) -> Head:
    """A head with the loss that the user wants."""
    axis = 2 if values.ndim == 3 and values.shape[2] > 1 else 1
    within = bool(values.min() >= 0) and bool(values.max() <= 1)
    return Head(name, loss, axis, probabilities=loss == "bce" and within)


def _are_shares(values: Tensor) -> bool:
    return bool(values.min() >= 0 and values.max() <= 1 and values.min() < values.max())


def _are_distributions(values: Tensor, axis: int) -> bool:
    if values.shape[axis] < 2 or bool((values < 0).any()):
        return False
    return bool((values.sum(axis) - 1).abs().max() < 1e-3)


def _are_unit_vectors(values: Tensor) -> bool:
    lengths = values.flatten(1).norm(dim=1)
    return bool((lengths - 1).abs().max() < 1e-3)


def _kl(dense: Tensor, sparse: Tensor, head: Head, temperature: float) -> Tensor:
    return kl_divergence(dense, sparse, head, temperature) * temperature**2


def _bce(dense: Tensor, sparse: Tensor, head: Head, temperature: float) -> Tensor:
    """KL between the distributions of yes and no at each place.

    It is summed over classes and averaged over all else, as the divergence of distributions is:
    summed over thousands of anchors, it would leave nothing to what lies beside it.
    """
    if head.probabilities:
        dense, sparse = (torch.logit(x, eps=1e-6) for x in (dense, sparse))
    target = torch.sigmoid(dense / temperature)
    least = F.binary_cross_entropy(target, target, reduction="sum")
    found = F.binary_cross_entropy_with_logits(sparse / temperature, target, reduction="sum")
    classes = dense.shape[_channels(dense)] if dense.ndim > 1 else 1
    return (found - least) * (classes / dense.numel()) * temperature**2


def _mse(dense: Tensor, sparse: Tensor, head: Head, temperature: float) -> Tensor:
    del temperature
    variance = relative_to(dense, head)
    if variance.ndim == 0:
        return F.mse_loss(sparse, dense) / variance
    return ((sparse - dense).square() / variance).mean()


_LOSSES: dict[Loss, Callable[[Tensor, Tensor, Head, float], Tensor]] = {
    "kl": _kl,
    "bce": _bce,
    "mse": _mse,
}
