"""LEARN: layer after layer, each from the inputs it gets in the sparse network."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from fcpts_onnx.checkpoint import NO_CHECKPOINT, Checkpoint
from fcpts_onnx.errors import UnsupportedError
from fcpts_onnx.packing import moved
from fcpts_onnx.results import Progress, silent
from fcpts_onnx.sparsity.mask import apply_mask
from fcpts_onnx.sparsity.reconstruct import Learned
from fcpts_onnx.sparsity.task import Task
from fcpts_onnx.twin import Twin
from fcpts_onnx.twin.layers import Layer, layers
from fcpts_onnx.weights import Weight

__all__ = ["Moments", "Rule", "Sparse", "layer_by_layer", "layers_to_prune"]

_SAMPLES = 2048
_FEWEST = 2  # places for each input of a layer: where the samples have fewer, more are taken,
_PLACES = 20  # until there are so many
_MOST_KEPT = 2**30  # bytes, of what the layers before have made of the samples


@dataclass(frozen=True)
class Moments:
    """Means over the places of a layer, of its inputs X in the sparse network and dense Y = X' W.

    Attributes:
        gram: of X^T X, (groups, inputs, inputs).
        cross: of X^T Y, (groups, inputs, output channels).
        inputs: of X, (groups, inputs).
        outputs: of Y, (groups, output channels).
        energy: of |Y|^2, over all channels.
        has_bias: whether the layer has a bias of its own, which may move.
    """

    gram: Tensor
    cross: Tensor
    inputs: Tensor
    outputs: Tensor
    energy: float
    has_bias: bool

    def centred(self) -> tuple[Tensor, Tensor]:
        """`gram` and `cross` as they are to the weights where the bias is free."""
        if not self.has_bias:
            return self.gram, self.cross
        gram = self.gram - _outer(self.inputs, self.inputs)
        return gram, self.cross - _outer(self.inputs, self.outputs)

    def best_shift(self, rows: Tensor) -> Tensor | None:
        """What is best added to the bias with some rows, if it may move."""
        if not self.has_bias:
            return None
        return self.outputs - (rows @ self.inputs[:, :, None]).squeeze(-1)

    def error(self, rows: Tensor, shift: Tensor | None) -> float:
        """|X W + shift - Y|^2 relative to |Y|^2."""
        square = ((rows @ self.gram) * rows).sum() - 2 * (rows.mT * self.cross).sum()
        if shift is not None:
            mean = (rows @ self.inputs[:, :, None]).squeeze(-1) - self.outputs
            square = square + (shift * (shift + 2 * mean)).sum()
        return float(square + self.energy) / (self.energy or 1.0)


@dataclass(frozen=True)
class Sparse:
    """What a rule makes of a layer.

    Attributes:
        rows: the values, (groups, output channels, inputs).
        mask: 1 where they are kept, of the same shape.
        shift: what the bias moves by, (groups, output channels); None where it stays.
    """

    rows: Tensor
    mask: Tensor
    shift: Tensor | None = None


Rule = Callable[[Tensor, Moments, int], Sparse]
"""Rows of a dense weight (groups, output channels, inputs), moments, and how many zeros to make."""


def layer_by_layer(
    task: Task,
    rule: Rule,
    *,
    report: Callable[[Progress], None] = silent,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> Learned:
    """Make one layer sparse after the other, in the order of the graph.

    Args:
        checkpoint: what an interrupted run goes on from, and is kept in.

    Raises:
        UnsupportedError: as `layers_to_prune`, or the network runs elsewhere than in torch.
    """
    twin, counts = _twin(task), task.zeros
    assert counts is not None, "layer by layer, zeros have to be shared out before"
    found = layers_to_prune(twin, task.weights)
    changed: dict[str, Tensor] = {}
    history: list[Progress] = []
    if checkpoint.found is not None:
        changed = moved(checkpoint.found["changed"], task.device)
        history = [Progress(**entry) for entry in checkpoint.found["history"]]
    spent = history[-1].seconds if history else 0.0
    rates = dict(history[-1].rates) if history else dict.fromkeys(counts, 0.0)
    start = time.monotonic() - spent
    passes = _Passes(task, twin)
    whole = sum(weight.count for weight in task.weights)
    for step, (name, layer) in list(enumerate(found.items(), 1))[len(history) :]:
        dense = twin.learned[layer.weight.value].detach()
        moments = _moments(passes, layer, dense, changed)
        sparse = rule(layer.rows(dense).double(), moments, counts[name])
        rows = apply_mask(sparse.mask, sparse.rows.to(dense.dtype))
        changed[layer.weight.value] = layer.stored(rows)
        if sparse.shift is not None and layer.bias is not None:
            bias = twin.learned[layer.bias].detach()
            changed[layer.bias] = bias + sparse.shift.reshape(bias.shape).to(bias.dtype)
        rates[name] = counts[name] / layer.weight.count
        sparsity = sum(rates[weight.name] * weight.count for weight in task.weights) / whole
        seconds = time.monotonic() - start
        error = moments.error(rows.double(), sparse.shift)
        history.append(Progress(step, len(found), error, sparsity, seconds, dict(rates)))
        report(history[-1])
        checkpoint.keep(partial(_stored, changed, history))
    checkpoint.keep_last(partial(_stored, changed, history))
    return Learned({name: value.cpu() for name, value in changed.items()}, tuple(history))


def layers_to_prune(twin: Twin, weights: Sequence[Weight]) -> dict[str, Layer]:
    """The layers of weights, by weight, in the order of the graph.

    Raises:
        UnsupportedError: a weight is read by more than one layer, not as it is stored or a stack of
            matrices.
    """
    found = layers(twin.steps, weights, twin.learned)
    bad = [w.name for w in weights if w.name not in found or w.grid is not None]
    if bad:
        raise UnsupportedError(
            f"Layer by layer cannot take {', '.join(bad)}: used by several nodes, stored as "
            "integers, changed before use, or a stack of matrices. Exclude them, or reconstruct "
            "netwise."
        )
    return found


def _stored(changed: Mapping[str, Tensor], history: Sequence[Progress]) -> dict[str, Any]:
    return {"changed": changed, "history": [asdict(entry) for entry in history]}


def _twin(task: Task) -> Twin:
    if not isinstance(task.network, Twin):
        raise UnsupportedError("Layer by layer needs the inputs of layers: use --engine torch.")
    return task.network


class _Passes:
    """What both networks have made of each batch before some step, as far as it is kept.

    All layers before that step are done: nothing of it changes any more. Where it would take too
    much memory, what was kept before stays, and is gone on from each time.
    """

    def __init__(self, task: Task, twin: Twin) -> None:
        self._task, self._twin = task, twin
        generator = torch.Generator().manual_seed(task.seed)
        drawn = torch.randperm(len(task.calibration), generator=generator)
        size = 1 if twin.per_sample else task.recipe.batch_size
        self._batches = drawn[:_SAMPLES].split(size)
        self._more = drawn[_SAMPLES:].split(size) if len(drawn) > _SAMPLES else ()
        self._place = 0
        self._kept: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def until(self, layer: Layer, changed: Mapping[str, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """What a layer reads in the dense network and in the sparse one, by batch."""
        part, kept = slice(self._place, layer.place), []
        for index, batch in enumerate(self._batches):
            dense, sparse = self._kept[index] if self._kept else self._begun(batch)
            before = self._twin.through(dense, part)
            after = self._twin.through(sparse, part, changed)
            if _bytes(before, after) * len(self._batches) <= _MOST_KEPT:
                kept.append((before, after))
            yield self._read(layer, before, after, changed)
        if len(kept) == len(self._batches):
            self._place, self._kept = layer.place, kept

    def beyond(
        self, layer: Layer, changed: Mapping[str, Tensor], places: Callable[[], float]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The same of other samples, each from the beginning, where those had too few places.

        Args:
            places: how many there are until now for each input of the layer.
        """
        part = slice(0, layer.place)
        for batch in self._more if places() < _FEWEST else ():
            if places() >= _PLACES:
                return
            dense, sparse = self._begun(batch)
            before = self._twin.through(dense, part)
            yield self._read(layer, before, self._twin.through(sparse, part, changed), changed)

    def _begun(self, batch: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the dense and the sparse network begin with."""
        inputs = self._twin.begun(self._task.calibration.take(batch))
        return inputs, inputs

    def _read(
        self,
        layer: Layer,
        before: dict[str, Any],
        after: dict[str, Any],
        changed: Mapping[str, Tensor],
    ) -> tuple[Tensor, Tensor]:
        return self._twin.known(before)[layer.data], self._twin.known(after, changed)[layer.data]


def _bytes(*made: Mapping[str, Any]) -> int:
    """What the values take that networks have made; what they share counts for each."""
    values = (value for by_name in made for value in by_name.values())
    return sum(value.untyped_storage().nbytes() for value in values if isinstance(value, Tensor))


@torch.no_grad()
def _moments(
    passes: _Passes, layer: Layer, dense: Tensor, changed: Mapping[str, Tensor]
) -> Moments:
    """Over the samples, summed about means of the first batch: less is rounded away so.

    A wide layer that reads one vector a sample, as a classifier, takes more samples than others:
    least squares of as many places as inputs would fit those alone.
    """
    sums: list[Tensor] = []
    points: list[Tensor] = []
    places = 0
    beyond = passes.beyond(layer, changed, lambda: places / sums[0].shape[-1])
    for before, after in chain(passes.until(layer, changed), beyond):
        x, y = layer.matrix(after), layer.times(before, dense)
        points = points or [x.mean(1, keepdim=True), y.mean(1, keepdim=True)]
        x, y = x - points[0], y - points[1]
        parts = [x.mT @ x, x.mT @ y, x.sum(1), y.sum(1), y.square().sum()]
        sums = [
            part.double() if not sums else total + part
            for part, total in zip(parts, sums or parts, strict=True)
        ]
        places += x.shape[1]
    gram, cross, x, y, energy = (total / places for total in sums)
    inputs, outputs = (
        mean + point.squeeze(1).double() for mean, point in zip((x, y), points, strict=True)
    )
    return Moments(
        gram + _outer(inputs, inputs) - _outer(x, x),
        cross + _outer(inputs, outputs) - _outer(x, y),
        inputs,
        outputs,
        float(energy + outputs.square().sum() - y.square().sum()),
        layer.bias is not None,
    )


def _outer(left: Tensor, right: Tensor) -> Tensor:
    return left[:, :, None] * right[:, None]
