"""FIND: which biases and norms are learned along with the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_graphsurgeon as gs

from fcpts_onnx.flow import passed_on, uses_of
from fcpts_onnx.model import Model
from fcpts_onnx.weights import LEARNED_TYPES, Weight, is_named, node_label

__all__ = ["learned_along"]

# Input positions of biases, and of the scales and shifts of norms, learned with the weights.
_BIAS_INPUTS = {"Conv": (2,), "ConvTranspose": (2,), "Gemm": (2,)}
_NORM_INPUTS = {
    ("", "BatchNormalization"): (1, 2),
    ("", "GroupNormalization"): (1, 2),
    ("", "InstanceNormalization"): (1, 2),
    ("", "LayerNormalization"): (1, 2),
    ("", "RMSNormalization"): (1,),
    ("com.microsoft", "SkipLayerNormalization"): (2, 3),
}
# Operators that add a bias to what a layer gives.
_ADDING = {("", "Add"), ("com.microsoft", "BiasGelu"), ("com.microsoft", "FastGelu")}


def learned_along(
    model: Model, weights: Sequence[Weight], exclude: Sequence[str] = ()
) -> list[str]:
    """The names of biases and norm parameters that are learned together with the weights.

    Only constants that are never anything else: the bias of a layer whose weight is pruned, as
    an input or as what is added to its result, or the scale or shift of a norm.

    Args:
        weights: the candidates; what belongs to an excluded one is left alone too.
        exclude: globs on its name or that of a node that reads it; what matches one is left alone.
    """
    layers = {
        label: weight for weight in weights if weight.excluded is None for label in weight.nodes
    }
    names, constants = [], model.tensors
    model = model.inlined()
    for name, tensor in model.graph.tensors().items():
        stored = constants.get(name)
        if stored is None or stored.data_type not in LEARNED_TYPES.values():
            continue
        if not {passed.name for passed in passed_on(tensor)}.isdisjoint(model.outputs):
            continue
        uses = list(uses_of(tensor))
        named = (name, *(node_label(node) for node, _ in uses))
        if any(is_named(pattern, *named) for pattern in exclude):
            continue
        if uses and all(_is_along(node, at, layers, stored.dims) for node, at in uses):
            names.append(name)
    return names


def _is_along(
    node: gs.Node, position: int, layers: Mapping[str, Weight], shape: Sequence[int]
) -> bool:
    """Whether an input of a shape is a parameter of a norm, or the bias of one of the layers."""
    operator = (node.domain, node.op)
    if operator in _ADDING:
        others = (value for at, value in enumerate(node.inputs) if at != position)
        producers = [producer for value in others for producer in value.inputs]
        layer = layers.get(node_label(producers[0])) if producers else None
        # Other things are added too: masks, positions, the 3 of a hard swish.
        wide = [size for size in shape if size != 1]
        return layer is not None and wide == [layer.channels]
    if position in _BIAS_INPUTS.get(node.op, ()) and not node.domain:
        return node_label(node) in layers
    return position in _NORM_INPUTS.get(operator, ())
