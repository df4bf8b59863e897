"""Small random networks, for properties that have to hold for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests import networks

Array = np.ndarray[Any, Any]

_CASTS = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float64": np.float64,
}
_GRIDS = {
    "int8": (np.int8, 0, False),
    "int8 by channel": (np.int8, 0, True),
    "uint8": (np.uint8, 131, False),
    "uint8 from zero": (np.uint8, 0, False),
}
_AS_IT_IS = ("raw", "raw", "raw", "values", "Identity", "Transpose", "Constant")
_ACTIVATIONS: tuple[tuple[str, dict[str, float]], ...] = (
    ("Relu", {}), ("LeakyRelu", {"alpha": 0.1}), ("Sigmoid", {}), ("Identity", {}),
)  # fmt: skip


@dataclass(frozen=True)
class Network:
    """A random network and what is known of it.

    Attributes:
        weights: the names under which its weights are stored, all of which can be pruned.
        data: samples of its input, "x".
    """

    proto: onnx.ModelProto
    weights: frozenset[str]
    data: Array = field(repr=False)


@st.composite
def random_networks(
    draw: Callable[..., Any], *, plain: bool = False, whole_numbers: bool = True
) -> Network:
    """Up to three stages on images and up to two on vectors, or only one of both kinds.

    Args:
        plain: each weight is read once, as it is stored, as the second input of its node.
        whole_numbers: weights may be stored as such behind DequantizeLinear.
    """
    half = draw(st.integers(0, 5)) == 0
    ways = ["raw", "values"] if plain else [*_AS_IT_IS]
    if not plain and not half:
        ways += [*_CASTS, *(_GRIDS if whole_numbers else ())]
    maker = _Maker(draw, ways, plain)
    stages = draw(st.integers(0, 3))
    shape = [draw(st.integers(1, 4)), *[draw(st.sampled_from([4, 5, 6]))] * 2]
    current = maker.images("x", shape, stages) if stages else None
    if current is None or draw(st.integers(0, 3)):
        value, features = maker.flat(*current) if current else ("x", draw(st.integers(2, 12)))
        shape = shape if current else [features]
        current = maker.vectors(value, features, draw(st.integers(1, 2)))
    last, form = current
    end = draw(st.sampled_from(["Identity", "Softmax", "Sigmoid"]))
    maker.node(end, last, output="y", **({"axis": 1} if end == "Softmax" else {}))
    batch = 1 if draw(st.integers(0, 9)) == 0 else "N"
    proto = networks.make(
        maker.nodes, maker.constants, {"x": [batch, *shape]}, {"y": [batch, *form]}
    )
    for name in maker.as_values:
        _store_as_values(proto, name)
    data = maker.random.normal(size=(draw(st.integers(5, 20)), *shape)).astype(np.float32)
    if half:
        return Network(networks.in_half(proto), frozenset(maker.weights), data.astype(np.float16))
    return Network(proto, frozenset(maker.weights), data)


class _Maker:
    """A network in the making: each method adds a piece and returns what it gives, and its shape.

    Args:
        draw: of hypothesis.
        ways: to store a weight.
        plain: as of `random_networks`.
    """

    def __init__(self, draw: Callable[..., Any], ways: Sequence[str], plain: bool) -> None:
        self._draw, self._ways, self._plain = draw, ways, plain
        self.random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        self.weights: set[str] = set()
        self.as_values: list[str] = []

    def images(self, value: str, shape: list[int], stages: int) -> tuple[str, list[int]]:
        """Stages on images; shape is [channels, height, width]."""
        kinds = [self._conv, self._depthwise, self._skip, self._concat, self._up]
        kinds += [] if self._plain else [self._shared]
        first = self._draw(st.sampled_from([self._conv, self._up]))
        for stage in range(stages):
            kind = self._draw(st.sampled_from(kinds)) if stage else first
            value, shape = kind(value, shape)
            value = self._activated(self._normed(value, shape[0]))
            if shape[1] > 3 and self._some():
                op = self._draw(st.sampled_from(["MaxPool", "AveragePool"]))
                value = self.node(op, value, kernel_shape=[2, 2], strides=[2, 2])
                shape = [shape[0], shape[1] // 2, shape[2] // 2]
        return value, shape

    def flat(self, value: str, shape: list[int]) -> tuple[str, int]:
        """An image as a vector."""
        way = self._draw(st.sampled_from(["Flatten", "Reshape", "GlobalAveragePool"]))
        if way == "Reshape":
            form = self.constant(np.array([0, -1], np.int64))
            return self.node("Reshape", value, form), int(np.prod(shape))
        if way == "Flatten":
            return self.node("Flatten", value), int(np.prod(shape))
        return self.node("Flatten", self.node("GlobalAveragePool", value)), shape[0]

    def vectors(self, value: str, features: int, stages: int) -> tuple[str, list[int]]:
        """Stages on vectors."""
        kinds = [self._gemm, self._matmul]
        if not self._plain:
            kinds += [self._gemm_from_the_left, self._stack, self._twice, self._tied]
        for stage in range(stages):
            value, features = self._draw(st.sampled_from(kinds))(value, features)
            value = self._activated(value) if stage < stages - 1 else value
        return value, [features]

    def node(self, op: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node and name its output."""
        output = output or f"{op}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], f"node.{output}", **attributes))
        return output

    def constant(self, array: Array) -> str:
        """Add an initializer and name it."""
        name = f"constant.{len(self.constants)}"
        self.constants[name] = array
        return name

    def _weight(self, *shape: int) -> str:
        """A weight of this shape as a node reads it; it may be stored in another way."""
        array, way = self._values(shape), self._draw(st.sampled_from(self._ways))
        name = f"w{len(self.weights)}"
        self.weights.add(name)
        if way in _CASTS:
            self.constants[name] = array.astype(_CASTS[way])
            return self.node("Cast", name, to=TensorProto.FLOAT)
        if way in _GRIDS:
            return self._dequantised(name, array, *_GRIDS[way])
        if way == "Constant":
            tensor = numpy_helper.from_array(array, name)
            return self.node("Constant", output=name, value=tensor)
        if way == "Transpose":
            self.constants[name] = np.ascontiguousarray(array.T)
            return self.node("Transpose", name)
        self.constants[name] = array
        if way == "values":
            self.as_values.append(name)
        return self.node("Identity", name) if way == "Identity" else name

    def _dequantised(self, name: str, array: Array, kind: Any, point: int, by_channel: bool) -> str:
        count = len(array) if by_channel else 1
        scale = np.maximum(np.abs(array.reshape(count, -1)).max(1), 1e-3) / 100
        steps = np.round(array / scale.reshape(-1, *[1] * (array.ndim - 1))) + point
        info = np.iinfo(kind)
        self.constants[name] = steps.clip(info.min, info.max).astype(kind)
        scale = scale.astype(np.float32) if by_channel else np.float32(scale[0])
        points = [self.constant(np.array(point, kind))] if point or not by_channel else []
        inputs = [name, self.constant(np.asarray(scale)), *points]
        return self.node("DequantizeLinear", *inputs, axis=0)

    def _values(self, shape: tuple[int, ...]) -> Array:
        """What a weight may be: with ties, zeros (of either sign), all of one size, tiny, ..."""
        way = self._draw(st.sampled_from(["normal", "ties", "one", "zeros", "empty", "wide"]))
        drawn = self.random.normal(size=shape) / np.sqrt(max(1, np.prod(shape[1:])))
        if way == "ties":
            drawn = self.random.choice([-0.25, 0.0, 0.125, 0.25], shape)
        elif way == "one":
            drawn = np.full(shape, 0.25)
            drawn[1::2] = -0.25  # the same filter in each channel would be no weight
        elif way == "zeros":
            drawn *= self.random.random(shape) < 0.5  # those below zero become -0.0
        elif way == "empty":
            drawn = np.zeros(shape)
        elif way == "wide":
            drawn *= 10 ** self.random.uniform(-6, 0, shape)
        return drawn.astype(np.float32)

    def _some(self) -> bool:
        return bool(self._draw(st.booleans()))

    def _activated(self, value: str) -> str:
        op, attributes = self._draw(st.sampled_from(_ACTIVATIONS))
        return self.node(op, value, **attributes)

    def _normed(self, value: str, channels: int) -> str:
        if self._some():
            return value
        scale = self.random.normal(size=channels)
        scale[self.random.random(channels) < 0.1] = 0.0  # some are switched off
        shift, mean = self.random.normal(size=(2, channels)) * 0.1
        variance = self.random.random(channels) + 0.1
        parts = [self.constant(p.astype(np.float32)) for p in (scale, shift, mean, variance)]
        return self.node("BatchNormalization", value, *parts)

    def _bias(self, length: int) -> list[str]:
        values = self.random.normal(size=length).astype(np.float32) * 0.1
        return [self.constant(values)] if self._some() else []

    def _conv(self, value: str, shape: list[int]) -> tuple[str, list[int]]:
        groups = 2 if shape[0] % 2 == 0 and self._some() else 1
        outputs = groups * self._draw(st.sampled_from([1, 2, 3, 5, 8]))
        kernel, stride = self._draw(st.sampled_from([(1, 1), (1, 2), (3, 1), (3, 2)]))
        weight = self._weight(outputs, shape[0] // groups, kernel, kernel)
        options = {"group": groups, "pads": [kernel // 2] * 4, "strides": [stride] * 2}
        result = self.node("Conv", value, weight, *self._bias(outputs), **options)
        return result, [outputs, *(-(-size // stride) for size in shape[1:])]

    def _depthwise(self, value: str, shape: list[int]) -> tuple[str, list[int]]:
        inputs = [self._weight(shape[0], 1, 3, 3), *self._bias(shape[0])]
        return self.node("Conv", value, *inputs, group=shape[0], pads=[1] * 4), shape

    def _up(self, value: str, shape: list[int]) -> tuple[str, list[int]]:
        groups = 2 if shape[0] % 2 == 0 and not self._plain and self._some() else 1
        outputs = self._draw(st.integers(1, 5))
        inputs = [self._weight(shape[0], outputs, 2, 2), *self._bias(groups * outputs)]
        result = self.node("ConvTranspose", value, *inputs, group=groups, strides=[2, 2])
        return result, [groups * outputs, 2 * shape[1], 2 * shape[2]]

    def _shared(self, value: str, shape: list[int]) -> tuple[str, list[int]]:
        weight = self._weight(shape[0], shape[0], 3, 3)
        once = self._activated(self.node("Conv", value, weight, pads=[1] * 4))
        return self.node("Conv", once, weight, *self._bias(shape[0]), pads=[1] * 4), shape

    def _skip(self, value: str, shape: list[int]) -> tuple[str, list[int]]:
        inputs = [self._weight(shape[0], shape[0], 3, 3), *self._bias(shape[0])]
        return self.node("Add", self.node("Conv", value, *inputs, pads=[1] * 4), value), shape

    def _concat(self, value: str, shape: list[int]) -> tuple[str, list[int]]:
        outputs = self._draw(st.integers(1, 4))
        other = self.node("Conv", value, self._weight(outputs, shape[0], 1, 1))
        return self.node("Concat", other, value, axis=1), [shape[0] + outputs, *shape[1:]]

    def _gemm(self, value: str, features: int) -> tuple[str, int]:
        outputs, turned = self._draw(st.integers(2, 8)), self._some()
        weight = self._weight(*((outputs, features) if turned else (features, outputs)))
        factors = {"beta": 0.5} if self._some() else {}
        inputs = [weight, *self._bias(outputs)]
        if self._some():  # the samples may lie along the second axis too
            return self.node(
                "Gemm", self.node("Transpose", value), *inputs, transA=1, transB=int(turned),
                **factors,
            ), outputs  # fmt: skip
        return self.node("Gemm", value, *inputs, transB=int(turned), **factors), outputs

    def _gemm_from_the_left(self, value: str, features: int) -> tuple[str, int]:
        outputs, turned = self._draw(st.integers(2, 8)), self._some()
        weight = self._weight(*((features, outputs) if turned else (outputs, features)))
        result = self.node("Gemm", weight, value, transA=int(turned), transB=1)
        return self.node("Transpose", result), outputs

    def _matmul(self, value: str, features: int) -> tuple[str, int]:
        outputs = self._draw(st.integers(2, 8))
        result = self.node("MatMul", value, self._weight(features, outputs))
        bias = self._bias(outputs)
        return self.node("Add", *bias, result) if bias else result, outputs

    def _stack(self, value: str, features: int) -> tuple[str, int]:
        count, outputs = self._draw(st.integers(1, 3)), self._draw(st.integers(2, 4))
        result = self.node("MatMul", value, self._weight(count, features, outputs))
        return self.node("Flatten", self.node("Transpose", result, perm=[1, 0, 2])), count * outputs

    def _twice(self, value: str, features: int) -> tuple[str, int]:
        weight = self._weight(features, features)
        once = self._activated(self.node("MatMul", value, weight))
        return self.node("MatMul", once, weight), features

    def _tied(self, value: str, features: int) -> tuple[str, int]:
        weight = self._weight(features, self._draw(st.integers(2, 8)))
        once = self._activated(self.node("MatMul", value, weight))
        return self.node("MatMul", once, self.node("Transpose", weight)), features


def _store_as_values(proto: onnx.ModelProto, name: str) -> None:
    """A tensor's values in the field of their type, instead of raw bytes."""
    (tensor,) = (tensor for tensor in proto.graph.initializer if tensor.name == name)
    array = numpy_helper.to_array(tensor)
    tensor.CopyFrom(helper.make_tensor(name, tensor.data_type, array.shape, array.ravel()))
