"""FIND: nodes that compute as in training, as no network that is deployed should."""

from __future__ import annotations

from collections.abc import Collection

import onnx_graphsurgeon as gs

from fcpts_onnx.errors import ModelError
from fcpts_onnx.flow import before_outputs, graphs_inside, is_fixed, without_inputs
from fcpts_onnx.model import Model
from fcpts_onnx.weights import node_label

__all__ = ["check_inference_form"]

_NAMED = 3


def check_inference_form(model: Model) -> None:
    """See that no output depends on what is for training alone.

    Raises:
        ModelError: on a batch norm that goes by the batch at hand, or on a Dropout that drops.
    """
    model = model.inlined()
    live, fixed = before_outputs(model.graph), without_inputs(model.graph)
    found = []
    for outer in (node for node in model.graph.nodes if id(node) in live):
        inner = (node for body in graphs_inside(outer) for node in body.nodes)
        found += [node for node in (outer, *inner) if _trains(model, node, fixed)]
    if found:
        named = ", ".join(f"{node.op} {node_label(node)!r}" for node in found[:_NAMED])
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise ModelError(
            f"{model.path}: is in training form: {named}{more}. There, batch norms go by the other "
            "samples of a batch, and Dropout drops values. Export the model in eval mode: "
            "model.eval(), and training=TrainingMode.EVAL for torch.onnx.export."
        )


def _trains(model: Model, node: gs.Node, fixed: Collection[int]) -> bool:
    """Whether a node normalises by the batch at hand, or drops values.

    Args:
        fixed: ids of tensors that follow from constants: norms of weights are for inference too.
    """
    if node.domain:
        return False
    if node.op == "BatchNormalization" and node.attrs.get("training_mode", 0):
        return not is_fixed(node.inputs[0], fixed)
    if node.op == "Dropout" and len(node.inputs) > 2:
        ratio, training = (tensor.name for tensor in node.inputs[1:3])
        drops = ratio not in model.tensors or model.array(ratio).any()
        return training in model.tensors and bool(drops and model.array(training).any())
    return False
