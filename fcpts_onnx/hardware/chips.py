"""DEPLOY: the density of a layer below which further zeros save no time on a chip."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from fcpts_onnx.errors import TargetError
from fcpts_onnx.model import Model
from fcpts_onnx.weights import Weight, nodes_by_label

__all__ = [
    "CHIPS",
    "Convolution",
    "convolution_of",
    "target_densities",
    "target_density",
    "time_bound",
]

# What stands for a family of chips: how many lanes, and what each takes of outputs in a cycle.
_FAMILIES = {
    ("cv2", "cv2aq"): (1, 0.0234375),
    ("cv22", "cv22aq", "cv25", "cv25aq"): (2, 0.0234375),
    ("cv2fs", "cv22fs"): (2, 0.03515625),
}
_ENGINES = {chip: engine for chips, engine in _FAMILIES.items() for chip in chips}
CHIPS = tuple(_ENGINES)
_WEIGHTS, _INPUTS = 0.046875, 0.03125  # what each takes of weights and of inputs

_LONGEST = 11  # of a kernel, in places; longer ones are split
_WIDEST_DILATION = 5  # that the engine takes as it is

# What stands between a layer and the pooling that the engine takes along.
_BETWEEN = {"BatchNormalization", "Relu", "Clip", "LeakyRelu", "PRelu", "HardSwish", "Sigmoid"}
_POOLS = {"MaxPool", "AveragePool"}


@dataclass(frozen=True)
class Convolution:
    """What of a layer matters to the engine; a product of matrices is one of 1 x 1.

    Attributes:
        inputs, outputs: its channels.
        depthwise: whether each input channel has outputs of its own.
        kernel, strides, dilations: in height and width.
        pooling: the strides of a pooling right behind it.
    """

    inputs: int
    outputs: int
    depthwise: bool = False
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pooling: tuple[int, int] = (1, 1)


def target_density(layer: Convolution, chip: str) -> float:
    """The share of weights, 0 to 1, below which further zeros save memory but no time.

    With 8-bit weights, inputs and outputs. The engine skips zeros until the layer is bound by
    memory: an estimate from what is published of these chips (ModelTC/msbench, hardware analysis
    v1.6), with none at hand.

    Raises:
        TargetError: there is no such chip.
    """
    return min(1.0, time_bound(layer, chip))


def time_bound(layer: Convolution, chip: str) -> float:
    """As `target_density`, above 1 where a layer waits for memory even when it is dense.

    Raises:
        TargetError: there is no such chip.
    """
    if chip not in _ENGINES:
        raise TargetError(f"--hardware {chip} is unknown; expected {', '.join(CHIPS)}.")
    lanes, outputs = _ENGINES[chip]
    ratio = layer.inputs / layer.outputs
    (down, across), (pool_down, pool_across) = layer.strides, layer.pooling
    by_inputs = _INPUTS * ratio * down
    places = down * across * pool_down * pool_across
    by_outputs = outputs * ratio * places
    channels = layer.outputs / layer.inputs if layer.depthwise else layer.outputs
    height, width = (
        _least_piece(size, dilation)
        for size, dilation in zip(layer.kernel, layer.dilations, strict=True)
    )
    slowest = min(_WEIGHTS, by_inputs, by_outputs)
    return 1 / (lanes * slowest * height * width * channels)


def target_densities(model: Model, weights: Iterable[Weight], chip: str) -> dict[str, float]:
    """The target density of each weight whose layer the engine has.

    Raises:
        TargetError: there is no such chip.
    """
    nodes = nodes_by_label(model)
    return {
        weight.name: target_density(layer, chip)
        for weight in weights
        if (node := nodes.get(weight.nodes[0])) is not None
        and (layer := convolution_of(node, weight)) is not None
    }


def convolution_of(node: gs.Node, weight: Weight) -> Convolution | None:
    """The layer of a weight; None where it is no convolution in two directions, nor a product.

    A weight without values is none.
    """
    if not weight.count:
        return None
    if node.op in ("Gemm", "MatMul") and weight.channels and len(weight.shape) == 2:
        return Convolution(weight.count // weight.channels, weight.channels)
    stored_as_read = node.op == "Conv" and node.inputs[1].name == weight.value
    if not stored_as_read or len(weight.shape) != 4:
        return None
    outputs, inputs, height, width = weight.shape
    groups = node.attrs.get("group", 1)
    return Convolution(
        inputs * groups,
        outputs,
        groups > 1 and inputs == 1,
        (height, width),
        tuple(node.attrs.get("strides", (1, 1))),
        tuple(node.attrs.get("dilations", (1, 1))),
        _pooling_after(node),
    )


def _pooling_after(node: gs.Node) -> tuple[int, int]:
    for after in _chain(node):
        if after.op in _POOLS:
            strides = tuple(after.attrs.get("strides", (1, 1)))
            return (strides[0], strides[1]) if len(strides) == 2 else (1, 1)
        if after.op not in _BETWEEN:
            break
    return 1, 1


def _chain(node: gs.Node) -> Iterator[gs.Node]:
    """The nodes behind a node, as long as each is the only one that reads what is before it."""
    while len(node.outputs[0].outputs) == 1:
        node = node.outputs[0].outputs[0]
        yield node


def _least_piece(size: int, dilation: int) -> int:
    """How many places the smallest piece has that a kernel is split into, in one direction."""
    length = size + (size - 1) * (dilation - 1)
    if dilation <= _WIDEST_DILATION:
        return length % _LONGEST or _LONGEST
    if dilation + 1 > _LONGEST:
        return 1
    last = (length - 1) // (2 * dilation) * 2 * dilation  # where the last piece starts
    return min(dilation + 1, length - last)
