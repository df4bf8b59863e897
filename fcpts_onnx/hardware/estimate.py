"""DEPLOY: what zeros may save on a chip, at best: time relative to the dense model, and memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import onnx
from onnx import TensorProto

from fcpts_onnx.errors import TargetError
from fcpts_onnx.hardware.chips import convolution_of, time_bound
from fcpts_onnx.model import Model, image_axes
from fcpts_onnx.results import Estimate
from fcpts_onnx.weights import Weight, nodes_by_label

__all__ = ["estimate", "layer_times"]

_SHARES = tuple(percent / 100 for percent in range(100))
_MOST_READ = 64  # values of a constant that says something of a shape


def estimate(
    model: Model,
    weights: Iterable[Weight],
    zeros: Mapping[str, int],
    chip: str,
    size: tuple[int, int] | None = None,
) -> Estimate | None:
    """What zeros may save on a chip, next to the dense model.

    A layer takes its products (multiplications with weights) times the share of weights that are
    not zero, but no less than `time_bound`, below which it waits for memory. Weights are 8 bits
    and, where zeros are skipped, a bit each for where they are. Nothing is known here of what else
    takes time: it is a bound from below. Against Table 7 of the paper (CV22) ResNet-18 with 50, 60
    and 70 % zeros is estimated at 0.50, 0.40 and 0.30 of the dense model's time, where 0.59, 0.51
    and 0.42 were measured; MobileNetV2 at 0.64, 0.58 and 0.52, where 0.84, 0.83 and 0.79 were.

    Args:
        zeros: by weight.
        size: height and width of images, where the graph leaves them open.

    Returns:
        None where the graph does not say how large the layers' outputs are.

    Raises:
        TargetError: there is no such chip.
    """
    taken = dense = 0.0
    bits = count = known = total = 0
    for weight, uses in _uses(model, weights, chip, size):
        if uses is None:
            return None
        kept = weight.count - zeros.get(weight.name, 0)
        taken += _time(uses, kept / weight.count)
        dense += _time(uses, 1.0)
        bits += min(8 * weight.count, 8 * kept + weight.count)
        count, known, total = count + weight.count, known + bool(uses), total + 1
    return (
        Estimate(chip, taken / dense, math.ceil(bits / 8), count, known, total) if dense else None
    )


def layer_times(
    model: Model, weights: Iterable[Weight], chip: str, size: tuple[int, int] | None = None
) -> dict[str, dict[float, float]]:
    """By weight, what its layers take on a chip by share of zeros, as `estimate` has it.

    The unit is a product (a multiplication with a weight) of one sample.

    Args:
        size: height and width of images, where the graph leaves them open.

    Raises:
        TargetError: there is no such chip, or the graph does not say how large outputs are.
    """
    found = {}
    for weight, uses in _uses(model, weights, chip, size):
        if uses is None:
            raise TargetError(
                f"{model.path}: does not say how large the outputs of {weight.nodes[0]} are, "
                f"which the time on {chip} depends on. Give --size, or fix the sizes of its inputs."
            )
        if uses:
            found[weight.name] = {share: _time(uses, 1 - share) for share in _SHARES}
    return found


_Uses = list[tuple[float, float]]
"""For each layer that reads a weight: its products a sample, and its `time_bound`."""


def _uses(
    model: Model, weights: Iterable[Weight], chip: str, size: tuple[int, int] | None
) -> Iterator[tuple[Weight, _Uses | None]]:
    """How weights with values are used by layers that the chip has; None where sizes are open."""
    nodes = nodes_by_label(model)
    batch = _batch(model)
    shapes = _shapes(model, batch, size)
    for weight in (weight for weight in weights if weight.count):
        users = [nodes[name] for name in weight.nodes if name in nodes]
        layers = [(node, convolution_of(node, weight)) for node in users]
        uses = [
            (
                _places(shapes.get(node.outputs[0].name), layer.outputs, batch),
                time_bound(layer, chip),
            )
            for node, layer in layers
            if layer is not None
        ]
        known = [(places * weight.count, bound) for places, bound in uses if places is not None]
        yield weight, known if len(known) == len(uses) else None


def _time(uses: _Uses, density: float) -> float:
    return sum(products * max(density, bound) for products, bound in uses)


def _places(shape: list[int] | None, channels: int, batch: int) -> float | None:
    """How often a layer's weights are used for one sample; None where that is open.

    By the values of its output, wherever their channels are, and samples folded into other axes.
    """
    return math.prod(shape) / channels / batch if shape and all(shape) else None


def _batch(model: Model) -> int:
    """How many samples shapes are of: one, where the graph leaves that open."""
    sizes = (spec.shape[0] for spec in model.inputs if spec.shape)
    return next((size for size in sizes if size), 1)


def _shapes(model: Model, batch: int, size: tuple[int, int] | None) -> dict[str, list[int]]:
    """Shapes by value, as far as ONNX infers them; 0 for a length that is open."""
    proto = model.inlined().proto
    bare = onnx.ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import)
    for field in ("node", "input", "output", "value_info"):
        getattr(bare.graph, field).extend(getattr(proto.graph, field))
    for tensor in proto.graph.initializer:
        # Shapes, axes and scales are read; weights may be gigabytes.
        small = math.prod(tensor.dims) <= _MOST_READ
        bare.graph.initializer.append(
            tensor
            if small
            else TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        )
    stored = {tensor.name for tensor in bare.graph.initializer}  # may be listed as inputs too
    inputs = [value for value in bare.graph.input if value.name not in stored]
    for value in (*inputs, *bare.graph.output, *bare.graph.value_info):
        _open(value)
    for value in inputs:
        lengths = value.type.tensor_type.shape.dim
        places = image_axes([dim.dim_value for dim in lengths])
        for place, length in ((0, batch), *zip(places, size or (), strict=False)):
            if place < len(lengths):
                lengths[place].dim_value = lengths[place].dim_value or length
    try:
        graph = onnx.shape_inference.infer_shapes(bare, data_prop=True).graph
    except onnx.shape_inference.InferenceError:  # the file states types that contradict each other
        return {}
    return dict(_found(graph, batch))


def _open(value: onnx.ValueInfoProto) -> None:
    """Leave lengths open that the file states as -1 or 0, as some exporters write open ones."""
    for dim in value.type.tensor_type.shape.dim:
        if dim.HasField("dim_value") and dim.dim_value <= 0:
            dim.Clear()


def _found(graph: onnx.GraphProto, batch: int) -> Iterator[tuple[str, list[int]]]:
    """Shapes by value; the first axis is of samples, but for matrices inside, which fold more."""
    outputs = {value.name for value in graph.output}
    for value in (*graph.value_info, *graph.input, *graph.output):
        shape = value.type.tensor_type
        if shape.HasField("shape"):
            lengths = [dim.dim_value for dim in shape.shape.dim]
            if len(lengths) > 2 or (lengths and value.name in outputs):
                lengths[0] = lengths[0] or batch
            yield value.name, lengths
